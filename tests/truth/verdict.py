# SPDX-License-Identifier: Apache-2.0
"""Holds every message that the product joined against the model, and counts what is wrong."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tickpath.event import SegmentFlag, Source
from tickpath.exporter.correlator import HOPS, Leg, Match, Reason, Stamp
from tickpath.lab.simulator.truth import Sent
from truth.kernel import KernelTimes, complaints, gaps, ordered
from truth.model import CORRUPTED, FORWARDED, TO_CLIENT, Expected, Stream, streams
from truth.play import Evidence
from truth.scenario import Scenario

_COPIED = 0x01  # tickpath/flow.h, enum tp_span_flag
_SHOWN = 10
_MERGED = (Source.SW_GRO, Source.HW_GRO)


@dataclass
class Verdict:
    """A row of the truth table."""

    scenario: str
    messages: int = 0
    offset: int = 0
    explained: int = 0
    wrong: int = 0
    waits: int = 0
    """Messages that waited for bytes before theirs."""
    copies: int = 0
    """Messages whose last byte came more than once."""
    merged: int = 0
    mixed: int = 0
    """Messages that waited between an exact stamp and a bound (GRO): without in-order arrival, and that is said."""
    corrupt: int = 0
    """Frames with a wrong checksum."""
    pruned: int = 0
    wrapped: int = 0
    """Connections whose sequence numbers passed 2^32."""
    socket: int = 0
    window: int = 0
    """Messages under the lesser methods, which claim no exact frame."""
    reasons: dict[str, int] = field(default_factory=dict)
    readable: int = 0
    copied: int = 0
    kernel: int = 0
    """Messages with own, in-order, readable, copied and received, in that order."""
    lost: int = 0
    """Events that the kernel probe counted as lost: what alone excuses a message without a kernel stamp."""
    seconds: float = 0.0
    untested: list[str] = field(default_factory=list)
    """What the scenario is for and did not happen: another seed may do it."""
    complaints: list[str] = field(default_factory=list)
    """What is wrong, the first few."""

    def complain(self, text: str) -> None:
        self.complaints.append(text)


class _Captures:
    """The wire probe's records by frame number and by the bytes that they claim."""

    def __init__(self, segments: Any) -> None:
        self.by_frame: dict[int, list[Any]] = defaultdict(list)
        self._of_range: dict[tuple[int, int], list[Any]] = defaultdict(list)
        for record in segments[segments["segment"]["length"] > 0]:
            if record["flags"] & SegmentFlag.BAD_CSUM:
                continue
            segment = record["segment"]
            self.by_frame[int(segment["frame"])].append(record)
            self._of_range[int(segment["seq"]), int(segment["length"])].append(record)

    def named(self, frame: int, stamp_ns: int) -> Any | None:
        """The record of that number; the probe counts anew when it is started again, so the stamp has to fit too."""
        for record in self.by_frame[frame]:
            if int(record["time_ns"]) == stamp_ns:
                return record
        return None

    def has(self, frame: Any) -> bool:
        """Whether one frame of the log was captured (GRO off)."""
        return any(
            _inside(int(record["time_ns"]), frame)
            for record in self._of_range[int(frame["seq"]), int(frame["payload_bytes"])]
        )


def _inside(stamp_ns: int, frame: Any) -> bool:
    """Whether a realtime stamp is from the write of that frame."""
    return bool(frame["before_realtime_ns"] <= stamp_ns <= frame["after_realtime_ns"])


