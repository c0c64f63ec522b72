# SPDX-License-Identifier: Apache-2.0
"""Readers that are late, lapped, stopped or lazy cost counted records, and no producer its pace."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import zmq

from plant import Plant, wait_for
from ports import held_port
from tickpath.event import Counter
from tickpath.ring import RingReader

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="the wire probe needs CAP_NET_RAW")


def _loss(plant: Plant) -> None:
    summary = plant.settle()
    books = plant.books(summary)
    print(f"{books}; uncounted {books.uncounted}; lost records {summary.lost_records}")
    assert books.uncounted == 0
    assert books.lost > 0
    assert summary.lost_records >= books.lost == summary.missed, "the exporter knows how many messages they were"
    # What the producers' own totals say agrees: nothing that a feed received is beyond the account.
    written = sum(ring.counters.get("messages", 0) for ring in summary.rings.values())
    assert written == books.received


def test_a_stopped_exporter_is_lapped_and_knows_what_it_lost(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, simulate=["--speed", "4"], feed=["--capacity", "512"]) as plant:
        plant.wait_for_messages(plant.feed_names, 50)
        for _ in range(2):
            plant.signal("exporter", signal.SIGSTOP)
            plant.wait_for_messages(plant.feed_names, 800)  # with their reads more than three laps
            plant.signal("exporter", signal.SIGCONT)
            plant.wait_for_messages(plant.feed_names, 100)
        _loss(plant)


def test_a_late_reader_counts_what_it_did_not_see(tmp_path: Path) -> None:
    with Plant(tmp_path, wire=False, simulate=["--speed", "4"]) as plant:
        plant.kill("exporter")
        for saved in plant.rings.glob("*.cursors"):
            saved.unlink()  # as one that was never there
        plant.wait_for_messages(plant.feed_names, 200)
        plant.start("exporter")
        plant.wait_for_messages(plant.feed_names, 50)
        summary = plant.settle()
        books = plant.books(summary)
        assert books.skipped >= 400
        assert books.taken_by_predecessors == 0
        assert books.uncounted == 0


@pytest.mark.root
@needs_root
def test_a_stopped_wire_probe_loses_frames_by_count_and_no_message(tmp_path: Path) -> None:
    with Plant(tmp_path, simulate=["--speed", "6"], wire_flags=["--buffer-bytes", str(2 << 17)]) as plant:
        plant.wait_for_messages(plant.feed_names, 100)
        wait_for(lambda: plant.summary().matched["offset"] > 100, "the first matches")
        plant.signal("wire", signal.SIGSTOP)
        plant.wait_for_messages(plant.feed_names, 2500)
        plant.signal("wire", signal.SIGCONT)
        before = plant.summary().matched["offset"]
        wait_for(lambda: plant.summary().matched["offset"] > before + 200, "matches after it came back")
        summary = plant.settle()
        assert plant.books(summary).uncounted == 0
        assert summary.lost_records == 0
        assert summary.messages == sum(messages for life in plant.sent() for _, messages in life)
        wire = summary.rings["wire-lo"].counters
        assert wire["frames_dropped"] > 0
        without = summary.sources.get("sock", 0) + sum(summary.unmatched.values()) + summary.matched["socket"]
        assert without > 0, "what the probe missed is not given a stamp of its own"


def test_a_subscriber_that_never_reads_costs_counted_drops_and_no_pace(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        address = f"tcp://127.0.0.1:{stack.enter_context(held_port())}"
        flags = ["--publish", address, "--high-water-mark", "8"]
        blast = ["--speed", "max"]
        plant = stack.enter_context(Plant(tmp_path, wire=False, feeds=["a"], simulate=blast, feed=flags))
        context = zmq.Context()
        lazy = context.socket(zmq.SUB)
        lazy.setsockopt(zmq.RCVHWM, 2)
        lazy.setsockopt(zmq.RCVBUF, 4096)
        lazy.setsockopt(zmq.SUBSCRIBE, b"")
        lazy.connect(address)
        plant.auditors["a"].may_lose = True
        path = plant.ring("feed-a")
        try:
            with RingReader(path) as reader:
                wait_for(lambda: reader.counters()[Counter.PUBLISH_DROPPED] > 100, "drops")
                first, began = reader.counters()[Counter.MESSAGES], time.monotonic()
                wait_for(lambda: reader.counters()[Counter.MESSAGES] > first + 3000, "the feed's going on")
                assert time.monotonic() > began
                summary = plant.settle()
                counters = reader.counters()
        finally:
            lazy.close(linger=0)
            context.term()
        (sent,) = (sum(messages for life in plant.sent() for _, messages in life),)
        assert counters[Counter.MESSAGES] == sent, "received all the same"
        assert summary.missing["msk"]["not_published"] <= counters[Counter.PUBLISH_DROPPED]
        if summary.lost_records == 0:
            assert summary.missing["msk"]["not_published"] == counters[Counter.PUBLISH_DROPPED]
