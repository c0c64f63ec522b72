# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe ping` as the exporter sees it: what its ring says is what the targets answered."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from pinging import COMMAND, echo, stamping
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.snapshot import Pings
from traffic import wait_until


def closed_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def test_a_services_pings_are_the_exporters_figures(tmp_path: Path) -> None:
    correlator = Correlator(read_clock=False)

    def found() -> dict[str, Pings]:
        correlator.poll()
        return {one.target: one for one in correlator.snapshot().pings}

    with stamping(), echo() as served:
        live, dead = f"127.0.0.1:{served.port}", f"127.0.0.1:{closed_port()}"
        arguments = ["--targets", f"udp://{live},udp://{dead}", "--interval", "0.005", "--directory", str(tmp_path)]
        probe = subprocess.Popen([COMMAND[0], "probe", "ping", *arguments], stderr=subprocess.PIPE, text=True)
        try:
            assert probe.stderr
            assert "event=ready" in probe.stderr.readline()
            correlator.attach(tmp_path / "ping.ring", from_start=True)
            wait_until(lambda: (one := found().get(live)) is not None and one.results["reply"] > 50, "replies")
            answered = served.answered
        finally:
            probe.send_signal(signal.SIGTERM)
            _, said = probe.communicate(timeout=60)
        assert probe.returncode == 0, said
        figures = found()
        assert set(figures) == {live, dead}
        well = figures[live]
        assert (well.proto, well.results["error"], well.results["duplicate"]) == ("udp", 0, 0)
        # What was answered before it was told to end it took, if it had to; of what was under way it says nothing.
        assert well.results["reply"] + well.results["late"] >= answered
        assert well.results["sent"] >= well.results["reply"] + well.results["lost"]
        assert served.answered >= well.results["reply"]
        assert sum(h.count for h in well.rtt.values()) == well.results["reply"] + well.results["late"]
        assert well.rtt["sw"].count > well.results["reply"] // 2
        refused = figures[dead]
        assert refused.results["error"] > 0
        assert refused.results["reply"] == 0
        assert refused.rtt == {}


def test_a_service_without_targets_need_not_be_started_again(tmp_path: Path) -> None:
    arguments = [COMMAND[0], "probe", "ping", "--directory", str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69
    assert "TICKPATH_PING_TARGETS" in done.stderr
    assert not list(tmp_path.iterdir())
