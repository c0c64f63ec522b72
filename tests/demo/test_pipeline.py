# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline, as a user runs it: every message counted once, hops that add up, kills accounted for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tickpath.lab.demo.folder import demo_folder
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.demo.processes import DemoError
from tickpath.lab.simulator.config import EventTimes
from tickpath.probes.kernel.capability import capabilities

RECORDING = Path(__file__).parents[3] / "shared" / "data" / "binance-usdm-btcusdt-20240808.ws.gz"
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="the wire probe needs CAP_NET_RAW")
# Between the NIC and the application: two hops where the kernel tells of its part, else the span over both.
KERNEL_TELLS = IS_ROOT and any(capability.available for capability in capabilities())
NIC_TO_USER = ("nic_to_kernel", "kernel_to_user") if KERNEL_TELLS else ()
TOTAL_HOPS = ("bn_to_nic", *NIC_TO_USER, "cpu", "msk")


def _demo(*arguments: str, without_capabilities: bool = False) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "tickpath", "demo", "--exporter-port", "0", "--publish-port", "0", "--json"]
    if without_capabilities:
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["messages"] == report["sent"] > 0
    assert sum(report["matched"].values()) + sum(report["unmatched"].values()) == report["messages"]
    assert report["lost_records"] == 0
    assert isinstance(report, dict)
    return report


def _sum_ns(report: dict[str, Any], table: str, *names: str) -> int:
    return sum(int(report[table][name]["sum_ns"]) for name in names)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("transport", [["--no-tls"], ["--tls", "--tls-version", "1.2"], ["--tls"]], ids="".join)
def test_as_root_every_message_is_matched_by_offset_and_its_hops_add_up(transport: list[str]) -> None:
    replay = ["--replay", str(RECORDING)] if RECORDING.exists() else []
    report = _demo("--duration", "4", *replay, *transport)
    assert report["matched"]["offset"] == report["messages"]
    assert report["sources"] == {"sw": report["messages"]}
    assert all(report["hops"][hop]["count"] == report["messages"] for hop in TOTAL_HOPS)
    assert ("nic_to_user" in report["spans"]) is not KERNEL_TELLS
    total = _sum_ns(report, "hops", *TOTAL_HOPS)
    total += 0 if KERNEL_TELLS else _sum_ns(report, "spans", "nic_to_user")
    assert total == _sum_ns(report, "spans", "total")
    assert _sum_ns(report, "spans", "in_host") == total - _sum_ns(report, "hops", "bn_to_nic")


def _processes_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in environment:
            found.append(int(entry.name))
    return found


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    mark = f"DEMO_TEST_MARK={tmp_path}"
    command = [sys.executable, "-P", "-m", "tickpath", "demo", "--exporter-port", "0", "--publish-port", "0"]
    environment = {**os.environ, "DEMO_TEST_MARK": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        _until(lambda: len(_processes_with(mark)) > 2)  # the demo and two of its children: it is still starting
        demo.send_signal(number)
        _, said = demo.communicate(timeout=120)
    assert b"Traceback" not in said
    assert demo.returncode == (-number if number == signal.SIGKILL else 130)
    _until(lambda: not _processes_with(mark))


def test_what_a_killed_demo_left_is_removed_and_a_living_one_s_folder_is_not(tmp_path: Path) -> None:
    left = tmp_path / "tickpath-demo-left"
    left.mkdir()
    with demo_folder(tmp_path) as first:
        assert not left.exists()
        with demo_folder(tmp_path) as second:
            assert first.exists()
            assert second != first
    assert not list(tmp_path.iterdir())


def test_a_full_shared_memory_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3 << 20))
    with pytest.raises(DemoError, match="has 3 MiB left, the demo needs 24"), demo_folder(tmp_path):
        pass


def test_a_port_in_use_is_one_line_that_names_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-P", "-m", "tickpath", "demo", "--exporter-port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        told = result.stderr
    assert result.returncode == 1
    assert told.count("\n") == 1
    assert f"port {port} cannot be had" in told
    assert "--exporter-port 0" in told


@needs_root
@pytest.mark.root
@pytest.mark.skipif(not KERNEL_TELLS, reason="the kernel probe cannot run here: tickpath doctor says why")
def test_the_parts_of_the_kernel_s_hops_add_up_to_them() -> None:
    report = _demo("--duration", "3")
    parts = {"nic_to_kernel": ("hol_wait", "stack"), "kernel_to_user": ("app_busy", "wake", "backlog", "decode")}
    for hop, names in parts.items():
        assert all(report["parts"][name]["count"] == report["messages"] for name in names)
        assert _sum_ns(report, "parts", *names) == _sum_ns(report, "hops", hop)


