# SPDX-License-Identifier: Apache-2.0
"""Ring files that are none, lie, or come in crowds: the real ones beside them go on and nothing is hidden."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from correlator.model import clock_record, row, write
from correlator.test_correlator import message
from plant import Plant, wait_for
from tickpath.clock import monotonic_ns
from tickpath.errors import RingError
from tickpath.event import RECORD, ROW, Kind
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.rings import MAX_RINGS
from tickpath.exporter.service import Service
from tickpath.ring import SUFFIX, RingReader, RingWriter

_HEAD = 192  # offset of the head in the header; test_the_head_is_where_these_tests_write_it holds it to that
_PAGE = 4096


def _patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(Correlator(), tmp_path, CursorFile(tmp_path / "x.cursors"))
    yield made
    if made._thread.is_alive():
        made.stop()


def test_the_head_is_where_these_tests_write_it(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=16, rows=1) as writer:
        assert struct.unpack_from("<Q", writer.path.read_bytes(), _HEAD) == (writer.head,)


def test_the_service_attaches_as_many_rings_as_the_correlator_takes(tmp_path: Path) -> None:
    correlator = Correlator()
    with contextlib.ExitStack() as stack:
        for number in range(MAX_RINGS + 1):
            ring = stack.enter_context(RingWriter(tmp_path, f"r{number}", "feed", capacity=16, rows=1))
            if number < MAX_RINGS:
                correlator.attach(ring.path)
            else:
                with pytest.raises(RingError, match="attached already"):
                    correlator.attach(ring.path)


def test_a_thousand_dead_rings_hide_no_living_one(tmp_path: Path, service: Service) -> None:
    for number in range(1000):
        RingWriter(tmp_path, f"a{number:04}", "feed", capacity=16, rows=1).close()
    service.start()
    with RingWriter(tmp_path, "living", "feed", capacity=64, rows=4) as ring:
        handle = ring.open_row(row())
        assert handle is not None
        for ordinal in range(5):
            write(ring, message(handle, monotonic_ns(), ordinal + 1, ordinal))
        wait_for(lambda: sum(service.observe().snapshot.messages.values()) == 5, "the living ring's messages")
        assert "living" not in service.observe().unreadable


def test_a_ring_that_gave_way_is_taken_again_where_it_was_left(tmp_path: Path, service: Service) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=64, rows=4) as ring:
        service.start()
        handle = ring.open_row(row())
        assert handle is not None
        write(ring, message(handle, monotonic_ns(), 1, 0))
        wait_for(lambda: sum(service.observe().snapshot.messages.values()) == 1, "the first message")
    with contextlib.ExitStack() as stack:
        for number in range(MAX_RINGS):
            stack.enter_context(RingWriter(tmp_path, f"b{number}", "feed", capacity=16, rows=1))
        wait_for(lambda: "a" not in {one.name for one in service.observe().snapshot.rings}, "room made by the dead")
    with RingWriter(tmp_path, "a", "feed", capacity=64, rows=4) as ring:
        wait_for(lambda: "a" in {one.name for one in service.observe().snapshot.rings}, "its return")
        handle = ring.open_row(row())
        assert handle is not None
        write(ring, message(handle, monotonic_ns(), 1, 0))
        wait_for(lambda: sum(service.observe().snapshot.messages.values()) == 2, "the second message, once")
        # HELLO, and the BYE before it where nobody had come to it: read or counted, not forgotten.
        assert service.observe().skipped["a"] <= 2


def _hostile(directory: Path, chance: random.Random) -> None:
    """Files named like rings: garbage, cut, oversized, lying; and things that are no files."""
    good = RingWriter(directory, "model", "feed", capacity=16, rows=2)
    good.close()
    model = good.path.read_bytes()
    good.path.unlink()
    for number in range(30):
        noise = bytearray(model)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(0, 1024)
            noise[at : at + 8] = chance.randbytes(8)
        (directory / f"noise{number}{SUFFIX}").write_bytes(noise)
    for size in (0, 1, 100, _PAGE - 1, _PAGE, len(model) - 1):
        (directory / f"cut{size}{SUFFIX}").write_bytes(model[:size])
    (directory / f"long{SUFFIX}").write_bytes(model + bytes(100_000))
    huge = directory / f"huge{SUFFIX}"
    huge.write_bytes(model)
    os.truncate(huge, 1 << 40)  # sparse
    rows = np.frombuffer(chance.randbytes(ROW.itemsize * 2), ROW).copy()
    rows["venue"], rows["feed"] = b'\x00\x1b[2J\n"\\', b"\xff\xfe{}\r\n# HELP"
    lying = bytearray(model)
    lying[_PAGE : _PAGE + rows.nbytes] = rows.tobytes()
    (directory / f"rows{SUFFIX}").write_bytes(lying)
    os.mkfifo(directory / f"pipe{SUFFIX}")
    (directory / f"link{SUFFIX}").symlink_to("/dev/zero")
    (directory / f"loop{SUFFIX}").symlink_to(f"loop{SUFFIX}")
    (directory / f"folder{SUFFIX}").mkdir()
    (directory / f'ctrl\x1b[31m\n"{SUFFIX}').write_bytes(model[:100])


def test_hostile_files_beside_real_rings_change_nothing(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, simulate=["--speed", "4"]) as plant:
        plant.wait_for_messages(plant.feed_names, 50)
        _hostile(plant.rings, random.Random(5))
        plant.wait_for_messages(plant.feed_names, 200)
        wait_for(lambda: len(plant.summary().unreadable_rings) > 5, "files refused by name")
        assert 'ring="ctrl' in plant.metrics()
        # An exporter that finds all of it at its start serves as well.
        plant.kill("exporter")
        plant.start("exporter")
        plant.wait_for_messages(plant.feed_names, 100)
        summary = plant.settle()
        assert plant.books(summary).uncounted == 0
        said = "".join(child.log.read_text() for child in plant.all)
        assert "ctrl" in said
        assert "\x1b" not in said, "a file's name is not for the operator's terminal to obey"


@pytest.mark.parametrize("head", [0, 1, 1 << 20, (1 << 63) + 5, (1 << 64) - 1], ids=hex)
def test_a_head_that_lies_is_read_without_end_or_crash(tmp_path: Path, service: Service, head: int) -> None:
    ring = RingWriter(tmp_path, "a", "feed", capacity=64, rows=2)
    with RingWriter(tmp_path, "b", "feed", capacity=64, rows=4) as good:
        service.start()
        handle = good.open_row(row())
        assert handle is not None
        ring.write(np.zeros(10, RECORD).view("u1"))
        _patch(ring.path, _HEAD, struct.pack("<Q", head))
        write(good, message(handle, monotonic_ns(), 1, 0))
        wait_for(lambda: sum(service.observe().snapshot.messages.values()) == 1, "the other ring's message")
        for lie in (5, head, 3, head ^ 0xFFFF):
            _patch(ring.path, _HEAD, struct.pack("<Q", lie))
        write(good, message(handle, monotonic_ns(), 2, 1))
        wait_for(lambda: sum(service.observe().snapshot.messages.values()) == 2, "the other ring's message")
    ring.close()


@pytest.mark.parametrize("seed", range(3))
def test_records_of_noise_are_counted_and_spoil_no_other_ring(tmp_path: Path, service: Service, seed: int) -> None:
    chance = np.random.default_rng(seed)
    kinds = ("feed", "wire", "kernel", "", "\x1b[2J")
    with contextlib.ExitStack() as stack:
        noisy = [
            stack.enter_context(RingWriter(tmp_path, f"n{i}", kind, capacity=4096, rows=8))
            for i, kind in enumerate(kinds)
        ]
        good = stack.enter_context(RingWriter(tmp_path, "good", "feed", capacity=4096, rows=4))
        service.start()
        handle = good.open_row(row())
        assert handle is not None
        write(good, clock_record())
        for turn in range(20):
            for ring in noisy:
                noise = chance.integers(0, 256, size=(200, RECORD.itemsize), dtype=np.uint8).view(RECORD).reshape(-1)
                noise["kind"] = chance.integers(0, 16, size=200)
                noise["row"] = chance.integers(0, 12, size=200)
                noise["kind"][noise["kind"] == Kind.CLOCK] = 0  # clocks are test_clocks' matter
                if turn % 3 == 0:
                    ring.open_row(np.frombuffer(chance.bytes(ROW.itemsize), ROW)[0])
                ring.write(noise.view("u1"))
            write(good, message(handle, monotonic_ns(), turn + 1, turn))
        feed = ("binance-usdm", "btcusdt-trade")
        wait_for(lambda: any(n == 20 for n in service.observe().snapshot.messages.values()), f"the good feed's {feed}")
        state = service.observe().snapshot
        total = sum(state.messages.values())
        assert sum(state.matched.values()) + sum(state.unmatched.values()) == total


def test_a_reader_stopped_at_a_dead_producers_torn_slot_goes_on_with_its_successor(tmp_path: Path) -> None:
    """A producer that died between number and head, many times over: no record twice, none left out."""
    ring = RingWriter(tmp_path, "a", "feed", capacity=16, rows=1)
    ring.write(np.zeros(3, RECORD).view("u1"))
    head = ring.head
    with RingReader(ring.path, from_start=True) as reader:
        ring.close()
        out = np.zeros(64, RECORD)
        taken = reader.read(out.view("u1"))
        assert list(out["seq"][:taken]) == list(range(1, head + 2))
        _patch(ring.path, _HEAD, struct.pack("<Q", head))  # the BYE's slot is whole, its head was not stored
        with RingWriter(tmp_path, "a", "feed", capacity=16, rows=1) as successor:
            taken = reader.read(out.view("u1"))
            assert list(out["seq"][:taken]) == [head + 2]
            assert successor.head == head + 2


def test_two_feeds_of_one_name_are_one_and_a_line(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, feeds=["a"]) as plant:
        plant.wait_for_messages(["a"], 20)
        first = plant.children["a"]
        second = plant.child("a", *plant.feed_command("a"))
        assert second.wait_for_end(30)
        assert second.exit_code == 1
        lines = second.log.read_text().strip().splitlines()
        assert len(lines) == 1
        assert "give this one another name" in lines[0]
        plant.children["a"] = first
        plant.wait_for_messages(["a"], 20)
        first_pid_alive = first.exit_code is None
        assert first_pid_alive
        os.kill(first.pid, signal.SIGCONT)
        summary = plant.settle()
        assert plant.books(summary).uncounted == 0
