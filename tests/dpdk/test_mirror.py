# SPDX-License-Identifier: Apache-2.0
"""Mirror mode on the truth wire: every message is joined with the frame that brought it, under source poll."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpdk.capturing import DpdkCapture, needs_dpdk
from tickpath.event import Clock, Source
from tickpath.exporter.correlator import Match
from tickpath.lab.shuttle import TruthWire
from tickpath.lab.shuttle.namespace import run_inside
from truth.model import streams
from truth.play import play
from truth.scenario import Scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the truth wire makes network namespaces: needs root"),
    needs_dpdk,
]


class _Mirror:
    """The capture beside the client's device: DPDK sees copies of what the kernel gets."""

    def __init__(self, wire: TruthWire, directory: Path) -> None:
        self._wire = wire
        self._directory = directory
        self._capture: DpdkCapture | None = None

    @property
    def path(self) -> Path:
        assert self._capture
        return self._capture.paths[0]

    @property
    def running(self) -> bool:
        return self._capture is not None

    def start(self) -> None:
        # The driver's own 512 frames are soon full, and it counts nothing then.
        device = f"net_af_packet0,iface={self._wire.client.device},framecnt=8192"
        self._capture = DpdkCapture(self._directory, device, "--port", "18065", wire=self._wire).ready()
        # The driver sets the device's address, be it to what it was, and the kernel then forgets all neighbours.
        client, server = self._wire.client, self._wire.server
        neighbour = ["neighbour", "replace", str(server.ipv4), "lladdr", server.mac, "dev", client.device]
        run_inside(client.namespace, ["ip", *neighbour, "nud", "permanent"])

    def stop(self) -> None:
        if self._capture:
            self._capture.stop()
            self._capture = None


def test_every_message_is_joined_with_the_frame_that_brought_it(tmp_path: Path) -> None:
    evidence = play(Scenario(name="mirror", messages=400), tmp_path / "rings", source=_Mirror)
    joined, log = evidence.joined, evidence.log
    assert len(joined) == evidence.received == 400
    assert set(evidence.segments["clock"]) == {Clock.TSC}
    by_port = streams(log)
    segments = {int(record["segment"]["frame"]): record["segment"] for record in evidence.segments}
    for result in joined:
        assert result["method"] == Match.OFFSET, result
        assert result["source"] == Source.POLL
        want = by_port[evidence.ports[int(result["ring"]), int(result["row"])]][-1].expected(int(result["end"]))
        own, segment = log[want.own], segments[int(result["frame"])]
        assert (segment["seq"], segment["length"]) == (own["seq"], own["payload_bytes"])
        # The frame was there when the poll brought it, and not yet when the queue was last seen empty.
        assert own["before_ns"] <= result["own_ns"]
        assert result["own_ns"] - segment["bound_ns"] <= result["received_ns"]