@needs_root
@pytest.mark.root
def test_without_capabilities_the_socket_s_own_stamps_serve_where_they_are_true() -> None:
    report = _demo("--duration", "3", without_capabilities=True)
    assert report["sources"].keys() == {"sock"}
    assert report["unmatched"].keys() <= {"sock_not_last"}


@pytest.mark.skipif(not RECORDING.exists(), reason="no recording beside the checkout")
def test_a_clock_behind_the_exchange_s_shows_as_negative_latency() -> None:
    report = _demo("--duration", "3", "--replay", str(RECORDING), "--event-times", "recorded")
    hop = report["hops"]["bn_to_nic"]
    assert report["negative"]["bn_to_nic"] == hop["count"] > 0
    assert hop["p50_ns"] < -1_000_000_000


def _settings(**changed: object) -> DemoSettings:
    return DemoSettings(
        **{
            "replay": None,
            "speed": "1",
            "tls": None,
            "event_times": EventTimes.NOW,
            "exporter_port": 0,
            "publish_port": 0,
            **changed,
        }  # type: ignore[arg-type]
    )


def _wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


@needs_root
@pytest.mark.root
def test_the_wire_probe_killed_and_restarted_leaves_a_counted_gap_only(tmp_path: Path) -> None:
    with Pipeline(_settings(), tmp_path) as pipeline:
        _wait_for(lambda: pipeline.summary().matched["offset"] > 100, "the first matches")
        os.kill(pipeline.wire.pid, signal.SIGKILL)
        _wait_for(
            lambda: pipeline.summary().sources.get("sock", 0) + sum(pipeline.summary().unmatched.values()) > 100,
            "messages without a wire stamp",
        )
        pipeline.restart_wire()
        before = pipeline.summary().matched["offset"]
        _wait_for(lambda: pipeline.summary().matched["offset"] > before + 200, "matches after the restart")
        summary, sent = pipeline.finish()
    assert summary.messages == sent
    assert sum(summary.matched.values()) + sum(summary.unmatched.values()) == sent
    assert summary.lost_records == 0


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("probe", ["wire", "kernel"])
def test_a_probe_that_stood_still_costs_no_message_its_stamps(probe: str, tmp_path: Path) -> None:
    if probe == "kernel" and not KERNEL_TELLS:
        pytest.skip("the kernel probe cannot run here: tickpath doctor says why")
    with Pipeline(_settings(), tmp_path) as pipeline:
        _wait_for(lambda: pipeline.summary().matched["offset"] > 100, "the first matches")
        pid = getattr(pipeline, probe).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)  # longer than an exporter waits unless told to
        os.kill(pid, signal.SIGCONT)
        summary, sent = pipeline.finish()
    assert summary.messages == sent
    assert summary.matched["offset"] == sent
    assert summary.sources == {"sw": sent}
    assert all(summary.hops[hop].count == sent for hop in TOTAL_HOPS)


@needs_root
@pytest.mark.root
def test_the_exporter_killed_and_restarted_counts_what_it_skipped(tmp_path: Path) -> None:
    with Pipeline(_settings(), tmp_path) as pipeline:
        _wait_for(lambda: pipeline.summary().messages > 100, "the first messages")
        os.kill(pipeline.exporter.pid, signal.SIGKILL)
        down_at = pipeline.sent()
        _wait_for(lambda: pipeline.sent() > down_at + 100, "messages in its absence")
        pipeline.restart_exporter()
        _wait_for(lambda: pipeline.summary().messages > 100, "messages after the restart")
        summary, sent = pipeline.finish()
    assert summary.skipped_records > 0
    assert summary.messages < sent
    assert sum(summary.matched.values()) + sum(summary.unmatched.values()) == summary.messages
    written = sum(ring.counters.get("messages", 0) for ring in summary.rings.values())
    assert written == sent, "the feeds went on"


@needs_root
@pytest.mark.root
def test_a_feed_killed_and_restarted_is_counted_on_and_nothing_twice(tmp_path: Path) -> None:
    with Pipeline(_settings(), tmp_path) as pipeline:
        _wait_for(lambda: pipeline.summary().messages > 100, "the first messages")
        os.kill(pipeline.feeds[0].pid, signal.SIGKILL)
        counted = pipeline.summary().messages
        pipeline.restart_feed(0)
        _wait_for(lambda: pipeline.summary().messages > counted + 200, "messages after the restart")
        summary, sent = pipeline.finish()
    written = sum(ring.counters.get("messages", 0) for ring in summary.rings.values())
    assert summary.messages in (written, written + 1), "a kill may fall between a record and its total"
    assert summary.messages <= sent
    assert sum(summary.matched.values()) + sum(summary.unmatched.values()) == summary.messages
    assert summary.lost_records == 0
