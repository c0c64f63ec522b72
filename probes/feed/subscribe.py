# SPDX-License-Identifier: Apache-2.0
"""`tickpath sub`: prints what a feed publishes, the record of each message decoded."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass

import numpy as np
import zmq

from tickpath.command import Command
from tickpath.errors import ConfigError
from tickpath.event import RECORD, RECORD_BYTES, Kind, MessageFlag

_DEFAULT = "tcp://127.0.0.1:5555"


@dataclass(frozen=True)
class Published:
    """One published message; times in nanoseconds, None where the record does not hold them."""

    topic: str
    bytes: int
    ordinal: int
    end: int
    exchange_ns: int | None
    received_ns: int
    decode_ns: int | None
    cpu_ns: int | None


def decode(topic: bytes, payload: bytes, record: bytes) -> Published | None:
    """Three frames as a feed sends them; None where the third is no record of a message."""
    if len(record) not in (RECORD_BYTES, 2 * RECORD_BYTES):
        return None
    records = np.frombuffer(record, RECORD)
    first = records[0]
    if first["kind"] != Kind.MESSAGE:
        return None
    flags = MessageFlag(int(first["flags"]) & ~0x03)
    message = first["message"]
    spans = records[-1]["wide"] if MessageFlag.WIDE in flags and len(records) == 2 else message
    return Published(
        topic=topic.decode(errors="replace"),
        bytes=len(payload),
        ordinal=int(message["ordinal"]),
        end=int(message["end"]),
        exchange_ns=int(message["exchange_ns"]) if MessageFlag.HAS_EXCHANGE in flags else None,
        received_ns=int(first["time_ns"]),
        decode_ns=int(spans["decode_ns"]) if MessageFlag.HAS_DECODE in flags else None,
        cpu_ns=int(spans["parsed_ns"]) if MessageFlag.HAS_PARSED in flags else None,
    )


def _line(message: Published) -> str:
    parts = [f"{message.topic} ordinal={message.ordinal} bytes={message.bytes} end={message.end}"]
    parts += [f"E={message.exchange_ns}" if message.exchange_ns is not None else "E=-"]
    parts += [f"decode={message.decode_ns / 1e3:.1f}µs" if message.decode_ns is not None else "decode=-"]
    parts += [f"CPU={message.cpu_ns / 1e3:.1f}µs" if message.cpu_ns is not None else "CPU=-"]
    return " ".join(parts)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="?", default=_DEFAULT, metavar="ADDRESS", help=f"default {_DEFAULT}")
    parser.add_argument("--topic", default="", help="only topics that begin so, e.g. binance-usdm/btcusdt@trade")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N messages")
    parser.add_argument("--json", action="store_true", help="one JSON object a message, the message itself included")


def _run(arguments: argparse.Namespace) -> int:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.connect(arguments.address)
        socket.setsockopt(zmq.SUBSCRIBE, arguments.topic.encode())
        left = arguments.count
        while left is None or left > 0:
            frames = socket.recv_multipart()
            message = decode(*frames) if len(frames) == 3 else None
            if message is None:
                print(f"tickpath sub: skipped a message of {len(frames)} frames that no feed sent", file=sys.stderr)
                continue
            if arguments.json:
                shown = {**vars(message), "payload": frames[1].decode(errors="replace")}
                print(json.dumps(shown), flush=True)
            else:
                print(_line(message), flush=True)
            if left is not None:
                left -= 1
    except zmq.ZMQError as error:
        raise ConfigError(f"cannot subscribe to {arguments.address!r}: {error.strerror}") from None
    finally:
        socket.close(linger=0)
        context.term()
    return 0


COMMAND = Command("print what a feed publishes", _add_arguments, _run)
