# SPDX-License-Identifier: Apache-2.0
"""The ring loses nothing uncounted: laps, kills, successors, hostile and vanishing files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickpath.errors import RingError
from tickpath.event import RECORD, ROW, ROW_NONE, Counter, Kind, RowState
from tickpath.ring import RingReader, RingWriter

# Writes records whose seven words are all derived from their number, until killed or done.
PRODUCER = """
import os, sys, numpy as np
from pathlib import Path
from tickpath.event import RECORD
from tickpath.ring import RingWriter
directory, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with RingWriter(directory, "p", "feed", capacity=1024, rows=4) as writer:
    print("ready", flush=True)
    batch = np.zeros(4096, RECORD)
    words = batch.view("u8").reshape(-1, 8)
    done = 0
    while done < count:
        numbers = np.arange(first + done, first + done + len(batch), dtype="u8")
        for word in range(1, 8):
            words[:, word] = numbers * np.uint64(2 * word + 1)
        writer.write(batch.view("u1"))
        done += len(batch)
    os._exit(0)  # no BYE: every record that a reader sees holds the rule
"""


def _records(count: int, first: int = 0) -> np.ndarray:
    records = np.zeros(count, RECORD)
    records["kind"] = Kind.MESSAGE
    records["message"]["ordinal"] = np.arange(first, first + count)
    return records


def _drain(reader: RingReader, room: int = 4096) -> np.ndarray:
    out = np.zeros(room, RECORD)
    taken = [out[: reader.read(out.view("u1"))].copy()]
    while len(taken[-1]):
        taken.append(out[: reader.read(out.view("u1"))].copy())
    return np.concatenate(taken)


def _row(feed: bytes) -> np.ndarray:
    row = np.zeros(1, ROW)
    row["feed"] = feed
    return row


def test_a_reader_gets_every_record_in_order_from_the_moment_it_came(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=64) as writer:
        writer.write(_records(5).view("u1"))
        with RingReader(tmp_path / "a.ring") as reader:
            assert _drain(reader).size == 0
            writer.write(_records(10, first=5).view("u1"))
            got = _drain(reader)
            assert got["message"]["ordinal"].tolist() == list(range(5, 15))
            assert got["seq"].tolist() == list(range(7, 17)), "HELLO is record 1"
            assert reader.lost == 0


def test_a_reader_that_waited_for_the_ring_gets_its_first_record(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=64) as writer:
        writer.write(_records(40).view("u1"))
        with RingReader(tmp_path / "a.ring", from_start=True) as reader:
            assert _drain(reader)["seq"].tolist() == list(range(1, 42))
        writer.write(_records(60).view("u1"))
        with RingReader(tmp_path / "a.ring", from_start=True) as reader:
            got = _drain(reader)
            assert len(got) + reader.lost == 101


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=20))
def test_written_is_received_plus_lost_whatever_the_interleaving(steps: list[tuple[int, int]]) -> None:
    directory = Path("/dev/shm") / f"tickpath-test-{os.getpid()}"
    try:
        with RingWriter(directory, "h", "feed", capacity=64) as writer, RingReader(directory / "h.ring") as reader:
            written, received = 0, []
            for write, read in steps:
                writer.write(_records(write, first=written).view("u1"))
                written += write
                out = np.zeros(read, RECORD)
                received += out["message"]["ordinal"][: reader.read(out.view("u1"))].tolist()
            received += _drain(reader)["message"]["ordinal"].tolist()
            assert len(received) + reader.lost == written
            assert received == sorted(set(received))
    finally:
        (directory / "h.ring").unlink(missing_ok=True)
        directory.rmdir()


def test_a_lapping_producer_in_another_process_tears_nothing(tmp_path: Path) -> None:
    count = 2_000_000
    command = [sys.executable, "-c", PRODUCER, str(tmp_path), "1", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout and producer.stdout.readline() == "ready\n"
        received = 0
        with RingReader(tmp_path / "p.ring") as reader:
            started_at = reader.cursor
            out = np.zeros(512, RECORD)
            words = out.view("u8").reshape(-1, 8)
            while True:
                ended = producer.poll() is not None
                taken = reader.read(out.view("u1"))
                for word in range(2, 8):
                    whole = words[:taken, 1] // np.uint64(3) * np.uint64(2 * word + 1)
                    assert np.array_equal(words[:taken, word], whole)
                received += taken
                if ended and taken == 0:
                    break
            assert received + reader.lost == reader.head - started_at
    assert producer.returncode == 0


# Rewrites one row until its standard input ends: every 8 bytes after the first 24 hold the same number.
REWRITER = """
import select, sys, numpy as np
from pathlib import Path
from tickpath.event import ROW
from tickpath.ring import RingWriter
with RingWriter(Path(sys.argv[1]), "p", "feed", capacity=16, rows=1) as writer:
    rows = np.zeros(251, ROW)
    rows.view("u8").reshape(251, -1)[:, 5:] = np.arange(251, dtype="u8")[:, None] * 0x0101010101010101
    handle = writer.open_row(rows[:1])
    print(handle, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for at in range(len(rows)):
            writer.update_row(handle, rows[at : at + 1])
"""


def test_a_row_rewritten_by_another_process_is_never_seen_half(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REWRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout and producer.stdin
        handle = int(producer.stdout.readline())
        seen: set[int] = set()
        with RingReader(tmp_path / "p.ring") as reader:
            for _ in range(30_000):
                row = reader.row(handle)
                if row is not None:  # else it was being written at every attempt
                    words = np.atleast_1d(row).view("u8")[5:]
                    assert (words == words[0]).all()
                    seen.add(int(words[0]))
        producer.stdin.close()
    assert producer.returncode == 0
    assert len(seen) > 20, "the row was rewritten meanwhile"


def test_a_producer_killed_anywhere_has_a_successor_and_its_readers_go_on(tmp_path: Path) -> None:
    reader = None
    received = 0
    for life in range(6):
        command = [sys.executable, "-c", PRODUCER, str(tmp_path), str(life), "1000000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
            assert producer.stdout and producer.stdout.readline() == "ready\n"
            reader = reader or RingReader(tmp_path / "p.ring")
            started = reader.head
            while reader.head < started + 5000:
                received += len(_drain(reader, 256)) if life % 2 else 0
            producer.send_signal(signal.SIGKILL)
    assert reader is not None
    assert not reader.alive
    assert reader.instance == 6
    begun = reader.cursor
    with RingWriter(tmp_path, "p", "feed", capacity=1024, rows=4) as writer:
        assert reader.alive
        writer.write(_records(3).view("u1"))
        lost_before = reader.lost
        last = _drain(reader)
        assert last["kind"][-4:].tolist() == [Kind.HELLO, Kind.MESSAGE, Kind.MESSAGE, Kind.MESSAGE]
        assert len(last) + reader.lost - lost_before == reader.head - begun
    reader.close()


def test_two_producers_of_one_name_are_told_apart(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed"), pytest.raises(RingError, match="another producer holds"):
        RingWriter(tmp_path, "a", "feed")
    RingWriter(tmp_path, "a", "feed").close()


def test_a_file_of_another_shape_is_replaced_not_resized_under_its_readers(tmp_path: Path) -> None:
    RingWriter(tmp_path, "a", "feed", capacity=64).close()
    with RingReader(tmp_path / "a.ring") as reader:
        with RingWriter(tmp_path, "a", "feed", capacity=128) as writer:
            writer.write(_records(3).view("u1"))
            with RingReader(tmp_path / "a.ring") as fresh:
                assert fresh.inode != reader.inode
                assert fresh.capacity == 128
        assert _drain(reader).size == 0
        assert reader.capacity == 64


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a ring file"),
        (b"\0" * 8192, "not a ring file"),
        (b"TICKPATH" + b"\xff" * 8192, "ABI version"),
        (b"x" * 100, "not a ring file"),
    ],
)
def test_what_is_no_ring_is_refused_in_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.ring"
    path.write_bytes(content)
    with pytest.raises(RingError, match=expected) as raised:
        RingReader(path)
    assert "\n" not in str(raised.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=16), st.integers(0, 255))
def test_a_header_with_any_bytes_changed_never_ends_the_reader(garbage: bytes, offset: int) -> None:
    directory = Path("/dev/shm") / f"tickpath-test-{os.getpid()}-f"
    try:
        with RingWriter(directory, "f", "feed", capacity=16, rows=2) as writer:
            writer.write(_records(20).view("u1"))
        path = directory / "f.ring"
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(garbage)
        try:
            with RingReader(path) as reader:
                _drain(reader)
                reader.rows()
                reader.row(0)
        except RingError as error:
            assert "\n" not in str(error)
    finally:
        for leftover in directory.iterdir():
            leftover.unlink()
        directory.rmdir()


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 20000])
def test_a_file_cut_short_under_a_reader_is_an_error_not_a_signal(tmp_path: Path, size: int) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=4096) as writer:
        writer.write(_records(10).view("u1"))
    with RingReader(tmp_path / "a.ring") as reader:
        os.truncate(tmp_path / "a.ring", size)
        with pytest.raises(RingError, match="cut short"):
            for _ in range(2):
                _drain(reader)
                reader.rows()
                reader.counters()


@pytest.mark.parametrize("size", [0, 4096, 8192, 20000])
def test_a_file_cut_short_under_its_producer_leaves_the_application_alive(tmp_path: Path, size: int) -> None:
    program = (
        "import os, sys; from pathlib import Path; import numpy as np;"
        "from tickpath.event import RECORD, ROW, Counter; from tickpath.ring import RingWriter;"
        "ring = RingWriter(Path(sys.argv[1]), 'a', 'feed', capacity=1024); assert not ring.truncated;"
        "handle = ring.open_row(np.zeros((), ROW));"
        "os.truncate(ring.path, int(sys.argv[2]));"
        "ring.write(np.zeros(3000, RECORD).view('u1')); ring.count(Counter.MESSAGES);"
        "ring.open_row(np.zeros((), ROW)); ring.close_row(handle, 1);"
        "assert ring.truncated; ring.close();"
        "successor = RingWriter(Path(sys.argv[1]), 'a', 'feed', capacity=1024); assert not successor.truncated"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), str(size)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_file_system_is_an_error_at_start(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path; from tickpath.ring import RingWriter;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "RingWriter(Path(sys.argv[1]), 'a', 'feed', capacity=1 << 16)"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "RingError: cannot reserve" in result.stderr
    assert not (tmp_path / "a.ring").exists()


def test_rows_outlive_the_records_that_named_them(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=16, rows=4) as writer:
        handle = writer.open_row(_row(b"btcusdt"))
        writer.write(_records(100).view("u1"))
        with RingReader(tmp_path / "a.ring") as late:
            row = late.row(handle)
            assert row is not None
            assert row["feed"] == b"btcusdt"
            assert row["state"] == RowState.OPEN
            writer.close_row(handle, 7)
            row = late.row(handle)
            assert row is not None
            assert (row["state"], row["closed_ns"]) == (RowState.CLOSED, 7)


def test_a_row_taken_again_is_another_connection(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", rows=1) as writer, RingReader(tmp_path / "a.ring") as reader:
        first = writer.open_row(_row(b"one"))
        assert writer.open_row(_row(b"none left")) is None
        assert reader.counters()[Counter.ROWS_EXHAUSTED] == 1
        writer.close_row(first, 1)
        second = writer.open_row(_row(b"two"))
        assert second != first
        assert reader.row(first) is None
        row = reader.row(second)
        assert row is not None and row["feed"] == b"two"
        writer.update_row(first, _row(b"stale"))
        assert reader.row(second)["feed"] == b"two"
        assert reader.row(ROW_NONE) is None


def test_the_successor_of_a_killed_producer_closes_its_connections(tmp_path: Path) -> None:
    program = (
        "import numpy, os, signal, sys; from pathlib import Path; from tickpath.ring import RingWriter;"
        "from tickpath.event import ROW; w = RingWriter(Path(sys.argv[1]), 'a', 'feed');"
        "w.open_row(numpy.zeros(1, ROW)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    with RingReader(tmp_path / "a.ring") as reader:
        assert [row["state"] for row in reader.rows().values()] == [RowState.OPEN]
        with RingWriter(tmp_path, "a", "feed"):
            assert [row["state"] for row in reader.rows().values()] == [RowState.CLOSED]


def test_a_row_that_a_kill_cut_in_half_is_believed_by_nobody(tmp_path: Path) -> None:
    rows_at, capacity, rows = 4096, 16, 4
    with RingWriter(tmp_path, "a", "feed", capacity=capacity, rows=rows) as writer:
        kept, torn = writer.open_row(_row(b"kept")), writer.open_row(_row(b"torn"))
        image = writer.path.read_bytes()
    # What a producer leaves that was killed after it had stored the first word of a row: its flags, not yet its irs.
    cut = np.frombuffer(bytearray(image), ROW, count=rows, offset=rows_at)
    cut[1]["version"] |= 1
    cut[1]["flags"] = 0xFF
    (tmp_path / "a.ring").write_bytes(cut.base)
    with RingReader(tmp_path / "a.ring") as reader, RingWriter(tmp_path, "a", "feed", capacity=capacity, rows=rows):
        assert reader.instance == 2
        assert reader.row(torn) is None
        assert [row["feed"] for row in reader.rows().values()] == [b"kept"]
        assert reader.row(kept)["state"] == RowState.CLOSED


@pytest.mark.parametrize("head", [24, (1 << 63) + 1, (1 << 64) - 1])
def test_a_head_that_somebody_wrote_over_makes_no_old_record_new(tmp_path: Path, head: int) -> None:
    head_at, capacity = 192, 16
    with RingWriter(tmp_path, "a", "feed", capacity=capacity, rows=4) as writer:
        writer.write(_records(40).view("u1"))
    with writer.path.open("r+b") as file:
        file.seek(head_at)
        assert int.from_bytes(file.read(8), "little") == 42  # hello, 40, bye
        file.seek(head_at)
        file.write(head.to_bytes(8, "little"))
    with (
        RingWriter(tmp_path, "a", "feed", capacity=capacity, rows=4) as successor,
        RingReader(tmp_path / "a.ring") as reader,
    ):
        successor.write(_records(1, first=99).view("u1"))
        assert _drain(reader)["message"]["ordinal"].tolist() == [99]


def test_counters_are_running_totals_that_a_successor_goes_on_with(tmp_path: Path) -> None:
    for _ in range(2):
        with RingWriter(tmp_path, "a", "feed") as writer:
            writer.count(Counter.FEED_GAPS, 3)
    with RingReader(tmp_path / "a.ring") as reader:
        assert reader.counters()[Counter.FEED_GAPS] == 6


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a" * 64, "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RingError, match="ring name"):
        RingWriter(tmp_path, name, "feed")


def test_files_are_for_the_group_to_read_and_nobody_else(tmp_path: Path) -> None:
    directory = tmp_path / "rings"
    with RingWriter(directory, "a", "feed") as writer:
        assert writer.path.stat().st_mode & 0o777 == 0o640
        assert directory.stat().st_mode & 0o3000 == 0o3000


def test_liveness_is_the_lock_not_the_pid(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path, "a", "feed")
    with RingReader(tmp_path / "a.ring") as reader:
        assert reader.alive
        writer.close()
        assert not reader.alive
        deadline = time.monotonic() + 1
        while reader.read(np.zeros(8, RECORD).view("u1")) and time.monotonic() < deadline:
            pass


def test_a_producer_that_stops_of_its_own_will_says_so(tmp_path: Path) -> None:
    with RingWriter(tmp_path, "a", "feed", capacity=64) as writer, RingReader(tmp_path / "a.ring") as reader:
        assert not reader.stopped
        writer.write(_records(200).view("u1"))
        writer.close()
        assert (reader.alive, reader.stopped) == (False, True)
        with RingWriter(tmp_path, "a", "feed", capacity=64):
            assert (reader.alive, reader.stopped) == (True, False)
        assert reader.stopped


@pytest.mark.parametrize("ends", ["raise ValueError", "os.kill(os.getpid(), 9)", "del writer"])
def test_a_producer_that_fails_says_no_goodbye(tmp_path: Path, ends: str) -> None:
    code = f"""
import os
from pathlib import Path
from tickpath.ring import RingWriter
writer = RingWriter(Path({str(tmp_path)!r}), "a", "feed", capacity=64)
{ends if ends.startswith("del") else f"with writer: {ends}"}
"""
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    with RingReader(tmp_path / "a.ring") as reader:
        assert (reader.alive, reader.stopped) == (False, False)


@pytest.mark.parametrize("ends", ["raise KeyboardInterrupt", "sys.exit(0)"])
def test_ctrl_c_is_the_producers_own_will(tmp_path: Path, ends: str) -> None:
    code = f"""
import sys
from pathlib import Path
from tickpath.ring import RingWriter
with RingWriter(Path({str(tmp_path)!r}), "a", "feed", capacity=64):
    {ends}
"""
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    with RingReader(tmp_path / "a.ring") as reader:
        assert reader.stopped
