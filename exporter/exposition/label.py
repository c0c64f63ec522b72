# SPDX-License-Identifier: Apache-2.0
"""Text that is safe to show: names of feeds, venues and rings come from other processes, and may hold anything."""

from __future__ import annotations


def label(text: str) -> str:
    """The same text where it can be encoded as UTF-8; what cannot (lone surrogates) as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """The same text for a terminal: what would move the cursor, ring a bell or recolour the screen is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in label(text))
