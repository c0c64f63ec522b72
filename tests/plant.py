# SPDX-License-Identifier: Apache-2.0
"""The pipeline as separate processes that tests kill, stop and start again one by one, and the books over all of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from tickpath.errors import RingError
from tickpath.event import RECORD, Kind
from tickpath.exporter.exposition.summary import Summary
from tickpath.lab.demo.processes import Child
from tickpath.lab.ports import HeldPort
from tickpath.lab.simulator.truth import Sent
from tickpath.ring import SUFFIX, RingReader

STREAM = "btcusdt@trade"
_LINGER_S = 40
_START_S = 120.0


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.03)


@dataclass
class Received:
    """What one connection's row and records say: `opened_ns` and `port` tell it from its successors."""

    port: int
    opened_ns: int
    ordinals: list[int] = field(default_factory=list)
    closed_messages: int | None = None


class Auditor:
    """Follows one feed's ring from its first record in a thread, so that its books need nobody else's word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self.may_lose = False
        """It reads in Python: with a ring meant to be lapped it is lapped too, and knows no more than it read."""
        self.message_numbers: list[int] = []
        self.by_row: dict[tuple[int, int], Received] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def messages(self) -> int:
        return len(self.message_numbers)

    def _attach(self) -> RingReader | None:
        while True:
            try:
                return RingReader(self.path, from_start=True)
            except RingError:
                if self._stop.wait(0.01):
                    return None

    def _run(self) -> None:
        reader = self._attach()
        if reader is None:
            return
        with reader:
            batch = np.zeros(4096, RECORD)
            while True:
                stopping = self._stop.is_set()
                taken = reader.read(batch.view("u1"))
                for record in batch[:taken]:
                    self._take(reader, record)
                self.lost = reader.lost
                if taken == 0:
                    if stopping:
                        return
                    time.sleep(0.002)

    def _take(self, reader: RingReader, record: np.void) -> None:
        if record["kind"] not in (Kind.MESSAGE, Kind.CLOSED, Kind.OPENED):
            return
        handle = int(record["row"])
        row = reader.row(handle)
        assert row is not None, "its row was taken again before the auditor came"
        key = (handle, int(row["opened_ns"]))
        connection = self.by_row.setdefault(key, Received(int(row["local_port"]), key[1]))
        if record["kind"] == Kind.MESSAGE:
            self.message_numbers.append(int(record["seq"]))
            connection.ordinals.append(int(record["message"]["ordinal"]))
        elif record["kind"] == Kind.CLOSED:
            connection.closed_messages = int(record["connection"]["messages"])


@dataclass(frozen=True)
class Books:
    """Where every message that the server sent is: nothing is left over."""

    sent: int
    received: int
    never_received: int
    """On connections that ended by a kill: behind the last message that the feed recorded."""
    counted: int
    taken_by_predecessors: int
    skipped: int
    lost: int

    @property
    def uncounted(self) -> int:
        known = self.counted + self.taken_by_predecessors + self.skipped + self.lost + self.never_received
        return self.sent - known


class Plant:
    """Simulator, two feeds, wire probe (with `wire`) and exporter. A context manager: leaving it stops them all."""

    def __init__(
        self,
        folder: Path,
        *,
        wire: bool = True,
        feeds: Sequence[str] = ("a", "b"),
        simulate: Sequence[str] = ("--speed", "1"),
        feed: Sequence[str] = (),
        wire_flags: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.rings = folder / "rings"
        self.feed_names = tuple(feeds)
        self._with_wire = wire
        self._simulate = tuple(simulate)
        self._feed_flags = tuple(feed)
        self._wire_flags = tuple(wire_flags)
        self._held = HeldPort(), HeldPort()
        self._port, self._exporter_port = (held.number for held in self._held)
        self._lives: dict[str, int] = defaultdict(int)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.children: dict[str, Child] = {}
        self.all: list[Child] = []
        self.auditors: dict[str, Auditor] = {}
        self.cursors_before: dict[str, int] = {}
        """Record up to which the exporters before this one had taken each ring, by their own file."""

    def __enter__(self) -> Self:
        try:
            for name in ("exporter", "simulator", *(("wire",) if self._with_wire else ()), *self.feed_names):
                self.start(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for child in reversed(self.all):
            if child.exit_code is None:
                os.kill(child.pid, signal.SIGCONT)
            child.stop(10)
        for auditor in self.auditors.values():
            auditor.close()
        for held in self._held:
            held.close()

    # --- processes ---

    def child(self, name: str, *arguments: str) -> Child:
        self._lives[name] += 1
        child = Child(f"{name}-{self._lives[name]}", arguments, self.folder, {"TICKPATH_DIRECTORY": str(self.rings)})
        self.children[name] = child
        self.all.append(child)
        return child

    def start(self, name: str) -> None:
        """Start a process, for the first time or again after it ended, and wait until it works."""
        if name == "exporter":
            self.cursors_before = self._saved_cursors()
            child = self.child(name, "exporter", "--listen", f"127.0.0.1:{self._exporter_port}")
            child.wait_until(lambda: self._get("/-/ready") is not None, _START_S, "answer on /-/ready")
        elif name == "simulator":
            log = self.folder / f"sent-{self._lives[name] + 1}.log"
            flags = ("--port", str(self._port), "--log", str(log), "--linger", str(_LINGER_S), *self._simulate)
            child = self.child(name, "simulate", *flags)
            child.wait_until(lambda: "listening on" in child.output.read_text(), _START_S, "ready line")
        elif name == "wire":
            child = self.child(name, "probe", "wire", "--interface", "lo", "--port", str(self._port), *self._wire_flags)
            child.wait_until(lambda: self.alive("wire-lo"), _START_S, "ring")
        else:
            if name not in self.auditors:
                self.auditors[name] = Auditor(self.ring(f"feed-{name}"))
            child = self.child(name, *self.feed_command(name))
            child.wait_until(lambda: self.alive(f"feed-{name}"), _START_S, "ring")

    def feed_command(self, name: str) -> tuple[str, ...]:
        url = f"ws://127.0.0.1:{self._port}/market/ws/{STREAM}"
        flags = ("--name", name, "--publish", "none", "--backoff-first", "0.2", "--backoff-longest", "0.4")
        return "feed", url, *flags, *self._feed_flags

    def kill(self, name: str) -> None:
        """-9, and see it dead."""
        os.kill(self.children[name].pid, signal.SIGKILL)
        assert self.children[name].wait_for_end(60)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.children[name].pid, number)

    # --- what they say ---

    def ring(self, name: str) -> Path:
        return self.rings / f"{name}{SUFFIX}"

    def alive(self, name: str) -> bool:
        try:
            with RingReader(self.ring(name)) as reader:
                return reader.alive
        except RingError:
            return False

    def _get(self, path: str) -> bytes | None:
        try:
            with self._opener.open(f"http://127.0.0.1:{self._exporter_port}{path}", timeout=10) as answer:
                return bytes(answer.read()) if answer.status == 200 else None
        except OSError:
            return None

    def metrics(self) -> str:
        page = self._get("/metrics")
        assert page is not None, self.children["exporter"].last_words()
        return page.decode()

    def summary(self) -> Summary:
        page = self._get("/api/summary")
        assert page is not None, self.children["exporter"].last_words()
        return msgspec.json.decode(page, type=Summary)

    def _saved_cursors(self) -> dict[str, int]:
        try:
            saved: dict[str, Any] = json.loads((self.rings / f"exporter-{self._exporter_port}.cursors").read_bytes())
        except FileNotFoundError:
            return {}
        return {name: int(cursor["record"]) for name, cursor in saved.items()}

    def recorded(self, name: str) -> int:
        """Messages of a feed in its ring."""
        return self.auditors[name].messages

    def wait_for_messages(self, feeds: Iterable[str], more: int = 1) -> None:
        """Until each of these feeds has recorded so many messages more than now."""
        wanted = {name: self.recorded(name) + more for name in feeds}
        wait_for(lambda: all(self.recorded(name) >= count for name, count in wanted.items()), f"{wanted} messages")

    # --- the books ---

    def sent(self) -> list[list[tuple[int, int]]]:
        """Per life of the simulator, per connection in order: the client's port and the messages logged."""
        lives = []
        for life in range(1, self._lives["simulator"] + 1):
            counts: dict[int, tuple[int, int]] = {}
            for line in (self.folder / f"sent-{life}.log").read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):  # a kill may cut the last one
                    one = msgspec.json.decode(line, type=Sent)
                    counts[one.connection] = (one.peer_port, one.ordinal + 1)
            lives.append([counts[number] for number in sorted(counts)])
        return lives

    def settle(self) -> Summary:
        """End sending, let everything under way arrive; the exporter's figures then."""
        # It ends once the feeds have taken all that it sent, or said goodbye.
        self.children["simulator"].stop(2 * _LINGER_S)
        for name in (*self.feed_names, *(("wire",) if self._with_wire else ())):
            self.children[name].stop(60)
        for auditor in self.auditors.values():
            auditor.close()
        wait_for(self._all_taken, "the exporter at every feed's head, by its own cursors")
        wait_for(lambda: self.summary().pending == 0, "an end of waiting")
        return self.summary()

    def _all_taken(self) -> bool:
        saved = self._saved_cursors()
        for name in (f"feed-{feed}" for feed in self.feed_names):
            with RingReader(self.ring(name)) as reader:
                if saved.get(name, 0) < reader.head:
                    return False
        return True

    def books(self, summary: Summary) -> Books:
        """The account after settle(). Asserts what must hold on the way to it."""
        sent = received = never = before = skipped = 0
        connections: dict[int, list[Received]] = defaultdict(list)
        for name, auditor in self.auditors.items():
            assert auditor.lost == 0, "the auditor itself fell behind: no books without it"
            for one in auditor.by_row.values():
                assert one.ordinals == list(range(len(one.ordinals))), "each message once, in order, none left out"
                assert one.closed_messages in (None, len(one.ordinals))
                connections[one.port].append(one)
            received += auditor.messages
            taken = self.cursors_before.get(f"feed-{name}", 0)
            ring = summary.rings[f"feed-{name}"]
            start = taken + ring.skipped_records
            before += sum(number <= taken for number in auditor.message_numbers)
            skipped += sum(taken < number <= start for number in auditor.message_numbers)
        for same_port in connections.values():
            same_port.sort(key=lambda one: one.opened_ns)
        lives = self.sent()
        for life, logged in enumerate(lives, start=1):
            for port, messages in logged:
                assert connections[port], "a message was sent on a connection that no feed knows"
                got = len(connections[port].pop(0).ordinals)
                # A killed simulator's log lacks what it sent in its last moments.
                true = max(messages, got) if life < len(lives) else messages
                assert got <= true, "more was received than sent"
                sent += true
                never += true - got
        assert sum(len(one.ordinals) for rest in connections.values() for one in rest) == 0
        counted = sum(summary.matched.values()) + sum(summary.unmatched.values())
        assert counted == summary.messages
        lost = received - before - skipped - counted if summary.lost_records else 0
        assert 0 <= lost <= summary.lost_records
        return Books(sent, received, never, counted, before, skipped, lost)
