# SPDX-License-Identifier: Apache-2.0
"""From messages to bytes on the wire as the shape asks, with the offsets of each message as it was really sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from tickpath.lab.simulator import frames
from tickpath.lab.simulator.config import Coalesce, Shape
from tickpath.lab.simulator.truth import Sent, TruthLog
from tickpath.lab.simulator.wire import Wire


class _Record(NamedTuple):
    """Plaintext up to `plain_end` of the batch lies in the stream's bytes [begin, end), sent at `sent_ns`."""

    plain_end: int
    begin: int
    end: int
    sent_ns: int


class Batch:
    """Gathers the messages that travel together; `ping` makes a whole ping frame."""

    def __init__(self, wire: Wire, shape: Shape, truth: TruthLog, ping: Callable[[], bytes]) -> None:
        self._wire = wire
        self._shape = shape
        self._truth = truth
        self._ping = ping if shape.ping_between else None
        self._waiting: list[tuple[bytes, int]] = []
        self._until_key_update = shape.key_update_every

    def __len__(self) -> int:
        """Messages that wait for their fellows."""
        return len(self._waiting)

    def add(self, body: bytes, planned_ns: int) -> None:
        """Send a message, with those that wait, as soon as there are enough."""
        self._waiting.append((body, planned_ns))
        if len(self._waiting) >= self._shape.coalesce:
            self.send()

    def send(self) -> None:
        """Send what waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._update_key(len(waiting))
        plains = [self._framed(body) for body, _ in waiting]
        records: list[_Record] = []
        try:
            plain_end = 0
            for number, group in enumerate(self._groups(plains)):
                if number and self._shape.split_pause_ns:
                    time.sleep(self._shape.split_pause_ns / 1e9)
                plain_end = self._send_group(group, plain_end, records)
        finally:
            # Where the connection broke in the middle, what was taken whole still counts.
            self._account(waiting, plains, records)

    def _framed(self, body: bytes) -> bytes:
        if self._shape.fragments == 1:
            return frames.text(body)
        return frames.fragmented(body, self._shape.fragments, self._ping)

    def _groups(self, plains: list[bytes]) -> list[list[bytes]]:
        """One send() per group, one TLS record per member."""
        shape = self._shape
        if shape.coalesce_into is Coalesce.SEND and len(plains) > 1:
            groups = [plains]
        else:
            joined = b"".join(plains)
            groups = [[part] for part in (frames.cut(joined, shape.split) if shape.split > 1 else [joined])]
        limit = self._wire.transport.record_max_bytes
        if limit is None or all(len(part) <= limit for group in groups for part in group):
            return groups
        return [[part[at : at + limit] for part in group for at in range(0, len(part), limit)] for group in groups]

    def _send_group(self, group: list[bytes], plain_end: int, records: list[_Record]) -> int:
        sealed = []
        position = self._wire.position
        sent_ns = monotonic_ns()
        for part in group:
            sealed.append(self._wire.transport.seal(part))
            plain_end += len(part)
            end = position + len(sealed[-1])
            records.append(_Record(plain_end, position, end, sent_ns))
            position = end
        self._wire.push(b"".join(sealed) if len(sealed) > 1 else sealed[0])
        self._wire.flush()
        return plain_end

    def _update_key(self, messages: int) -> None:
        if self._shape.key_update is None:
            return
        self._until_key_update -= messages
        if self._until_key_update <= 0:
            self._until_key_update += self._shape.key_update_every
            self._wire.transport.update_key(self._shape.key_update)
            self._wire.answer()

    def _account(self, waiting: list[tuple[bytes, int]], plains: list[bytes], records: list[_Record]) -> None:
        summary = self._wire.summary
        exact = self._wire.transport.record_max_bytes is None
        at = 0
        plain = 0
        for (body, planned_ns), bytes_of in zip(waiting, plains, strict=True):
            begin_plain, plain = plain, plain + len(bytes_of)
            while at < len(records) and records[at].plain_end <= begin_plain:
                at += 1
            first = at
            while at < len(records) and records[at].plain_end < plain:
                at += 1
            if at == len(records):
                return
            last = records[at]
            # Bytes that are not encrypted lie in the stream one for one.
            begin = records[first].end - (records[first].plain_end - begin_plain) if exact else records[first].begin
            end = last.end - (last.plain_end - plain) if exact else last.end
            if end > self._wire.offset:
                return
            ordinal = summary.messages
            summary.messages += 1
            summary.payload_bytes += len(body)
            summary.late_ns = max(summary.late_ns, last.sent_ns - planned_ns)
            if self._truth.wanted:
                self._truth.add(
                    Sent(
                        connection=summary.connection,
                        peer_port=summary.peer_port,
                        ordinal=ordinal,
                        begin_offset=begin,
                        end_offset=end,
                        planned_ns=planned_ns,
                        sent_ns=last.sent_ns,
                        payload_bytes=len(body),
                    )
                )
