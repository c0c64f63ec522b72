# SPDX-License-Identifier: Apache-2.0
"""Clocks that are not what a reader takes them for: stepped ones, and those of another time namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plant import Plant, wait_for

from tickpath.errors import RingError
from tickpath.ring import RingReader, RingWriter

IS_ROOT = os.geteuid() == 0
root = pytest.mark.root
needs_root = pytest.mark.skipif(not IS_ROOT, reason="a time namespace needs CAP_SYS_ADMIN")

_PRODUCER = """
import sys
from pathlib import Path
from tickpath.ring import RingWriter
with RingWriter(Path(sys.argv[1]), "feed-a", "feed", capacity=64, rows=4):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def _produce(directory: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-P", "-c", _PRODUCER, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def shifted(tmp_path: Path) -> Iterator[Path]:
    """The ring directory of a producer whose CLOCK_MONOTONIC is a thousand seconds ahead."""
    producer = _produce(tmp_path, "unshare", "--time", "--monotonic", "1000")
    yield tmp_path
    producer.communicate("\n", 20)


@root
@needs_root
def test_a_producer_on_another_monotonic_clock_is_refused_in_one_line(shifted: Path) -> None:
    with pytest.raises(RingError, match="another time namespace") as refused:
        RingReader(shifted / "feed-a.ring")
    assert "\n" not in str(refused.value)


@root
@needs_root
def test_a_namespace_that_shifts_only_the_boot_clock_is_the_same_timeline(tmp_path: Path) -> None:
    producer = _produce(tmp_path, "unshare", "--time", "--boottime", "1000")
    with RingReader(tmp_path / "feed-a.ring") as reader:
        assert reader.alive
    producer.communicate("\n", 20)


@root
@needs_root
def test_a_successor_on_another_monotonic_clock_takes_a_new_file(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64, rows=4) as writer:
        reader = RingReader(writer.path)
    with reader:
        producer = _produce(tmp_path, "unshare", "--time", "--monotonic", "1000")
        assert (tmp_path / "feed-a.ring").stat().st_ino != reader.inode
        assert not reader.alive, "what this reader follows is not written on another clock"
        producer.communicate("\n", 20)


@root
@needs_root
def test_the_exporter_names_it_and_goes_on_with_the_others(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, feeds=["b"]) as plant:
        producer = _produce(plant.rings, "unshare", "--time", "--monotonic", "1000")
        wait_for(lambda: "feed-a" in plant.summary().unreadable_rings, "the ring's refusal")
        assert "another time namespace" in plant.summary().unreadable_rings["feed-a"]
        producer.communicate("\n", 20)
        summary = plant.settle()
        assert plant.books(summary).uncounted == 0
