# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""What record.h says, read out of the compiled header; and its hash."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "lab/shuttle/record.h" nogil:
    cdef enum:
        TP_TRUTH_HEADER_BYTES
        TP_TO_CLIENT, TP_TO_SERVER
        TP_FATE_FORWARDED, TP_FATE_DROPPED, TP_FATE_CORRUPTED, TP_FATE_COPY, TP_FATE_DELAYED
        TP_FATE_HELD, TP_FATE_SWAPPED, TP_FATE_REFUSED, TP_FATE_UNSENT

    cdef struct tp_truth:
        uint64_t number
        uint64_t candidate
        uint64_t hash
        int64_t read_ns
        int64_t before_ns
        int64_t after_ns
        int64_t before_realtime_ns
        int64_t after_realtime_ns
        uint32_t length
        uint16_t fate
        uint8_t direction
        uint8_t copy
        uint8_t source[16]
        uint8_t destination[16]
        uint16_t source_port
        uint16_t destination_port
        uint32_t seq
        uint32_t ack
        uint32_t payload_bytes
        uint8_t tcp_flags
        uint8_t version

    uint64_t tp_frame_hash(const uint8_t *bytes, uint32_t length)


cdef tp_truth truth


cdef object _at(void *field, size_t size, str kind):
    return (<char *>field - <char *>&truth, f"{kind}{size}")


RECORD = {
    "number": _at(&truth.number, sizeof(truth.number), "u"),
    "candidate": _at(&truth.candidate, sizeof(truth.candidate), "u"),
    "hash": _at(&truth.hash, sizeof(truth.hash), "u"),
    "read_ns": _at(&truth.read_ns, sizeof(truth.read_ns), "i"),
    "before_ns": _at(&truth.before_ns, sizeof(truth.before_ns), "i"),
    "after_ns": _at(&truth.after_ns, sizeof(truth.after_ns), "i"),
    "before_realtime_ns": _at(&truth.before_realtime_ns, sizeof(truth.before_realtime_ns), "i"),
    "after_realtime_ns": _at(&truth.after_realtime_ns, sizeof(truth.after_realtime_ns), "i"),
    "length": _at(&truth.length, sizeof(truth.length), "u"),
    "fate": _at(&truth.fate, sizeof(truth.fate), "u"),
    "direction": _at(&truth.direction, sizeof(truth.direction), "u"),
    "copy": _at(&truth.copy, sizeof(truth.copy), "u"),
    "source": _at(&truth.source, sizeof(truth.source), "V"),
    "destination": _at(&truth.destination, sizeof(truth.destination), "V"),
    "source_port": _at(&truth.source_port, sizeof(truth.source_port), "u"),
    "destination_port": _at(&truth.destination_port, sizeof(truth.destination_port), "u"),
    "seq": _at(&truth.seq, sizeof(truth.seq), "u"),
    "ack": _at(&truth.ack, sizeof(truth.ack), "u"),
    "payload_bytes": _at(&truth.payload_bytes, sizeof(truth.payload_bytes), "u"),
    "tcp_flags": _at(&truth.tcp_flags, sizeof(truth.tcp_flags), "u"),
    "version": _at(&truth.version, sizeof(truth.version), "u"),
}
RECORD_BYTES = sizeof(tp_truth)
HEADER_BYTES = TP_TRUTH_HEADER_BYTES
DIRECTION = {"TO_CLIENT": TP_TO_CLIENT, "TO_SERVER": TP_TO_SERVER}
FATE = {
    "FORWARDED": TP_FATE_FORWARDED, "DROPPED": TP_FATE_DROPPED, "CORRUPTED": TP_FATE_CORRUPTED,
    "COPY": TP_FATE_COPY, "DELAYED": TP_FATE_DELAYED, "HELD": TP_FATE_HELD, "SWAPPED": TP_FATE_SWAPPED,
    "REFUSED": TP_FATE_REFUSED, "UNSENT": TP_FATE_UNSENT,
}


def frame_hash(const uint8_t[::1] frame not None) -> int:
    return tp_frame_hash(&frame[0] if frame.shape[0] else NULL, <uint32_t>frame.shape[0])
