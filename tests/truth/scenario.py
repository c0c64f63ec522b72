# SPDX-License-Identifier: Apache-2.0
"""What is played over the truth wire: transports, shapes, faults, and what each of them may excuse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from tickpath.exporter.correlator import Reason
from tickpath.lab.shuttle import Faults, When
from tickpath.lab.simulator.config import Coalesce, KeyUpdate, Shape

_PACE = Fraction(8)
US = 1_000
MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One session on one wire. `messages` are those of all connections together."""

    name: str
    messages: int = 400
    feeds: int = 1
    reconnects: int = 0
    """Further connections of each feed, one after the other."""
    tls: str | None = None
    shape: Shape = field(default_factory=Shape)
    speed: Fraction | None = _PACE
    to_client: Faults = field(default_factory=Faults)
    to_server: Faults = field(default_factory=Faults)
    version: int = 4
    gro_flush_ns: int | None = None
    """None: GRO is off."""
    squeezed: bool = False
    """The client's receive buffer shrinks now and then below the window that it has offered."""
    slow_ns: int = 0
    """How long the client takes for a message."""
    wraps: bool = False
    """The server's sequence numbers pass 2^32 within the first messages."""
    nat: bool = False
    """One feed, behind a masquerading namespace: the server knows it by another address and port."""
    late_probe: bool = False
    """The wire probe sees no handshake, and the feed does not ask the kernel where its stream begins."""
    kernel: bool = True
    """The kernel probe runs beside, where it can."""
    kernel_starved: bool = False
    """Its buffer holds few events, and is emptied seldom: it loses some."""
    captured: float = 1.0
    """Share of the time that the wire probe runs: it is stopped and started again in turn."""
    aborted_after: int | None = None
    """Messages after which the server resets the connection."""
    excuses: frozenset[Reason] = frozenset()
    """Reasons that this scenario's faults may give a message not to be joined by offset."""
    must: frozenset[str] = frozenset()
    """What must have happened at least once, or the scenario tests nothing: waits, copies, corrupt, merged, pruned,
    wrapped, explained, socket, window, kernel, lost."""

    def scaled(self, factor: float) -> Scenario:
        """The same with more messages."""
        return replace(self, messages=int(self.messages * factor))


def _loss(percent: float) -> Faults:
    return Faults(drop=When(probability=percent / 100))


_EVERYTHING = Faults(
    drop=When(probability=0.01),
    corrupt=When(probability=0.01),
    duplicate=When(probability=0.02),
    duplicate_apart_ns=300 * US,
    swap=When(probability=0.02),
    swap_by=2,
    hold=When(probability=0.01),
    hold_frames=8,
    delay=When(probability=0.05),
    delay_ns=200 * US,
    delay_jitter_ns=300 * US,
)
# What came before the wire probe was started.
_BEFORE_THE_PROBE = frozenset({Reason.SOCK_NOT_LAST, Reason.NO_FLOW, Reason.WIRE_GAP})
_SHAPES = {
    "coalesced": Shape(coalesce=4),
    "one-send": Shape(coalesce=3, coalesce_into=Coalesce.SEND),
    "split": Shape(split=3, split_pause_ns=20 * US),
    "fragmented": Shape(fragments=3, ping_between=True),
}

