# SPDX-License-Identifier: Apache-2.0
"""Recordings for the simulator's tests: small ones written here, the real ones where they are at hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.generator import Generator

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
# The repository may itself be a worktree, one level further down.
REAL_HERE = REAL if REAL.is_dir() else REAL.parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings."""
    if not REAL_HERE.is_dir():
        pytest.skip("the real recordings (../shared/data) are not here")
    return REAL_HERE


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 messages in the form `local_receive_time_ns json`, combined, about a second long."""
    path = tmp_path_factory.mktemp("recording") / "usdm.ws.txt"
    with path.open("wb") as file:
        for message in itertools.islice(Generator(Venue.USDM, 7), 300):
            wrapped = b'{"stream":"%b","data":%b}' % (message.stream.encode(), message.body)
            file.write(b"%d %b\n" % (message.time_ns, wrapped))
    return path
