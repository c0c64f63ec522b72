# SPDX-License-Identifier: Apache-2.0
"""The filter admits what is selected and nothing else: run by the kernel itself, on frames that scapy made.

A Unix datagram socket runs the same classic BPF over its datagrams as a packet socket over its frames; no root needed.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from tickpath.errors import ConfigError
from tickpath.probes.wire.filter import WHOLE_BYTES, compile_filter
from tickpath.selector import Remote, Selector, packed, parse_remote

SNAP_BYTES = 192
SO_ATTACH_FILTER = 26
HOSTS = ("10.0.0.1", "10.0.0.2", "192.168.7.7", "2001:db8::1", "2001:db8::2", "2001:db9::1")
PORTS = (443, 9443, 80)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


@dataclass
class Kernel:
    """Two ends of a datagram pair; what the filter on the far one lets through comes out there."""

    near: socket.socket
    far: socket.socket
    _keep: list[bytes] = field(default_factory=list)

    def attach(self, code: bytes) -> None:
        program = _Program(len(code) // 8, code)
        self.far.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))

    def admits(self, frame: bytes) -> int:
        """How many bytes of the frame pass; 0: it is rejected."""
        self.near.send(frame)
        try:
            return len(self.far.recv(65536))
        except BlockingIOError:
            return 0


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.setblocking(False)
    with near, far:
        yield Kernel(near, far)


@dataclass(frozen=True)
class Frame:
    source: str
    port: int
    transport: str
    tags: int
    options: int
    extensions: int
    fragment: bool
    payload_bytes: int = 300

    def encoded(self, *, ethernet: bool) -> bytes:
        body = (TCP if self.transport == "tcp" else UDP)(sport=self.port, dport=40000) / (b"x" * self.payload_bytes)
        if ":" in self.source:
            for _ in range(self.extensions):
                body = IPv6ExtHdrDestOpt() / body
            if self.fragment:
                body = IPv6ExtHdrFragment(m=1) / body
            packet = IPv6(src=self.source, dst="2001:db8::99") / body
        else:
            options = [IPOption(b"\x01")] * self.options
            packet = IP(src=self.source, dst="10.9.9.9", options=options, flags="MF" if self.fragment else 0) / body
        if not ethernet:
            return bytes(packet)
        for tag in range(self.tags):
            packet = (Dot1Q(vlan=7) if tag == 0 else Dot1AD(vlan=8)) / packet
        return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)

    def wanted(self, selectors: list[Selector]) -> bool:
        """What the filter has to let through: the selected, and what only the probe can judge."""
        hidden = self.fragment or (":" in self.source and self.extensions > 0)
        if self.transport != "tcp" and not (hidden and ":" in self.source):
            return False
        return any(
            (s.remote is None or s.remote == packed(self.source)) and (hidden or s.port == self.port) for s in selectors
        )


FRAMES = st.builds(
    Frame,
    source=st.sampled_from(HOSTS),
    port=st.sampled_from(PORTS),
    transport=st.sampled_from(["tcp", "tcp", "udp"]),
    tags=st.integers(0, 2),
    options=st.integers(0, 12),
    extensions=st.integers(0, 2),
    fragment=st.booleans(),
    payload_bytes=st.sampled_from([0, 300, 9100, 9300]),
)
SELECTORS = st.lists(
    st.builds(
        Selector,
        st.sampled_from(PORTS),
        st.one_of(st.none(), st.sampled_from([packed(host) for host in HOSTS])),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(SELECTORS, st.lists(FRAMES, min_size=1, max_size=8), st.booleans())
def test_it_admits_the_selected_frames_alone(
    kernel: Kernel, selectors: list[Selector], frames: list[Frame], ethernet: bool
) -> None:
    kernel.attach(compile_filter(selectors, ethernet=ethernet, snap_bytes=SNAP_BYTES))
    for frame in frames:
        encoded = frame.encoded(ethernet=ethernet)
        admitted = len(encoded) if len(encoded) <= WHOLE_BYTES else SNAP_BYTES
        assert kernel.admits(encoded) == (admitted if frame.wanted(selectors) else 0)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=120), st.booleans())
def test_it_rejects_noise(kernel: Kernel, noise: bytes, ethernet: bool) -> None:
    kernel.attach(compile_filter([Selector(443, packed("10.0.0.1"))], ethernet=ethernet, snap_bytes=SNAP_BYTES))
    assert kernel.admits(noise) == 0


def test_it_rejects_other_protocols(kernel: Kernel) -> None:
    kernel.attach(compile_filter([Selector(443)], ethernet=True, snap_bytes=SNAP_BYTES))
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    assert kernel.admits(bytes(link / ARP())) == 0
    assert kernel.admits(bytes(link / IP() / UDP(sport=443))) == 0
    assert kernel.admits(bytes(link / Dot1Q() / Dot1Q() / Dot1Q() / IP() / TCP(sport=443))) == 0
    assert kernel.admits(bytes(link / IPv6() / IPv6ExtHdrHopByHop() / TCP(sport=1))) > 0  # the probe looks further


def test_many_remotes_fit_and_too_many_are_an_error(kernel: Kernel) -> None:
    many = [Selector(443, packed(f"10.1.{i // 256}.{i % 256}")) for i in range(500)]
    kernel.attach(compile_filter(many, ethernet=True, snap_bytes=SNAP_BYTES))
    frame = Frame("10.1.1.243", 443, "tcp", 0, 0, 0, False)
    assert kernel.admits(frame.encoded(ethernet=True)) > 0
    with pytest.raises(ConfigError, match="too many remotes"):
        compile_filter(many * 3, ethernet=True, snap_bytes=SNAP_BYTES)


def test_a_remote_is_an_address_with_a_port_or_a_name_by_port() -> None:
    assert parse_remote("10.0.0.1:443") == Remote(Selector(443, packed("10.0.0.1")), ("10.0.0.1",))
    assert parse_remote("[2001:db8::1]:9443") == Remote(Selector(9443, packed("2001:db8::1")), ("2001:db8::1",))
    named = parse_remote("localhost:18065")
    assert named.selector == Selector(18065)
    assert set(named.addresses) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "text", ["", "443", ":443", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "2001:db8::1:443", "[10.0.0.1:443", "[x]:1"]
)
def test_a_malformed_remote_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_remote(text)
    assert "\n" not in str(error.value)