SCENARIOS = [
    Scenario(name="ws", messages=1000),
    Scenario(name="wss-1.2", tls="1.2"),
    Scenario(name="wss-1.3", tls="1.3", messages=1000),
    Scenario(name="ws-blast", speed=None, messages=600),
    Scenario(name="wss-1.3-ipv6-blast", tls="1.3", speed=None, version=6, messages=600),
    *(Scenario(name=f"ws-{name}", shape=shape) for name, shape in _SHAPES.items()),
    *(Scenario(name=f"wss-1.3-{name}", tls="1.3", shape=shape) for name, shape in _SHAPES.items()),
    Scenario(name="wss-1.2-split", tls="1.2", shape=_SHAPES["split"]),
    Scenario(name="wss-1.3-padded", tls="1.3", shape=Shape(pad_bytes=512)),
    Scenario(
        name="wss-1.3-key-update",
        tls="1.3",
        shape=Shape(key_update=KeyUpdate.REQUESTED, key_update_every=20),
    ),
    Scenario(name="ws-drop", to_client=_loss(2), must=frozenset({"waits"})),
    Scenario(name="wss-1.3-drop", tls="1.3", to_client=_loss(2), must=frozenset({"waits"})),
    Scenario(
        name="ws-ack-loss",
        speed=None,
        to_server=Faults(drop=When(probability=0.3), only_payload=False),
    ),
    Scenario(
        name="ws-swap",
        to_client=Faults(swap=When(probability=0.05), swap_by=2),
        speed=None,
        must=frozenset({"waits"}),
    ),
    Scenario(
        name="wss-1.3-swap-ipv6",
        tls="1.3",
        version=6,
        to_client=Faults(swap=When(probability=0.05), swap_by=1),
        speed=None,
        must=frozenset({"waits"}),
    ),
    Scenario(
        name="ws-duplicate",
        to_client=Faults(duplicate=When(probability=0.1), duplicate_copies=2, duplicate_apart_ns=50 * US),
        must=frozenset({"copies"}),
    ),
    Scenario(name="ws-corrupt", to_client=Faults(corrupt=When(probability=0.03)), must=frozenset({"corrupt", "waits"})),
    Scenario(
        name="wss-1.3-corrupt-ipv6",
        tls="1.3",
        version=6,
        to_client=Faults(corrupt=When(probability=0.03)),
        must=frozenset({"corrupt"}),
    ),
    Scenario(name="ws-bursts", to_client=Faults(hold=When(probability=0.05), hold_frames=24, hold_ns=5 * MS)),
    Scenario(
        name="wss-1.3-everything",
        tls="1.3",
        shape=Shape(split=2),
        to_client=_EVERYTHING,
        to_server=_EVERYTHING,
        messages=800,
        must=frozenset({"waits", "copies", "corrupt"}),
    ),
    Scenario(
        name="ws-everything-ipv6",
        version=6,
        shape=_SHAPES["coalesced"],
        to_client=_EVERYTHING,
        to_server=_EVERYTHING,
        messages=800,
        must=frozenset({"waits", "copies", "corrupt"}),
    ),
    Scenario(
        name="ws-pruned",
        squeezed=True,
        speed=Fraction(20),
        slow_ns=300 * US,
        to_client=_loss(1),
        must=frozenset({"pruned"}),
    ),
    Scenario(name="wss-1.3-wrap", tls="1.3", wraps=True, messages=900, speed=None, must=frozenset({"wrapped"})),
    Scenario(name="ws-wrap-loss", wraps=True, messages=900, to_client=_loss(3), must=frozenset({"waits", "wrapped"})),
    Scenario(name="ws-reconnects", reconnects=9, to_client=_loss(1), messages=500),
    Scenario(name="wss-1.3-resets", tls="1.3", reconnects=4, aborted_after=60, messages=500),
    Scenario(name="ws-nat", nat=True, to_client=_loss(2), must=frozenset({"waits"})),
    Scenario(name="wss-1.3-nat", tls="1.3", nat=True),
    Scenario(name="ws-50-connections", feeds=50, messages=1000),
    Scenario(name="wss-1.3-50-connections-ipv6", tls="1.3", feeds=50, version=6, to_client=_loss(1), messages=1000),
    Scenario(name="ws-gro", gro_flush_ns=200 * US, speed=None, must=frozenset({"merged"})),
    Scenario(name="wss-1.3-gro", tls="1.3", gro_flush_ns=1 * MS, must=frozenset({"merged"})),
    Scenario(
        name="ws-gro-everything",
        gro_flush_ns=200 * US,
        to_client=_EVERYTHING,
        to_server=_EVERYTHING,
        must=frozenset({"waits"}),
    ),
    Scenario(
        name="ws-capture-gaps",
        captured=0.7,
        speed=Fraction(2),
        must=frozenset({"explained"}),
        excuses=frozenset({Reason.WIRE_GAP}),
    ),
    Scenario(
        name="ws-capture-gaps-no-kernel",
        kernel=False,
        captured=0.7,
        speed=Fraction(2),
        must=frozenset({"explained"}),
        excuses=frozenset({Reason.WIRE_GAP}),
    ),
    Scenario(name="ws-drop-no-kernel", kernel=False, to_client=_loss(2), must=frozenset({"waits"})),
    Scenario(name="ws-kernel-losses", kernel_starved=True, must=frozenset({"kernel", "lost"})),
    # Nobody saw the handshake but the kernel probe: it teaches where the stream begins.
    Scenario(
        name="ws-late-wire",
        late_probe=True,
        shape=_SHAPES["coalesced"],
        excuses=_BEFORE_THE_PROBE,
        must=frozenset({"kernel"}),
    ),
    Scenario(
        name="wss-1.3-nat-late-wire",
        tls="1.3",
        nat=True,
        late_probe=True,
        excuses=_BEFORE_THE_PROBE,
        must=frozenset({"kernel"}),
    ),
    Scenario(
        name="ws-no-base",
        kernel=False,
        late_probe=True,
        shape=_SHAPES["coalesced"],
        excuses=frozenset({Reason.NO_BASE, Reason.NO_FLOW, Reason.SOCK_NOT_LAST}),
        must=frozenset({"socket"}),
    ),
    Scenario(
        name="ws-nat-unseen",
        kernel=False,
        nat=True,
        late_probe=True,
        shape=_SHAPES["coalesced"],
        excuses=frozenset({Reason.NO_FLOW, Reason.SOCK_NOT_LAST}),
        must=frozenset({"window"}),
    ),
]
