# SPDX-License-Identifier: Apache-2.0
"""What a stop leaves: everything that was over by then is recorded, whoever stands still amid a program."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernel.holding import compiled, held
from kernel.tracing import Server, Tracing, assert_covers_once, traced
from tickpath.event import Kind


@traced
@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang here")
def test_records_behind_one_that_is_still_being_filled_are_waited_for(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    with Server() as server, Tracing(tmp_path, [server.selector]) as tracing:
        peers = server.connect()
        with held(program, 0.3):
            for _ in range(10):
                peers.send(3)
                peers.read(3)
            tracing.stop()
        for kind in (Kind.READABLE, Kind.COPIED):
            assert_covers_once(tracing.of(kind, peers.cookie), 30)
