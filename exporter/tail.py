# SPDX-License-Identifier: Apache-2.0
"""One message as one line: for a person's eyes, or as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tickpath.errors import ConfigError
from tickpath.exporter.exposition.label import printable
from tickpath.exporter.exposition.units import human

_HOPS = (
    ("BN->NIC", "bn_to_nic"),
    ("NIC->Kernel", "nic_to_kernel"),
    ("Kernel->User", "kernel_to_user"),
    ("CPU", "cpu"),
    ("MSK", "msk"),
    ("Total", "total"),
)
# The hops on both sides of a kernel stamp that nobody took, shown as the one span that is known.
_KERNEL_HOPS = ("nic_to_kernel", "kernel_to_user")
_SPANS = ("total", "in_host", "nic_to_user")

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ns|us|µs|ms|s)", re.ASCII)

_PLAIN = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_RED = "\x1b[31m"


class Message(msgspec.Struct, frozen=True):
    """What is known of one message once it is finalised; times in nanoseconds.

    `legs` holds hops, parts and spans that are known, `missing` the reason for each that is not. `connection` is the
    socket's cookie (0: unknown), `tcp_seq` the raw sequence number of the message's last byte, None where the stream's
    beginning is unknown. `source` is who took the wire stamp, `method` how it was found, both "" where none was.
    """

    venue: str
    feed: str
    connection: int
    ordinal: int
    tcp_seq: int | None
    tier: str
    source: str
    method: str
    legs: Mapping[str, int]
    missing: Mapping[str, str]

    @property
    def longest_ns(self) -> int | None:
        """The longest span that is known: total, unless the clocks disagree so much that what it holds is longer."""
        return max((self.legs[span] for span in _SPANS if span in self.legs), default=None)


def parse_duration_ns(text: str) -> int:
    """`5ms`, `250us`, `1.5s` in nanoseconds. Raises ConfigError."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"{text!r} is not a duration such as 5ms, 250us or 1.5s")
    whole, _, fraction = found[1].partition(".")
    unit = _UNITS_NS[found[2]]
    scale: int = 10 ** len(fraction)
    return int(whole) * unit + int(fraction or 0) * unit // scale


def _word(name: str) -> str:
    """A name as one word: one that holds a space or `=` could pass for more fields, and is quoted."""
    text = printable(name)
    return msgspec.json.encode(text).decode() if not text or re.search(r'[\s="]', text) else text


def _value(message: Message, leg: str, *, colour: bool) -> str:
    ns = message.legs.get(leg)
    if ns is None:
        text = f"-({message.missing.get(leg, 'unknown')})"
        return f"{_DIM}{text}{_PLAIN}" if colour else text
    text = human(ns).replace(" ", "")
    if not colour:
        return text
    paint = _RED if ns < 0 else _BOLD if leg == "total" else ""
    return f"{paint}{text}{_PLAIN}" if paint else text


def render_text(message: Message, *, colour: bool = False) -> str:
    """`[delay] feed= ordinal= tcp_seq= BN->NIC= … Total=`; what is unknown is `-(reason)`."""
    words = [
        "[delay]",
        f"feed={_word(message.feed)}",
        f"ordinal={message.ordinal}",
        f"tcp_seq={'-' if message.tcp_seq is None else message.tcp_seq}",
    ]
    span_instead = "nic_to_user" in message.legs and not any(hop in message.legs for hop in _KERNEL_HOPS)
    for shown, leg in _HOPS:
        if span_instead and leg in _KERNEL_HOPS:
            if leg == _KERNEL_HOPS[0]:
                words.append(f"NIC->User={_value(message, 'nic_to_user', colour=colour)}")
            continue
        words.append(f"{shown}={_value(message, leg, colour=colour)}")
    return " ".join(words)


def render_json(message: Message) -> str:
    """The same, complete, as one JSON object: hops, parts and spans as `NAME_ns`."""
    # JSON has no lone surrogates: names that hold some come as the escapes that they are shown with.
    fields: dict[str, object] = {
        "venue": printable(message.venue),
        "feed": printable(message.feed),
        # As an exemplar names it.
        "connection": f"{message.connection:x}" if message.connection else None,
        "ordinal": message.ordinal,
        "tcp_seq": message.tcp_seq,
        "tier": message.tier,
        "source": message.source,
        "method": message.method,
    }
    fields |= {f"{leg}_ns": ns for leg, ns in message.legs.items()}
    fields["missing"] = message.missing
    return msgspec.json.encode(fields).decode()
