# SPDX-License-Identifier: Apache-2.0
"""The stamped socket: offsets to the byte under any chunking, time limits, interruption, and what is no TLS."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feed_server import Peer, make_certificate, server_context, serving
from ports import held_port
from tickpath.errors import InputError
from tickpath.socket import StampedSocket, connect

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextmanager
def tcp_pair() -> Iterator[tuple[StampedSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = StampedSocket(connect("127.0.0.1", listener.getsockname()[1], 60))
        far, _ = listener.accept()
        far.settimeout(60)
        try:
            yield near, far
        finally:
            near.close()
            far.close()


@contextmanager
def tls_pair(certificate: tuple[Path, Path], version: ssl.TLSVersion) -> Iterator[tuple[StampedSocket, Peer]]:
    with tcp_pair() as (near, far):
        peer = Peer(far)
        server = threading.Thread(target=peer.start_tls, args=(server_context(*certificate, version),))
        server.start()
        near.start_tls(ssl.create_default_context(cafile=certificate[0]), "127.0.0.1")
        server.join()
        yield near, peer


def take(near: StampedSocket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = near.recv(size - len(got))
        assert piece
        got += piece
    return got


SIZES = st.lists(st.integers(1, 3000), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(writes=SIZES, reads=SIZES)
def test_plain_offsets_are_exact_under_any_chunking(writes: list[int], reads: list[int]) -> None:
    with tcp_pair() as (near, far):
        sent = b"".join(os.urandom(size) for size in writes)
        at = 0
        for size in writes:
            far.sendall(sent[at : at + size])
            at += size
        got = b""
        turn = 0
        while len(got) < len(sent):
            size = reads[turn % len(reads)]
            piece = near.recv(size)
            assert 0 < len(piece) <= size
            got += piece
            assert near.end == len(got)
            assert near.pending() == near.received - near.end
            turn += 1
        assert got == sent


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.integers(0, 16384), min_size=1, max_size=12),
    segments=st.lists(st.integers(1, 9000), min_size=1, max_size=12),
    reads=st.lists(st.integers(1, 20000), min_size=1, max_size=12),
)
def test_every_byte_of_plaintext_ends_where_its_tls_record_does(
    certificate: tuple[Path, Path], version: ssl.TLSVersion, records: list[int], segments: list[int], reads: list[int]
) -> None:
    with tls_pair(certificate, version) as (near, peer):
        wire, sent, ends = b"", b"", []
        for size in records:
            plain = os.urandom(size)
            sealed = peer.seal(plain) if size else b""
            wire += sealed
            sent += plain
            ends += [peer.sent + len(wire)] * size
        writer = threading.Thread(target=send_in_segments, args=(peer, wire, segments))
        writer.start()
        got = b""
        turn = 0
        while len(got) < len(sent):
            piece = near.recv(reads[turn % len(reads)])
            assert piece
            got += piece
            # A read stays within one record, so that its end is the end of all of its bytes.
            assert {ends[i] for i in range(len(got) - len(piece), len(got))} == {near.end}
            turn += 1
        writer.join()
        assert got == sent


def send_in_segments(peer: Peer, wire: bytes, segments: list[int]) -> None:
    turn = at = 0
    while at < len(wire):
        size = segments[turn % len(segments)]
        peer.raw(wire[at : at + size])
        at += size
        turn += 1


@pytest.mark.parametrize("version", VERSIONS)
def test_pending_counts_complete_records_that_wait(certificate: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    with tls_pair(certificate, version) as (near, peer):
        peer.raw(peer.seal(b"a" * 10) + peer.seal(b"b" * 20))
        assert take(near, 10) == b"a" * 10
        assert near.pending() == 20, "the second record came with the first and needs no read"
        assert take(near, 20) == b"b" * 20
        assert near.pending() == 0
        assert near.end == peer.sent


def test_both_directions_work_under_tls(certificate: tuple[Path, Path]) -> None:
    with tls_pair(certificate, ssl.TLSVersion.TLSv1_3) as (near, peer):
        near.sendall(b"question" * 5000)
        got = b""
        while len(got) < 40000:
            got += peer.read()
        assert got == b"question" * 5000
        assert near.tls_version == "TLSv1.3"


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 400 Bad Request\r\n", b"\x17\x02\x00\x00\x10", b"\x16\x03\x03\xff\xff", b"\x00"]
)
def test_what_is_no_tls_record_is_named_with_its_place(begin: bytes) -> None:
    with tcp_pair() as (near, far):
        far.sendall(begin)
        with pytest.raises(InputError, match=f"offset 0 the peer sent {begin[:5].hex(' ')}"):
            near.start_tls(ssl.create_default_context(), "127.0.0.1")


def test_a_record_damaged_on_the_way_is_an_error_of_tls(certificate: tuple[Path, Path]) -> None:
    with tls_pair(certificate, ssl.TLSVersion.TLSv1_3) as (near, peer):
        sealed = bytearray(peer.seal(b"x" * 100))
        sealed[50] ^= 1
        peer.raw(bytes(sealed))
        with pytest.raises(ssl.SSLError):
            near.recv(100)


def test_an_unknown_authority_is_refused(certificate: tuple[Path, Path]) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.start_tls(server_context(*certificate, ssl.TLSVersion.TLSv1_3))

    with serving(script) as server:
        near = StampedSocket(connect("127.0.0.1", server.port, 5))
        with pytest.raises(ssl.SSLCertVerificationError):
            near.start_tls(ssl.create_default_context(), "127.0.0.1")
        near.close()


def test_the_end_of_the_stream_is_empty_bytes(certificate: tuple[Path, Path]) -> None:
    with tcp_pair() as (near, far):
        far.sendall(b"last")
        far.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b"last"
        assert near.recv(100) == b""
        assert near.received == 4
    with tls_pair(certificate, ssl.TLSVersion.TLSv1_3) as (near, peer):
        assert peer.tls is not None
        assert peer.outgoing is not None
        peer.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.raw(peer.outgoing.read())
        assert near.recv(100) == b"last"
        assert near.recv(100) == b"", "the peer said that no more will come"


def test_a_time_limit_is_kept(certificate: tuple[Path, Path]) -> None:
    with tcp_pair() as (near, _):
        near.settimeout(0.05)
        assert near.gettimeout() == 0.05
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            near.recv(1)
        assert time.monotonic() - began >= 0.045
        near.settimeout(0)
        with pytest.raises(BlockingIOError):
            near.recv(1)
        with pytest.raises(ValueError, match="timeout"):
            near.settimeout(-1)


def test_a_peer_that_trickles_does_not_stretch_the_time_limit(certificate: tuple[Path, Path]) -> None:
    with tls_pair(certificate, ssl.TLSVersion.TLSv1_3) as (near, peer):
        sealed = peer.seal(b"x" * 1000)
        stop = threading.Event()

        def trickle() -> None:
            for at in range(len(sealed) - 1):
                if stop.wait(0.02):
                    return
                peer.raw(sealed[at : at + 1])

        writer = threading.Thread(target=trickle)
        writer.start()
        near.settimeout(0.2)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            near.recv(1)
        took = time.monotonic() - began
        stop.set()
        writer.join()
        assert took < 10, "each byte began the time anew"


def test_interrupt_ends_the_wait_once() -> None:
    with tcp_pair() as (near, far):
        near.settimeout(60)
        previous = signal.signal(signal.SIGUSR1, lambda *_: near.interrupt())
        waiter = threading.get_ident()
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(waiter, signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(InterruptedError):
                near.recv(1)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
        far.sendall(b"x")
        assert near.recv(1) == b"x"


def test_an_interrupt_can_be_taken_back() -> None:
    with tcp_pair() as (near, far):
        near.settimeout(60)
        near.interrupt()
        near.resume()
        timer = threading.Timer(0.1, lambda: far.sendall(b"x"))
        timer.start()
        assert near.recv(1) == b"x"
        timer.join()


def test_a_signal_without_interrupt_lets_the_read_go_on() -> None:
    with tcp_pair() as (near, far):
        near.settimeout(60)
        previous = signal.signal(signal.SIGUSR1, lambda *_: far.sendall(b"x"))
        waiter = threading.get_ident()
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(waiter, signal.SIGUSR1))
        timer.start()
        try:
            assert near.recv(1) == b"x"
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)


def test_a_closed_socket_says_so_and_leaks_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - links that vanish while they are listed
    with tcp_pair() as (near, _):
        near.close()
        near.close()
        assert near._closed
        with pytest.raises(OSError, match="closed"):
            near.recv(1)
        with pytest.raises(OSError, match="closed"):
            near.send(b"x")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_refused_connection_is_the_kernels_error() -> None:
    with held_port() as port, pytest.raises(OSError) as caught:
        connect("127.0.0.1", port, 5)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_key_update_is_followed_in_both_directions(certificate: tuple[Path, Path]) -> None:
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate[0], "-key", certificate[1]]
    server = subprocess.Popen(
        [*command, "-tls1_3", "-msg"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = None
        for line in server.stdout:
            if line.startswith(b"ACCEPT"):
                port = int(line.rsplit(b":", 1)[1])
                break
        assert port is not None
        near = StampedSocket(connect("127.0.0.1", port, 10))
        near.start_tls(ssl.create_default_context(cafile=certificate[0]), "127.0.0.1")
        server.stdin.write(b"K\n")  # s_server: update the keys and ask the client to do the same
        server.stdin.flush()
        for line in server.stdout:
            if b">>>" in line and b"KeyUpdate" in line:
                break
        server.stdin.write(b"after\n")
        server.stdin.flush()
        assert take(near, 6) == b"after\n"
        assert near.end == near.received
        near.sendall(b"under the new keys\n")
        updated = False
        for line in server.stdout:
            updated |= b"<<<" in line and b"KeyUpdate" in line
            if b"under the new keys" in line:
                break
        assert updated, "the client sent its own KeyUpdate before its next data (RFC 8446, 4.6.3)"
        near.close()
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()