class _Judge:
    def __init__(self, scenario: Scenario, evidence: Evidence) -> None:
        self.verdict = Verdict(scenario.name, seconds=evidence.seconds, pruned=evidence.pruned)
        self._scenario = scenario
        self._evidence = evidence
        self._log = evidence.log
        self._gro = scenario.gro_flush_ns is not None
        self._captures = _Captures(evidence.segments)
        self._captured: dict[int, bool] = {}
        self._kernel = None if evidence.kernel is None else KernelTimes(evidence.kernel)
        self._streams = self._by_connection(streams(evidence.log))
        self._sent: dict[tuple[int, int], Sent] = {(e.peer_port, e.ordinal): e for e in evidence.sent}
        sessions = scenario.feeds * (scenario.reconnects + 1)
        # The feeds connect once more before they are stopped: that connection is cut off.
        self._whole = {(e.peer_port, e.ordinal) for e in evidence.sent if e.connection < sessions}

    def _by_connection(self, by_port: dict[int, list[Stream]]) -> dict[int, Stream]:
        """The stream of each client port. What connected from it before the session began was not the feed."""
        ports = {entry.peer_port for entry in self._evidence.sent}
        assert len({e.connection for e in self._evidence.sent}) == len(ports), "a port was used twice"
        return {port: by_port[port][-1] for port in ports}

    def judge(self) -> Verdict:
        verdict, evidence = self.verdict, self._evidence
        log = self._log
        forwarded = (log["direction"] == TO_CLIENT) & (log["fate"] & FORWARDED != 0)
        verdict.corrupt = int((forwarded & (log["fate"] & CORRUPTED != 0)).sum())
        verdict.messages = len(evidence.joined)
        verdict.wrapped = sum(stream.isn + stream.bytes >= 1 << 32 for stream in self._streams.values())
        verdict.lost = evidence.events_lost
        if self._kernel and self._kernel.overlaps:
            self._session_wrong(f"{self._kernel.overlaps} intervals of the kernel probe tell of bytes told before")
        seen: set[tuple[int, int]] = set()
        for result in evidence.joined:
            key = (evidence.ports[int(result["ring"]), int(result["row"])], int(result["ordinal"]))
            before = len(verdict.complaints)
            if key in seen:
                verdict.complain(f"{key}: joined twice")
            seen.add(key)
            self._message(key, result)
            if len(verdict.complaints) > before:
                verdict.wrong += 1
            if len(verdict.complaints) > _SHOWN:
                del verdict.complaints[_SHOWN:]
        self._session(seen)
        return verdict

    def _session(self, seen: set[tuple[int, int]]) -> None:
        verdict, evidence = self.verdict, self._evidence
        snapshot = evidence.snapshot
        if not (len(seen) == evidence.received == sum(snapshot.messages.values())):
            self._session_wrong(f"{evidence.received} received, {len(seen)} joined, {snapshot.messages} counted")
        if sum(snapshot.matched.values()) + sum(snapshot.unmatched.values()) != len(seen):
            self._session_wrong("matched and unmatched are not all")
        if not self._scenario.aborted_after and (lost := self._whole - seen):
            self._session_wrong(f"{len(lost)} messages were sent and not received")
        if evidence.dropped:
            self._session_wrong(f"the probe's socket dropped {evidence.dropped} frames")
        verdict.untested = sorted(what for what in self._scenario.must if not getattr(verdict, what))

    def _session_wrong(self, text: str) -> None:
        self.verdict.complaints.insert(0, text)
        self.verdict.wrong += 1

    def _message(self, key: tuple[int, int], result: Any) -> None:
        verdict = self.verdict
        sent = self._sent.get(key)
        if sent is None:
            verdict.complain(f"{key}: never sent")
            return
        if int(result["end"]) != sent.end_offset or int(result["length"]) != sent.payload_bytes:
            verdict.complain(f"{key}: ends at {result['end']}, was sent to end at {sent.end_offset}")
            return
        want = self._streams[key[0]].expected(sent.end_offset)
        if want is None:
            verdict.complain(f"{key}: was received although a byte of it never came")
            return
        verdict.waits += want.waits
        verdict.copies += len(want.copies) > 1
        self._sums(key, result)
        if self._kernel:
            self._kernel_stamps(key, result, want, self._kernel)
        if int(result["tcp_seq"]) not in ((0, want.seq) if self._scenario.late_probe else (want.seq,)):
            verdict.complain(f"{key}: sequence number {result['tcp_seq']}, not {want.seq}")
        if int(result["method"]) == Match.OFFSET:
            verdict.offset += 1
            self._offset(key, result, want)
        else:
            self._not_offset(key, result, want)

    # --- joined by offset ---

    def _offset(self, key: tuple[int, int], result: Any, want: Expected) -> None:
        verdict = self.verdict
        own = self._log[want.own]
        source = Source(int(result["source"]))
        stamp_ns = int(result["own_ns"]) + int(result["offset_ns"])
        if source is Source.SOCK:
            if not any(_inside(stamp_ns, self._log[place]) for place in want.copies):
                verdict.complain(f"{key}: the socket's stamp is of no frame that brought the byte")
            return
        record = self._captures.named(int(result["frame"]), stamp_ns)
        if record is None:
            verdict.complain(f"{key}: frame {result['frame']} with stamp {stamp_ns} was never captured")
            return
        if record["flags"] & SegmentFlag.MERGED and source not in _MERGED:
            verdict.complain(f"{key}: source {source.name} for a frame with flags {record['flags']}")
        if self._gro:
            self._own_merged(key, result, record, own, want)
        elif (int(record["segment"]["seq"]), int(record["segment"]["length"])) != (own["seq"], own["payload_bytes"]):
            verdict.complain(f"{key}: frame {result['frame']} has another sequence range than the one that brought it")
        elif not _inside(stamp_ns, own):
            verdict.complain(
                f"{key}: stamped {stamp_ns - own['before_realtime_ns']} ns after the frame's write began, "
                f"which took {own['after_realtime_ns'] - own['before_realtime_ns']}"
            )
        verdict.merged += bool(record["flags"] & SegmentFlag.MERGED)
        self._in_order(key, result, want)
        self._copies(key, result, want)

    def _own_merged(self, key: tuple[int, int], result: Any, record: Any, own: Any, want: Expected) -> None:
        """A stamp under GRO is an upper bound, of the first captured frame that holds the byte."""
        segment = record["segment"]
        if (want.seq - int(segment["seq"])) % (1 << 32) >= int(segment["length"]):
            self.verdict.complain(f"{key}: frame {segment['frame']} does not hold the byte")
        if int(result["own_ns"]) + int(result["offset_ns"]) < own["before_realtime_ns"]:
            self.verdict.complain(f"{key}: stamped before the frame was written")
        # With NAPI the stack is entered by a softirq, which a busy host may run long after the write: what `sw` says is
        # the entry, so that the one bound from above is that the message cannot have been received before it.
        if int(result["own_ns"]) > int(result["received_ns"]):
            self.verdict.complain(f"{key}: stamped after the message was received")

    def _in_order(self, key: tuple[int, int], result: Any, want: Expected) -> None:
        verdict = self.verdict
        if not int(result["stamps"]) & Stamp.IN_ORDER:
            reason = Reason(int(result["missing"][Leg.HOL_WAIT]))
            # Under GRO the wait may lie between an exact stamp and a bound: it is not measured, and that is said.
            mixed = reason is Reason.MIXED_SOURCES and self._gro and want.waits
            verdict.mixed += mixed
            if not mixed and (reason is not Reason.WIRE_GAP or not self._gap_before(key[0], want)):
                verdict.complain(f"{key}: no in-order arrival, reason {reason.name}")
            return
        frame = self._log[want.in_order]
        stamp_ns = int(result["in_order_ns"]) + int(result["offset_ns"])
        if self._gro:
            if stamp_ns < frame["before_realtime_ns"]:
                verdict.complain(f"{key}: in-order arrival before the frame was written")
        elif not _inside(stamp_ns, frame):
            verdict.complain(
                f"{key}: in-order arrival {stamp_ns - frame['before_realtime_ns']} ns after its write began"
            )
        blocked = bool(result["blocked"])
        if blocked != want.waits or (int(result["leg_ns"][Leg.HOL_WAIT]) > 0) != want.waits:
            verdict.complain(f"{key}: hol_wait {result['leg_ns'][Leg.HOL_WAIT]} ns; caused: {want.waits}")

    def _gap_before(self, port: int, want: Expected) -> bool:
        """Whether a frame that brought a byte before the message end was not captured."""
        return not all(map(self._has, self._streams[port].arrivals(0, want.end)))

    def _has(self, place: int) -> bool:
        if place not in self._captured:
            self._captured[place] = self._captures.has(self._log[place])
        return self._captured[place]

    def _copies(self, key: tuple[int, int], result: Any, want: Expected) -> None:
        told = bool(int(result["span_flags"]) & _COPIED)
        if told and len(want.copies) == 1:
            self.verdict.complain(f"{key}: told as retransmitted; it was not")
        copy_ns = int(result["last_copy_ns"]) + int(result["offset_ns"])
        if told and not self._gro and not any(_inside(copy_ns, self._log[place]) for place in want.copies[1:]):
            self.verdict.complain(f"{key}: the last copy's time is that of no copy")
        # What came after the message was complete need not be waited for.
        early = any(self._log[place]["after_ns"] < self._log[want.in_order]["before_ns"] for place in want.copies[1:])
        if early and not told and not self._gro and self._has(want.copies[1]):
            self.verdict.complain(f"{key}: not told as retransmitted, and a copy came before it was complete")

    # --- the rest ---

    def _not_offset(self, key: tuple[int, int], result: Any, want: Expected) -> None:
        verdict = self.verdict
        reason = Reason(int(result["reason"]))
        verdict.reasons[reason.name.lower()] = verdict.reasons.get(reason.name.lower(), 0) + 1
        verdict.socket += int(result["method"]) == Match.SOCKET
        verdict.window += int(result["method"]) == Match.WINDOW
        if reason not in self._scenario.excuses:
            verdict.complain(f"{key}: reason {reason.name}, for which nothing was done")
        elif reason is Reason.WIRE_GAP and self._has(want.own):
            verdict.complain(f"{key}: reason WIRE_GAP, and its frame was captured")
        elif reason is Reason.WIRE_GAP and (result["method"] or int(result["stamps"]) & Stamp.OWN):
            verdict.complain(f"{key}: a guess where the stream's base is known: method {result['method']}")
        else:
            verdict.explained += 1

    def _kernel_stamps(self, key: tuple[int, int], result: Any, want: Expected, times: KernelTimes) -> None:
        verdict = self.verdict
        for text in complaints(result, want, self._log, times):
            verdict.complain(f"{key}: {text}")
        explained = gaps(result, times)
        for reason in explained:
            verdict.reasons[reason.name.lower()] = verdict.reasons.get(reason.name.lower(), 0) + 1
        if explained and not verdict.lost:
            verdict.complain(f"{key}: {explained[0].name}, and no event was lost")
        verdict.readable += bool(int(result["stamps"]) & Stamp.READABLE)
        verdict.copied += bool(int(result["stamps"]) & Stamp.COPIED)
        verdict.kernel += ordered(result)

    def _sums(self, key: tuple[int, int], result: Any) -> None:
        """What is there adds up, in integers."""
        legs = {leg: int(result["leg_ns"][leg]) for leg in Leg if int(result["legs"]) & 1 << leg}
        user = [Leg.NIC_TO_USER] if Leg.NIC_TO_USER in legs else [Leg.NIC_TO_KERNEL, Leg.KERNEL_TO_USER]
        whole = [Leg.BN_TO_NIC, *user, Leg.CPU, Leg.MSK]
        if all(leg in legs for leg in whole):
            if sum(legs[leg] for leg in whole) != legs.get(Leg.TOTAL):
                self.verdict.complain(f"{key}: the hops do not add up to the total")
            if sum(legs[leg] for leg in whole[1:]) != legs.get(Leg.IN_HOST):
                self.verdict.complain(f"{key}: the hops do not add up to in_host")
        elif int(result["method"]) == Match.OFFSET:
            missing = [leg.name for leg in (*HOPS, Leg.NIC_TO_USER) if leg not in legs]
            self.verdict.complain(f"{key}: joined by offset, and without {', '.join(missing)}")
        if Leg.HOL_WAIT in legs and legs[Leg.HOL_WAIT] != int(result["in_order_ns"]) - int(result["own_ns"]):
            self.verdict.complain(f"{key}: hol_wait is not in-order minus own arrival")


def judge(scenario: Scenario, evidence: Evidence) -> Verdict:
    """Every message of the session, one by one."""
    return _Judge(scenario, evidence).judge()
