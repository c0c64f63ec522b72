# SPDX-License-Identifier: Apache-2.0
"""The commands exporter and tail as an operator starts them: processes with real rings, signals and mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickpath.event import RECORD, ROW, Clock, Kind, MessageFlag, Tier
from tickpath.ring import RingWriter

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `tickpath …` on a ring directory of this test's own; ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKPATH_")}
        process = subprocess.Popen(
            # Whoever runs the tests in the background may have SIGINT ignored.
            ["env", "--default-signal=INT", sys.executable, "-P", "-m", "tickpath", *arguments],
            env={**clean, "TICKPATH_DIRECTORY": str(tmp_path / "rings"), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"url=(\S+)", line):
            return found[1]
    raise AssertionError(f"ended with {process.wait()} without serving")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        content: bytes = response.read()
        return content


def summary(url: str) -> Any:
    return json.loads(get(url + "api/summary"))


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


class Feed:
    """A producer of messages: each in a read of its own, with all the stamps of a feed, 100 ns for each step."""

    def __init__(self, directory: Path, name: str = "btcusdt") -> None:
        self.writer = RingWriter(directory, f"feed-{name}", "feed", capacity=4096, rows=4)
        row = np.zeros(1, dtype=ROW)
        row["cookie"], row["venue"], row["feed"] = 4711, b"binance-usdm", name.encode()
        self.row = self.writer.open_row(row[0])
        assert self.row is not None
        self.sent = 0

    def send(self, count: int) -> None:
        for _ in range(count):
            now = time.monotonic_ns()
            both = np.zeros(2, dtype=RECORD)
            both["row"], both["clock"] = self.row, Clock.MONOTONIC
            both["source"] = Tier.A
            read, message = both[:1], both[1:]
            read["kind"], message["kind"] = Kind.READ, Kind.MESSAGE
            read["time_ns"], message["time_ns"] = now, now + 300
            read["read"]["from"], read["read"]["to"] = 200 * self.sent, 200 * (self.sent + 1)
            read["read"]["asked_ns"] = now - 500
            message["flags"] = MessageFlag.HAS_DECODE | MessageFlag.HAS_PARSED | MessageFlag.HAS_PUBLISHED
            body = message["message"]
            body["end"], body["ordinal"], body["length"] = 200 * (self.sent + 1), self.sent, 180
            body["decode_ns"], body["parsed_ns"], body["published_ns"] = 100, 1000, 17_000
            self.writer.write(both.view("u1"))
            self.sent += 1


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    made = Feed(tmp_path / "rings")
    yield made
    made.writer.close()


def test_messages_come_out_as_figures_and_a_signal_ends_it_well(start: Start, feed: Feed) -> None:
    exporter = start("exporter", "--listen", "127.0.0.1:0", "--window-ms", "50")
    url = url_of(exporter)
    assert get(url + "-/ready") == b"ok\n"
    feed.send(100)
    until(lambda: summary(url)["messages"] == 100)
    read = summary(url)
    assert read["pending"] == 0
    assert sum(read["matched"].values()) + sum(read["unmatched"].values()) == 100
    assert (read["hops"]["cpu"]["count"], read["hops"]["cpu"]["sum_ns"]) == (100, 100_000)
    assert (read["hops"]["msk"]["p50_ns"], read["hops"]["msk"]["max_ns"]) == (17_000, 17_000)
    assert "nic_to_kernel" not in read["hops"]
    assert sum(read["missing"]["nic_to_kernel"].values()) == 100
    # Nobody has said how far this host's clock is from UTC: a figure would be made up.
    assert read["clocks"]["realtime"]["bound_ns"] is None
    assert b'tickpath_clock_uncertainty_seconds{clock="realtime"} +Inf\n' in get(url + "metrics")
    assert b'tickpath_hop_latency_seconds_count{feed="btcusdt",hop="cpu"' in get(url + "metrics")
    exporter.send_signal(signal.SIGTERM)
    assert exporter.wait(60) == 0
    assert exporter.communicate()[0] == ""


def test_killed_and_started_again_nothing_counts_twice_and_the_gap_is_counted(start: Start, feed: Feed) -> None:
    first = start("exporter", "--listen", "127.0.0.1:0", "--window-ms", "50")
    url = url_of(first)
    feed.send(30)
    until(lambda: summary(url)["messages"] == 30)
    first.kill()
    first.wait()
    feed.send(10)
    second = start("exporter", "--listen", "127.0.0.1:0", "--window-ms", "50")
    url = url_of(second)
    feed.send(5)
    until(lambda: summary(url)["messages"] == 5)
    # Two records a message; the cursors were written down up to a second before the kill.
    assert 20 <= summary(url)["skipped_records"] <= 2 * 40 + 1


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        exporter = start("exporter", TICKPATH_EXPORTER_LISTEN=f"127.0.0.1:{port}")
        _, error = exporter.communicate(timeout=120)
    assert exporter.returncode == 2
    assert len(error.splitlines()) == 1
    assert str(port) in error
    assert "--listen" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("exporter", "--listen", "nonsense"),
        ("exporter", "--listen", "127.0.0.1:99999"),
        ("exporter", "--listen", "::1"),
        ("exporter", "--match", "guess"),
        ("exporter", "--window-ms", "0"),
        ("exporter", "--directory", "/proc/nowhere/rings"),
        ("tail", "--slower-than", "soon"),
        ("tail", "--feed", ""),
        ("tail", "--directory", "/proc/nowhere/rings"),
    ],
)
def test_a_mistake_is_one_line(start: Start, arguments: tuple[str, ...]) -> None:
    process = start(*arguments)
    output, error = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert output == ""
    assert len(error.splitlines()) == 1
    assert error.startswith(f"tickpath {arguments[0]}: ")


def wait_for_reader(process: subprocess.Popen[str], path: Path) -> None:
    """Until the process has mapped the ring: what is written from then on, it sees."""
    until(lambda: str(path) in Path(f"/proc/{process.pid}/maps").read_text())


def test_tail_prints_a_line_per_message_and_stops_at_its_count(start: Start, feed: Feed, tmp_path: Path) -> None:
    tail = start("tail", "--count", "3", "--feed", "btcusdt")
    wait_for_reader(tail, tmp_path / "rings" / "feed-btcusdt.ring")
    feed.send(5)
    output, error = tail.communicate(timeout=120)
    assert tail.returncode == 0
    lines = output.splitlines()
    assert [re.findall(r"ordinal=(\d+)", line) for line in lines] == [["0"], ["1"], ["2"]]
    assert all(line.startswith("[delay] feed=btcusdt ordinal=") for line in lines)
    assert all("CPU=1.00µs MSK=17.0µs" in line for line in lines)
    assert "\x1b" not in output
    assert error.splitlines()[-1] == "3 of 3 messages shown"


def test_tail_as_json_until_its_reader_leaves(start: Start, feed: Feed, tmp_path: Path) -> None:
    tail = start("tail", "--json")
    assert tail.stdout is not None
    wait_for_reader(tail, tmp_path / "rings" / "feed-btcusdt.ring")
    feed.send(1)
    read = json.loads(tail.stdout.readline())
    assert (read["feed"], read["ordinal"], read["cpu_ns"], read["msk_ns"]) == ("btcusdt", 0, 1000, 17_000)
    tail.stdout.close()
    feed.send(1)
    assert tail.wait(60) == 0


def test_tail_that_is_interrupted_says_what_it_showed(start: Start, feed: Feed, tmp_path: Path) -> None:
    tail = start("tail")
    wait_for_reader(tail, tmp_path / "rings" / "feed-btcusdt.ring")
    tail.send_signal(signal.SIGINT)
    output, error = tail.communicate(timeout=120)
    assert (tail.returncode, output) == (130, "")
    assert error.splitlines()[-1] == "0 of 0 messages shown"
