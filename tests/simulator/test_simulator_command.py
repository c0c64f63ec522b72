# SPDX-License-Identifier: Apache-2.0
"""`tickpath simulate` as who starts it sees it: a ready line, a summary, one line for each thing that goes wrong."""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.naive_wire import Listener

PATH = "/public/stream?streams=btcusdt@bookTicker"


def _start(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tickpath", "simulate", "--port", "0", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on ws"), line
    return int(line.rpartition(":")[2])


def _end(process: subprocess.Popen[str], number: int | None = None) -> tuple[str, str]:
    if number is not None:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def test_ready_line_summary_log_and_status(recording: Path, tmp_path: Path) -> None:
    log, status = tmp_path / "log", tmp_path / "status"
    process = _start(
        *("--replay", str(recording), "--speed", "max", "--connections", "1", "--json"),
        *("--log", str(log), "--status", str(status)),
    )
    heard = Listener(_port(process), PATH).read_all()
    output, errors = _end(process)
    summary = json.loads(output.splitlines()[-1])
    assert "Traceback" not in errors
    assert summary["messages"] == len(heard.messages)
    assert summary["bytes"] == len(heard.stream)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["begin_offset"], entry["end_offset"]) for entry in entries] == [m[:2] for m in heard.messages]
    assert json.loads(status.read_text()) == summary
    assert summary["ended"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_gracefully(recording: Path, number: signal.Signals) -> None:
    process = _start("--replay", str(recording), "--at-end", "hold", "--json")
    listener = Listener(_port(process), PATH)
    listener.read_messages(2)
    process.send_signal(number)
    heard = listener.read_all()
    output, _ = _end(process)
    assert heard.frames[-1] == 0x8
    assert json.loads(output.splitlines()[-1])["messages"] == len(heard.messages)


def test_a_signal_that_reaches_another_thread_ends_it_too() -> None:
    """As the kernel may choose, where the main thread was stopped when it came."""
    process = _start("--json")
    _port(process)
    threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
    other = max(set(threads) - {process.pid})
    assert ctypes.CDLL(None).tgkill(process.pid, other, signal.SIGTERM) == 0
    output, _ = _end(process)
    assert json.loads(output.splitlines()[-1])["ended"]


def test_wss_names_its_authority(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    process = _start("--tls", "1.3", "--ca", str(ca), "--messages", "5", "--connections", "1", "--speed", "max")
    assert process.stdout is not None
    assert process.stdout.readline() == f"certificate authority {ca}\n"
    heard = Listener(_port(process), PATH, ca).read_all()
    assert len(heard.messages) == 5
    _end(process)


def test_a_duration_ends_it() -> None:
    process = _start("--duration", "1", "--json")
    heard = Listener(_port(process), PATH).read_all()
    output, _ = _end(process)
    assert json.loads(output)["messages"] == len(heard.messages) > 0


def test_a_port_in_use_is_one_line_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = _start("--port", port)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(errors.splitlines()) == 1
    assert port in errors
    assert "--port" in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--replay", "/nonexistent/file"), "No such file"),
        (("--pad", "512"), "TLS 1.3"),
        (("--venue", "coinbase"), "--replay"),
        (("--status", "/nonexistent/status"), "status"),
        (("--log", "/nonexistent/log"), "log"),
        (("--tls", "1.3", "--ca", "/nonexistent/ca"), "CA"),
        (("--host", "203.0.113.1"), "listen"),
        (("--host", "not a host"), "address"),
    ],
)
def test_what_cannot_be_is_one_line(flags: tuple[str, ...], words: str) -> None:
    process = _start(*flags)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(errors.splitlines()) == 1, errors
    assert words in errors
