# SPDX-License-Identifier: Apache-2.0
"""`tickpath feed` and `tickpath sub` as processes: signals, exit codes, one-line errors, an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feed_server import Peer, Server, serving
from tickpath.errors import RingError
from tickpath.event import Counter
from tickpath.ring import RingReader

TICKPATH = [sys.executable, "-m", "tickpath"]


def trade(number: int) -> bytes:
    return f'{{"e":"trade","E":{1_760_000_000_000 + number},"T":1760000000000,"s":"BTCUSDT","t":{number}}}'.encode()


def endless(peer: Peer, number: int) -> None:
    peer.accept()
    for i in range(100_000):
        peer.message(trade(i))
        time.sleep(0.002)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)


@contextmanager
def feeding(
    server: Server, directory: Path, *flags: str, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    command = [*prefix, *TICKPATH, "feed", server.url(), "--directory", str(directory), "--publish", "none", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def ring_counters(path: Path) -> dict[Counter, int]:
    try:
        with RingReader(path) as reader:
            return reader.counters()
    except RingError:
        return {}  # not made yet


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals, tmp_path: Path) -> None:
    ring = tmp_path / "feed-btcusdt-trade.ring"
    with serving(endless) as server, feeding(server, tmp_path, "--log-format", "json") as process:
        until(lambda: ring_counters(ring).get(Counter.MESSAGES, 0) > 10)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["event"] for line in lines] == ["started", "connected", "disconnected"]
    assert lines[-1]["reason"] == "stopped"
    with RingReader(ring) as reader:
        assert not reader.alive
        assert lines[-1]["messages"] == reader.counters()[Counter.MESSAGES]


def test_a_signal_ends_it_while_nothing_comes(tmp_path: Path) -> None:
    def silent(peer: Peer, number: int) -> None:
        peer.accept()
        peer.drain()

    with serving(silent) as server, feeding(server, tmp_path) as process:
        until(lambda: ring_counters(tmp_path / "feed-btcusdt-trade.ring").get(Counter.CONNECTS, 0) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_signal_ends_it_while_it_connects(tmp_path: Path) -> None:
    with (
        serving(lambda peer, number: peer.drain()) as server,
        feeding(server, tmp_path, "--log-format", "json") as process,
    ):
        until(lambda: len(server.peers) == 1)
        time.sleep(0.1)  # it waits for an answer now, which ten seconds would end
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events[-1] == "stopped"
    assert "connect_failed" not in events, "it waited for the answer"


def test_a_successor_goes_on_after_a_kill(tmp_path: Path) -> None:
    ring = tmp_path / "feed-again.ring"
    with serving(endless) as server:
        with feeding(server, tmp_path, "--name", "again") as process:
            until(lambda: ring_counters(ring).get(Counter.MESSAGES, 0) > 10)
            process.kill()
            process.wait()
        with RingReader(ring) as reader:
            head = reader.head
        with feeding(server, tmp_path, "--name", "again") as process:
            until(lambda: len(server.peers) == 2 and ring_counters(ring).get(Counter.MESSAGES, 0) > 10)
            with RingReader(ring) as reader:
                assert reader.head > head
                assert reader.instance == 2


@pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="drops capabilities with setpriv, as root"
)
def test_without_capabilities_only_the_initial_sequence_is_missing(tmp_path: Path) -> None:
    ring = tmp_path / "feed-btcusdt-trade.ring"
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    for prefix, known in ((powerless, False), ((), True)):
        with serving(endless) as server, feeding(server, tmp_path, prefix=prefix) as process:
            until(lambda: ring_counters(ring).get(Counter.MESSAGES, 0) > 10)
            with RingReader(ring) as reader:
                row = max(reader.rows().values(), key=lambda row: int(row["opened_ns"]))
            assert bool(row["flags"] & 1) == known
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        ring.unlink()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["wss://fstream.binance.com/ws/btcusdt@trade"],
            "retired on 2026-04-23: use wss://fstream.binance.com/market/ws/",
        ),
        (
            ["ws://127.0.0.1:1/market/ws/a@trade", "--no-reconnect", "--publish", "none"],
            "cannot connect to 127.0.0.1:1",
        ),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--venue", "nowhere"], "no venue 'nowhere'"),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--cafile", "/nonexistent.pem"], "cannot read certificates"),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--cpu", "100000"], "--cpu 100000"),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--publish", "nonsense"], "cannot publish at"),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--publish", "none", "--name", "../x"], "name"),
        (["ws://127.0.0.1:1/market/ws/a@trade", "--publish", "none", "--capacity", "1000"], "power of two"),
    ],
)
def test_what_cannot_be_is_one_line_on_standard_error(flags: list[str], words: str, tmp_path: Path) -> None:
    command = [*TICKPATH, "feed", *flags, "--directory", str(tmp_path), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_sub_prints_what_is_published(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/published"
    with serving(endless) as server, feeding(server, tmp_path, "--publish", address):
        command = [*TICKPATH, "sub", address, "--count", "3"]
        plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True)
    assert len(plain.stdout.splitlines()) == 3
    assert all("binance-usdm/btcusdt@trade ordinal=" in line for line in plain.stdout.splitlines())
    for line in map(json.loads, shown.stdout.splitlines()):
        message = json.loads(line["payload"])
        assert line["ordinal"] == message["t"]
        assert line["exchange_ns"] == message["E"] * 1_000_000
        assert line["bytes"] == len(line["payload"])


def test_sub_refuses_an_address_that_is_none() -> None:
    done = subprocess.run([*TICKPATH, "sub", "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "cannot subscribe to 'nonsense'" in done.stderr
