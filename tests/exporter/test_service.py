# SPDX-License-Identifier: Apache-2.0
"""The service follows its directory: rings come, are replaced, go, are bad; losses and skips are counted once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter_fakes import FakeCorrelator
from tickpath.event import RECORD, ROW, Counter, Kind, RowFlag
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.correlator.correlator import BUSY_PAUSE_NS
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.page import MetricsPage
from tickpath.exporter.rings import MAX_RINGS, Rings
from tickpath.exporter.service import Service
from tickpath.ring import RingWriter


def records(count: int) -> np.ndarray:
    made = np.zeros(count, dtype=RECORD)
    made["kind"] = Kind.READ
    return made.view("u1")


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.005)


class Running:
    """A service over a directory, and the correlator behind it."""

    def __init__(self, directory: Path) -> None:
        self.correlator = FakeCorrelator()
        self.service = Service(self.correlator, directory, CursorFile(directory / "exporter.cursors"))
        self.service.start()

    def rings(self) -> dict[str, bool]:
        return {ring.name: ring.alive for ring in self.service.observe().snapshot.rings}

    def read(self) -> int:
        return self.service.observe().snapshot.records


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[], Running]]:
    made: list[Running] = []

    def start() -> Running:
        made.append(Running(tmp_path))
        return made[-1]

    yield start
    for one in made:
        one.service.stop()


def test_a_ring_made_later_is_read_from_its_first_record(tmp_path: Path, running: Callable[[], Running]) -> None:
    exporter = running()
    with RingWriter(tmp_path, "feed-a", "feed", capacity=1024) as writer:
        writer.write(records(100))
        until(lambda: exporter.read() == 101)  # and HELLO
        assert exporter.rings() == {"feed-a": True}
    until(lambda: exporter.rings() == {"feed-a": False})
    until(lambda: exporter.read() == 102)  # and BYE
    assert exporter.service.observe().skipped == {"feed-a": 0}


def test_what_was_there_before_the_first_exporter_is_skipped_and_said(
    tmp_path: Path, running: Callable[[], Running]
) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=1024) as writer:
        writer.write(records(9))
        exporter = running()
        writer.write(records(5))
        until(lambda: exporter.read() == 5)
        assert exporter.service.observe().skipped == {"feed-a": 10}


def test_a_successor_counts_what_its_predecessor_did_not_read(tmp_path: Path, running: Callable[[], Running]) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=1024) as writer:
        first = running()
        writer.write(records(50))
        until(lambda: first.read() == 50)
        first.service.stop()
        writer.write(records(7))
        second = running()
        assert second.service.observe().skipped == {"feed-a": 7}
        writer.write(records(3))
        until(lambda: second.read() == 3)
        assert second.service.observe().skipped == {"feed-a": 7}


def test_stopping_reads_what_was_written_and_finalises(tmp_path: Path, running: Callable[[], Running]) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=1024) as writer:
        exporter = running()
        writer.write(records(500))
        exporter.service.stop()
        assert exporter.read() == 500
        assert exporter.correlator.flushed
        assert exporter.service.not_ready() is not None


def test_a_removed_ring_is_detached_and_its_losses_stay(tmp_path: Path, running: Callable[[], Running]) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64) as writer:
        exporter = running()
        with exporter.correlator._lock:  # no poll in between: the ring laps the reader
            writer.write(records(1000))
        until(lambda: exporter.read() > 0)
        lost = exporter.service.observe().lost["feed-a"]
        assert lost > 0
        assert lost + exporter.read() == 1000
        (tmp_path / "feed-a.ring").unlink()
        until(lambda: exporter.rings() == {})
        assert exporter.service.observe().lost == {"feed-a": lost}


def test_a_replaced_ring_is_read_on_under_the_same_name(tmp_path: Path, running: Callable[[], Running]) -> None:
    exporter = running()
    old = RingWriter(tmp_path, "feed-a", "feed", capacity=64)
    until(lambda: exporter.read() == 1)
    old.close()
    # Another capacity: the successor cannot go on in the same file.
    with RingWriter(tmp_path, "feed-a", "feed", capacity=128) as writer:
        writer.write(records(10))
        until(lambda: exporter.read() == 1 + 1 + 11)
        assert exporter.rings() == {"feed-a": True}


@pytest.mark.parametrize("content", [b"", b"not a ring at all", b"TICKPATH" + b"\0" * 8192])
def test_a_bad_file_is_named_once_and_the_others_go_on(
    tmp_path: Path, running: Callable[[], Running], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ring").write_bytes(content)
    exporter = running()
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64):
        until(lambda: exporter.read() == 1)
        until(lambda: bool(exporter.service.observe().unreadable))
        polls = exporter.correlator.polled
        until(lambda: exporter.correlator.polled > polls + 300)  # more than one scan
        observed = exporter.service.observe()
        assert list(observed.unreadable) == ["bad"]
        assert observed.unreadable_total == 1
        assert exporter.service.not_ready() is None
    assert capsys.readouterr().out.count("ring_unusable") == 1
    (tmp_path / "bad.ring").unlink()
    until(lambda: not exporter.service.observe().unreadable)
    assert exporter.service.observe().unreadable_total == 1


def test_what_is_no_plain_file_is_left_alone(tmp_path: Path, running: Callable[[], Running]) -> None:
    (tmp_path / "directory.ring").mkdir()
    (tmp_path / "link.ring").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo.ring")
    (tmp_path / "other.txt").write_text("x")
    exporter = running()
    assert exporter.rings() == {}
    assert exporter.service.observe().unreadable == {}


def test_names_that_are_no_text_can_be_shown(tmp_path: Path, running: Callable[[], Running]) -> None:
    with open(os.fsencode(tmp_path) + b"/b\xff\n.ring", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    exporter = running()
    until(lambda: len(exporter.service.observe().unreadable) == 1)
    for chosen in (Format.TEXT, Format.OPENMETRICS):
        assert b'ring="b\\\\udcff\\n"' in MetricsPage(exporter.service.observe).render(chosen)


def test_a_crowd_of_rings_is_bounded(tmp_path: Path, running: Callable[[], Running]) -> None:
    writers = [RingWriter(tmp_path, f"r{n}", "feed", capacity=16, rows=1) for n in range(MAX_RINGS + 3)]
    try:
        exporter = running()
        assert len(exporter.rings()) == MAX_RINGS
        until(lambda: len(exporter.service.observe().unreadable) == 3)
    finally:
        for writer in writers:
            writer.close()


def test_a_directory_that_vanishes_is_not_ready_until_it_is_back(tmp_path: Path) -> None:
    directory = tmp_path / "rings"
    directory.mkdir()
    service = Service(FakeCorrelator(), directory, CursorFile(tmp_path / "cursors"))
    service.start()
    try:
        assert service.not_ready() is None
        directory.rmdir()
        until(lambda: service.not_ready() is not None)
        assert str(directory) in (service.not_ready() or "")
        directory.mkdir()
        until(lambda: service.not_ready() is None)
    finally:
        service.stop()


def test_a_look_for_rings_that_fails_is_said_and_what_is_attached_is_still_read(
    tmp_path: Path, running: Callable[[], Running]
) -> None:
    exporter = running()
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64) as writer:
        until(lambda: exporter.read() == 1)
        exporter.correlator.error = RuntimeError("broken")
        RingWriter(tmp_path, "feed-b", "feed", capacity=64).close()
        until(lambda: exporter.service.failure() is not None)
        assert "broken" in (exporter.service.not_ready() or "")
        writer.write(records(10))
        until(lambda: exporter.read() == 11)


def test_counters_of_producers_are_shown_by_ring(tmp_path: Path, running: Callable[[], Running]) -> None:
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64) as writer:
        writer.count(Counter.FEED_GAPS, 4)
        page = MetricsPage(running().service.observe).render(Format.TEXT)
    assert b'tickpath_feed_gaps_total{ring="feed-a"} 4.0\n' in page


def test_idle_polling_is_not_busy(tmp_path: Path) -> None:
    service = Service(Correlator(), tmp_path, CursorFile(tmp_path / "exporter.cursors"))
    service.start()
    try:
        until(lambda: bool((polls := service.observe().polls) and polls.intervals.count > 50))
        polls = service.observe().polls
        assert polls
        # Never faster than the shortest pause, however fast the machine.
        assert (polls.intervals.min_ns or 0) >= BUSY_PAUSE_NS
        assert service.not_ready() is None
    finally:
        service.stop()
    assert service.observe().polls is None


def test_what_stalls_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(Correlator(), tmp_path, CursorFile(tmp_path / "exporter.cursors"))
    service.start()
    try:
        until(lambda: bool((polls := service.observe().polls) and polls.last_ns))
        monkeypatch.setattr("tickpath.exporter.service.STALLED_SECONDS", -1.0)
        assert "have not been read for" in (service.not_ready() or "")
    finally:
        service.stop()


def test_scrapes_and_polls_at_the_same_time_agree(tmp_path: Path, running: Callable[[], Running]) -> None:
    exporter = running()
    page = MetricsPage(exporter.service.observe)
    stop = threading.Event()
    failures: list[BaseException] = []

    def scrape() -> None:
        try:
            while not stop.is_set():
                page.render(Format.OPENMETRICS)
        except BaseException as error:
            failures.append(error)

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for scraper in scrapers:
        scraper.start()
    try:
        for turn in range(5):
            with RingWriter(tmp_path, f"feed-{turn}", "feed", capacity=4096) as writer:
                for _ in range(20):
                    writer.write(records(100))
                    time.sleep(0.001)
            if turn % 2:
                (tmp_path / f"feed-{turn}.ring").unlink()
        until(lambda: len(exporter.rings()) == 3)
    finally:
        stop.set()
        for scraper in scrapers:
            scraper.join()
    assert failures == []


def test_a_ring_that_is_cut_short_is_let_go_and_the_others_go_on(
    tmp_path: Path, running: Callable[[], Running]
) -> None:
    exporter = running()
    with RingWriter(tmp_path, "feed-b", "feed") as other:
        RingWriter(tmp_path, "feed-a", "feed", capacity=64).close()  # a writer would not survive the cut
        until(lambda: exporter.rings() == {"feed-a": False, "feed-b": True})
        with (tmp_path / "feed-a.ring").open("r+b") as file:
            file.truncate(4096)
        until(lambda: list(exporter.service.observe().unreadable) == ["feed-a"])
        before = exporter.read()
        other.write(records(10))
        until(lambda: exporter.read() == before + 10)


def test_how_a_living_kernel_probe_sees_is_on_the_page(tmp_path: Path, running: Callable[[], Running]) -> None:
    exporter = running()
    modes = np.zeros((), dtype=ROW)
    modes["flags"], modes["feed"], modes["stream"] = RowFlag.PROBE, b"kernel", b"readable=tp_btf asked=none"
    with RingWriter(tmp_path, "kernel-b", "kernel", capacity=64, rows=2) as ring:
        ring.open_row(modes)
        ring.open_row(np.zeros((), dtype=ROW))  # a connection's
        until(lambda: exporter.rings() == {"kernel-b": True})
        page = MetricsPage(exporter.service.observe).render(Format.TEXT).decode()
        told = [line for line in page.splitlines() if line.startswith("tickpath_probe_mode{")]
        assert sorted(told) == [
            'tickpath_probe_mode{hook="asked",mode="none",probe="kernel"} 1.0',
            'tickpath_probe_mode{hook="readable",mode="tp_btf",probe="kernel"} 1.0',
        ]
    until(lambda: exporter.rings() == {"kernel-b": False})
    assert exporter.service.observe().modes == frozenset()


def test_a_ring_in_the_making_is_not_called_bad(tmp_path: Path) -> None:
    rings = Rings(FakeCorrelator(), tmp_path, {})
    (tmp_path / "feed-a.ring").write_bytes(b"")
    rings.scan()
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64):
        rings.scan()
        assert (rings.unreadable, rings.unreadable_total) == ({}, 0)


@pytest.mark.parametrize("plant", ["fifo", "link", "directory"])
def test_what_others_plant_for_the_cursor_file_is_not_followed(
    tmp_path: Path, running: Callable[[], Running], plant: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("exporter.cursors", f"exporter.{os.getpid()}"):
        match plant:
            case "fifo":
                os.mkfifo(tmp_path / name)
            case "link":
                (tmp_path / name).symlink_to(victim)
            case _:
                (tmp_path / name).mkdir()
    exporter = running()
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64):
        until(lambda: exporter.read() == 1)
        exporter.service.stop()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1}', b"\xff", b'{"feed-a": {"device":1,"inode":1,"record":99}}']
)
def test_cursors_that_make_no_sense_count_everything_as_skipped(
    tmp_path: Path, running: Callable[[], Running], content: bytes
) -> None:
    (tmp_path / "exporter.cursors").write_bytes(content)
    with RingWriter(tmp_path, "feed-a", "feed", capacity=64):
        assert running().service.observe().skipped == {"feed-a": 1}
