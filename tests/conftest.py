# SPDX-License-Identifier: Apache-2.0
"""What tests share: the installed package, also in processes that they start, and a clock that nobody sets."""

from __future__ import annotations

import fcntl
import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# A deadline for each example is a timed test, which a busy machine fails. Where a change is judged, examples are the
# same in each run: what lands must not hang on those that were drawn that day. Elsewhere every run draws new ones.
_REPEATABLE = "REPEATABLE_TESTS" in os.environ
hypothesis.settings.register_profile("untimed", deadline=None, derandomize=_REPEATABLE)
hypothesis.settings.load_profile("untimed")

# Else `python -c` in the checkout would import the tree, which has no native parts.
os.environ["PYTHONSAFEPATH"] = "1"
# Else numpy starts a thread that spins for a while, here and in each script of a test.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting makes stays to the end: it is not looked through for garbage, meanwhile or with each test's."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _host_clock(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep a test that sets the host's clock apart from all others: the product rightly tells them of the step."""
    mode = fcntl.LOCK_EX if request.node.get_closest_marker("sets_clock") else fcntl.LOCK_SH
    stem = f"{tempfile.gettempdir()}/tickpath-tests-{os.getuid()}"
    with Path(f"{stem}.turn").open("a") as turn, Path(f"{stem}.clock").open("a") as clock:
        # Who waits for the clock holds the turn, or others who share it would never let it go.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(clock, mode)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
        # Said, not left to closing: a process that a test forked may still hold the file.
        fcntl.flock(clock, fcntl.LOCK_UN)
