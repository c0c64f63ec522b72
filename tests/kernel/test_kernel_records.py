# SPDX-License-Identifier: Apache-2.0
"""What the programs tell of real connections: every byte once, in order, at a true time; and nothing of others."""

from __future__ import annotations

import ctypes
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kernel.tracing import (
    PATIENCE_S,
    Peers,
    Server,
    Tracing,
    assert_covers_once,
    assert_readable_before_copied,
    assert_true_times,
    cookie_of,
    initial_sequence,
    spans,
    traced,
)
from netns import Namespace, Shuttle
from tickpath.event import Counter, Kind, RowFlag
from tickpath.selector import Selector, packed
from wire.capturing import wait_until

MPTCP = 262


def _blocking(peers: Peers) -> None:
    peers.read(1 << 16)


def _non_blocking(peers: Peers) -> None:
    peers.near.setblocking(False)
    while select.select([peers.near], [], [], 10)[0]:
        peers.read(1 << 16)
        try:
            peers.read(1 << 16)
        except BlockingIOError:
            return


def _peeking(peers: Peers) -> None:
    for _ in range(3):
        assert peers.near.recv(1 << 16, socket.MSG_PEEK)
    peers.read(1 << 16)


def _partial(peers: Peers) -> None:
    while select.select([peers.near], [], [], 0)[0]:
        peers.read(random.Random(len(peers.reads)).randint(1, 97))


def _slow(peers: Peers) -> None:
    time.sleep(0.002)
    peers.read(1 << 16)


def _whole(peers: Peers) -> None:
    peers.read(peers.sends[-1].end - (peers.reads[-1].end if peers.reads else 0), socket.MSG_WAITALL)


def _splicing(peers: Peers) -> None:
    peers.arrive()
    out, into = os.pipe()
    try:
        peers.read_by(lambda: os.splice(peers.near.fileno(), into, 1 << 16))
    finally:
        os.close(out)
        os.close(into)


@traced
@pytest.mark.parametrize("reader", [_blocking, _non_blocking, _peeking, _partial, _slow, _whole, _splicing])
def test_every_byte_is_readable_once_and_copied_once_at_true_times(
    tmp_path: Path, reader: Callable[[Peers], None]
) -> None:
    sizes = random.Random(4)
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        for _ in range(100):
            peers.send(sizes.choice((1, 300, 1400, 9000)))
            reader(peers)
        while peers.reads[-1].end < peers.sends[-1].end:
            reader(peers)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(readable, peers.sends[-1].end)
        assert_covers_once(copied, peers.sends[-1].end)
        assert_true_times(readable, copied, peers)
        assert set(copied["interval"]["pid"]) == {os.getpid()}
        assert set(readable["interval"]["pid"]) == {0}
        assert tracing.count(Counter.EVENTS_LOST) == 0


@traced
def test_a_blocked_reader_s_bytes_are_copied_after_they_became_readable(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        child = os.fork()
        if child == 0:
            for _ in range(20):
                time.sleep(0.005)
                peers.far.sendall(b"x" * 100)
            os._exit(0)
        for _ in range(20):
            peers.read(100, socket.MSG_WAITALL)
        os.waitpid(child, 0)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(readable, 2000)
        assert_covers_once(copied, 2000)
        # Not one by one: what comes while the reader is in its call may be told as one.
        assert_readable_before_copied(readable, copied)


@traced
@pytest.mark.parametrize("corked", [True, False], ids=["with data", "alone"])
def test_a_fin_is_no_byte(tmp_path: Path, corked: bool) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        cookie = peers.cookie
        peers.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, corked)
        peers.send(500)
        peers.far.close()
        while peers.read(200):
            pass
        peers.near.close()
        wait_until(lambda: len(tracing.reader.of(Kind.CLOSED)) == 1)
        for kind in (Kind.READABLE, Kind.COPIED):
            assert_covers_once(tracing.of(kind, cookie), 500)
        assert tracing.of(Kind.CLOSED, cookie)["connection"]["bytes"].tolist() == [500]


@traced
def test_what_came_before_a_reset_can_be_read_after_it(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.send(100)
        peers.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peers.far.close()
        wait_until(lambda: len(tracing.reader.of(Kind.CLOSED)) == 1)
        assert peers.read(40) == 40
        closed, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.CLOSED, Kind.COPIED))
        assert spans(copied) == [(0, 40)]
        assert closed["row"][0] == copied["row"][0]
        assert tracing.reader.ring.row(int(copied["row"][0])) is not None


