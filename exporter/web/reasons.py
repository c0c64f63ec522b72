# SPDX-License-Identifier: Apache-2.0
"""Reasons as the correlator counts them, in words an operator can act on."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "no_wire": "no wire stamp; tickpath probe wire would give it",
    "no_flow": "the wire probe did not see this connection",
    "ambiguous_flow": "two flows or connections fit",
    "no_base": "where the stream begins is not known",
    "wire_gap": "a byte that matters was never captured",
    "sock_not_last": "only the socket's stamp, and the message does not end the read",
    "tier_c": "the message end is only bounded from above",
    "evicted": "given up early: too many messages waited",
    "row_lost": "the connection's row was overwritten before it was read",
    "clock_step": "a stamp lies near a step of its clock",
    "clock_unknown": "nobody publishes readings of the stamp's clock",
    "mixed_sources": "own and in-order arrival were stamped by different sources",
    "sock": "the socket's stamp says nothing about the bytes before",
    "no_kernel": "no kernel probe runs on this host",
    "no_socket": "the kernel probe saw nothing of this connection",
    "readable_gap": "a readable event was lost",
    "copied_gap": "a copied event was lost",
    "no_read": "the read that returned the message is not known",
    "no_exchange": "the message carries no event time",
    "no_decode": "the feed did not say when decoding began",
    "not_parsed": "its JSON was not read",
    "not_published": "it was not handed on",
    "wide_lost": "its second record was lost",
}


def reason_in_words(reason: str) -> str:
    """What the reason means; one that is not known here speaks for itself."""
    return WORDS.get(reason, reason.replace("_", " "))
