# SPDX-License-Identifier: Apache-2.0
"""Reasons as the correlator counts them, in words, with what would help."""

from __future__ import annotations

from collections.abc import Mapping

_WORDS: Mapping[str, str] = {
    "no_wire": "no wire stamp: start tickpath probe wire, or let the socket's own stamps count with --match",
    "no_kernel": "no kernel probe runs on this host",
    "no_exchange_time": "the venue sends no event time in this stream",
    "wire_gap": "a byte that matters was never captured",
    "ambiguous_flow": "two connections could be meant",
}


def reason_in_words(reason: str) -> str:
    """What the reason means; one that is not known here speaks for itself."""
    return _WORDS.get(reason, reason.replace("_", " "))