@traced
def test_of_two_readers_each_byte_has_its_own(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        readers = [os.getpid()]
        for n in range(10):
            peers.send(100)
            if n % 2:
                peers.read(100)
                continue
            child = os.fork()
            if child == 0:
                peers.near.recv(100)
                os._exit(0)
            os.waitpid(child, 0)
            readers.append(child)
        copied = tracing.of(Kind.COPIED, peers.cookie)
        assert_covers_once(copied, 1000)
        assert set(copied["interval"]["pid"]) == set(readers)
        assert set(copied["interval"]["pid"][1::2]) == {os.getpid()}


@traced
def test_a_reader_that_wants_more_is_told_when_there_is_enough(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        peers.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 250)
        for _ in range(3):
            peers.send(100)
        wait_until(lambda: len(tracing.reader.of(Kind.READABLE)) == 1)
        peers.read(1000)
        peers.send(100)
        peers.arrive()
        peers.near.setblocking(False)
        peers.read(1000)
        readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
        assert_covers_once(copied, 400)
        assert spans(readable) == [(0, 300)], "what was taken below the mark was never announced: a gap"


@traced
def test_only_the_selected_peers_are_recorded(tmp_path: Path) -> None:
    with Server() as wanted, Server() as other_port, Server("127.0.0.2") as other_address:
        selectors = [wanted.selector, Selector(other_address.port, packed("127.0.0.1"))]
        with Tracing(tmp_path, selectors) as tracing:
            for server in (other_port, other_address, wanted):
                peers = server.connect()
                peers.send(10)
                peers.read(10)
            tracing.stop()
            records = tracing.reader.of(Kind.READABLE)
            assert set(records["interval"]["cookie"]) == {peers.cookie}


@traced
@pytest.mark.parametrize(
    ("near", "far", "selected"),
    [("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "::1")],
    ids=["v4-mapped", "IPv6"],
)
def test_addresses_of_both_families_are_selected_and_shown(tmp_path: Path, near: str, far: str, selected: str) -> None:
    with Server(far) as server, Tracing(tmp_path, [Selector(server.port, packed(selected))]) as tracing:
        peers = server.connect(socket.socket(socket.AF_INET6, socket.SOCK_STREAM), to=near)
        peers.send(10)
        peers.read(10)
        copied = tracing.of(Kind.COPIED, peers.cookie)
        row = tracing.reader.ring.row(int(copied["row"][0]))
        assert row is not None
        assert row["remote"].tobytes() == row["local"].tobytes() == packed(selected)
        assert (row["remote_port"], row["local_port"]) == (server.port, peers.near.getsockname()[1])
        assert row["cookie"] == peers.cookie


@traced
def test_listening_sockets_say_nothing_and_accepted_ones_their_namespace(tmp_path: Path) -> None:
    with Namespace() as namespace, Tracing(tmp_path, [], rows=1024) as tracing:
        with namespace.entered():
            server = Server()
        with server:
            with namespace.entered():
                near = socket.socket()
            peers = server.connect(near)
            peers.near.sendall(b"hello")
            assert peers.far.recv(5) == b"hello"
            cookie, listening = cookie_of(peers.far), cookie_of(server.listening)
            assert_covers_once(tracing.of(Kind.COPIED, cookie), 5)
            row = tracing.reader.ring.row(int(tracing.of(Kind.OPENED, cookie)["row"][0]))
            assert row is not None
            assert row["netns"] == namespace.inode
            assert row["local_port"] == server.port
            for kind in (Kind.OPENED, Kind.READABLE, Kind.COPIED):
                assert len(tracing.of(kind, listening)) == 0


def _version_2_cgroup() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(folder)
    return None


@traced
@pytest.mark.skipif(_version_2_cgroup() is None, reason="no version 2 cgroups are mounted here")
@pytest.mark.parametrize("below", ["", "pod/container"], ids=["in it", "below it"])
def test_a_cgroup_selects_the_sockets_that_were_made_in_it_or_below(tmp_path: Path, below: str) -> None:
    mounted = _version_2_cgroup()
    assert mounted is not None
    folder = mounted / f"tickpath-test-{os.getpid()}-{len(below)}"
    inner = folder / below
    inner.mkdir(parents=True)
    client = (
        "import pathlib, os, socket, sys\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "s = socket.socket()\n"
        "print(int.from_bytes(s.getsockopt(1, 57, 8), 'little'), flush=True)\n"
        "s.connect(('127.0.0.1', int(sys.argv[2])))\n"
        "s.recv(10); s.recv(1)\n"
    )
    try:
        with Server() as server, Tracing(tmp_path, [], cgroup=folder.stat().st_ino) as tracing:
            outside = server.connect()
            child = subprocess.Popen(
                [sys.executable, "-c", client, str(inner), str(server.port)], stdout=subprocess.PIPE, text=True
            )
            far, _ = server.listening.accept()
            assert child.stdout is not None
            cookie = int(child.stdout.readline())
            outside.send(10)
            outside.read(10)
            far.sendall(b"x" * 10)
            wait_until(lambda: len(tracing.reader.of(Kind.COPIED)) > 0)
            far.close()
            assert child.wait(PATIENCE_S) == 0
            child.stdout.close()
            assert_covers_once(tracing.of(Kind.COPIED, cookie), 10)
            assert set(tracing.reader.of(Kind.READABLE)["interval"]["cookie"]) == {cookie}
    finally:
        wait_until(lambda: not (inner / "cgroup.procs").read_text(), what="an empty cgroup")
        for made in (inner, *inner.parents):
            if made != mounted and mounted in made.parents:
                made.rmdir()


@traced
def test_started_mid_stream_it_knows_where_the_stream_is(tmp_path: Path) -> None:
    with Server() as server:
        peers = server.connect()
        peers.send(1000)
        peers.read(900)
        with Tracing(tmp_path, [server.selector]) as tracing:
            for _ in range(3):
                peers.send(50)
            peers.arrive()
            peers.read(70)
            peers.read(1000)
            irs = initial_sequence(peers.near, 1150)
            peers.send(50)
            peers.read(1000)
            readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
            assert spans(readable) == [(1050, 1100), (1100, 1150), (1150, 1200)], "the first is where it begins"
            assert spans(copied)[0] == (900, 970)
            assert spans(copied)[-1] == (1150, 1200)
            assert sum(end - begin for begin, end in spans(copied)) == 300
            row = tracing.reader.ring.row(int(readable["row"][0]))
            assert row is not None
            assert row["flags"] & RowFlag.HAS_IRS
            assert row["irs"] == irs
            for record in (*readable, *copied):
                assert record["interval"]["seq"] == (irs + 1 + int(record["interval"]["to"])) & 0xFFFFFFFF
            assert tracing.count(Counter.UNSUPPORTED_TRANSPORT) == 0, "asking a socket by TCP_REPAIR is no repair"


@traced
def test_it_says_up_to_when_it_has_told_everything(tmp_path: Path) -> None:
    """Where it is quiet, too; and never before a record of something that was over by then."""
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        quiet = tracing.reader.wait(Kind.PASSED, 3, PATIENCE_S)
        peers = server.connect()
        for _ in range(50):
            peers.send(300)
            peers.read(300)
        after_ns = time.monotonic_ns()
        wait_until(lambda: bool((tracing.reader.of(Kind.PASSED)["time_ns"] > after_ns).any()))
        told = tracing.reader.all()
    assert (np.diff(quiet["time_ns"]) > 0).all()
    passed = np.maximum.accumulate(np.where(told["kind"] == Kind.PASSED, told["time_ns"], 0))
    events = np.isin(told["kind"], (Kind.READABLE, Kind.COPIED))
    assert events.sum() == 100
    # Not by its own time: a processor may stand still after it took that. The read that took a byte came after both.
    over_ns = np.array([peers.reads[int(end) // 300 - 1].after_ns for end in told["interval"]["to"][events]])
    assert (over_ns > passed[events]).all()
    assert set(told["interval"]["to"][events].tolist()) == {read.end for read in peers.reads}


@traced
def test_two_at_once_see_the_same(tmp_path: Path) -> None:
    with (
        Server() as server,
        Tracing(tmp_path, [server.selector]) as one,
        Tracing(tmp_path, [server.selector], name="other") as other,
    ):
        peers = server.connect()
        for _ in range(20):
            peers.send(100)
            peers.read(100)
        for tracing in (one, other):
            for kind in (Kind.READABLE, Kind.COPIED):
                assert_covers_once(tracing.of(kind, peers.cookie), 2000)


@traced
def test_a_lost_event_is_a_gap_and_never_a_late_time(tmp_path: Path) -> None:
    with (
        Server() as server,
        # Fetched when it is told to: that not all fits is no matter of how fast the machine is.
        Tracing(tmp_path, [server.selector], buffer_bytes=4096, interval_ms=600_000) as tracing,
        tracing.fetching() as fetch,
    ):
        peers = server.connect()
        for _ in range(4):
            for _ in range(500):
                peers.send(10)
                peers.read(10)
            before = len(tracing.reader.of(Kind.COPIED))
            wait_until(lambda before=before: fetch() or len(tracing.reader.of(Kind.COPIED)) > before)
        tracing.stop()
        records = [tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED)]
        assert all(0 < len(found) < 2000 for found in records)
        for record in np.concatenate(records):
            begin, end = int(record["interval"]["from"]), int(record["interval"]["to"])
            assert (begin % 10, end) == (0, begin + 10), "one message, not those that were lost before it"
            assert peers.sends[begin // 10].before_ns <= record["time_ns"] <= peers.reads[begin // 10].after_ns
        told = len(tracing.of(Kind.OPENED, peers.cookie)) + sum(map(len, records))
        assert told + tracing.count(Counter.EVENTS_LOST) == 1 + 4000


@traced
def test_loss_and_reordering_on_the_wire_leave_the_intervals_whole(tmp_path: Path) -> None:
    carried = {"frames": 0}
    held: list[bytes] = []

    def policy(side: int, frame: bytes) -> list[bytes]:
        if side != 1 or len(frame) < 200:
            return [frame]
        carried["frames"] += 1
        if carried["frames"] % 17 == 0:
            return []
        if carried["frames"] % 5 == 0:
            held.append(frame)
            return []
        late, held[:] = list(held), []
        return [frame, *late]

    with Namespace() as here, Namespace() as there:
        shuttle = Shuttle(here.tap("t0"), there.tap("t0"), policy)
        here.address("t0", "10.9.0.1/24")
        there.address("t0", "10.9.0.2/24")
        with there.entered():
            server = Server("10.9.0.2")
        with server, Tracing(tmp_path, [server.selector]) as tracing:
            with here.entered():
                near = socket.socket()
            peers = server.connect(near)
            for _ in range(60):
                peers.send(700)
                peers.read(1 << 16)
            while peers.reads[-1].end < peers.sends[-1].end:
                peers.read(1 << 16)
            readable, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.READABLE, Kind.COPIED))
            assert_covers_once(readable, 42000)
            assert_covers_once(copied, 42000)
            assert_true_times(readable, copied, peers)
        shuttle.close()


@traced
def test_a_socket_that_connects_again_is_another_connection(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        near = socket.socket()
        for size in (100, 60):
            peers = server.connect(near)
            peers.send(size)
            peers.read(size)
            peers.far.close()
            assert ctypes.CDLL(None).connect(near.fileno(), bytes(16), 16) == 0  # AF_UNSPEC: disconnect
        opened, copied = (tracing.of(kind, peers.cookie) for kind in (Kind.OPENED, Kind.COPIED))
        assert spans(copied) == [(0, 100), (0, 60)]
        assert copied["row"].tolist() == opened["row"].tolist()
        assert len(set(opened["row"])) == 2


@traced
def test_urgent_data_makes_a_connection_unsupported_and_no_other(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        urgent, plain = server.connect(), server.connect()
        urgent.send(10)
        urgent.read(10)
        urgent.far.send(b"!", socket.MSG_OOB)
        for peers in (urgent, plain):
            peers.send(10)
            peers.read(10)
        assert_covers_once(tracing.of(Kind.COPIED, plain.cookie), 10)
        assert spans(tracing.of(Kind.COPIED, urgent.cookie)) == [(0, 10)]
        assert tracing.count(Counter.UNSUPPORTED_TRANSPORT) == 1


def _has_mptcp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
    except OSError:
        return False
    return True


@traced
@pytest.mark.skipif(not _has_mptcp(), reason="this kernel has no MPTCP")
def test_mptcp_is_counted_as_unsupported(tmp_path: Path) -> None:
    with Server(protocol=MPTCP) as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect(socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP))
        peers.send(100)
        peers.read(100)
        tracing.stop()
        assert len(tracing.reader.of(Kind.COPIED)) == len(tracing.reader.of(Kind.READABLE)) == 0
        # The subflow is a socket of the kernel's own: nobody can ask for its cookie, which a kprobe needs.
        refused = Counter.NO_COOKIE if tracing.modes["copied"] == "kprobe" else Counter.UNSUPPORTED_TRANSPORT
        assert tracing.count(refused) >= 1


@traced
def test_more_connections_than_rows_keep_their_records_and_are_counted(tmp_path: Path) -> None:
    with Server() as server, Tracing(tmp_path, [server.selector], rows=2) as tracing:
        many = [server.connect() for _ in range(3)]
        wait_until(lambda: len(tracing.reader.of(Kind.OPENED)) == 3)
        for peers in many:
            peers.send(10)
            peers.read(10)
        rows = [int(tracing.of(Kind.COPIED, peers.cookie)["row"][0]) for peers in many]
        assert rows[0] == 0xFFFFFFFF
        assert len(set(rows)) == 3
        assert tracing.count(Counter.ROWS_EXHAUSTED) == 1
