# SPDX-License-Identifier: Apache-2.0
"""Beside other pingers on one path, under load, tickpath's counts are the shuttle's to the ping."""

from __future__ import annotations

import os
import shutil

import pytest

from ping.beside import compare, counts, wrong

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and TAP devices"),
    pytest.mark.skipif(not (shutil.which("fping") and shutil.which("ping")), reason="needs fping and iputils-ping"),
]
COUNT = 150


def test_counts_are_exact_while_others_compute() -> None:
    found = compare(COUNT, 0.005, loops=2)
    assert [len(of.held) + len(of.gone) for of in found] == [COUNT] * 4, "each pinger's frames are told apart"
    assert wrong(found[0], COUNT) == []
    assert sum(sum(counts(of).values()) for of in found) > 3
    system = found[1].said
    # It may have stopped listening before the last of them came.
    assert system.lost >= len(found[1].gone)
    assert (system.double or 0) <= found[1].copies
