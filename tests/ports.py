# SPDX-License-Identifier: Apache-2.0
"""A port of loopback on which a test has nobody listen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tickpath.lab.ports import HeldPort


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that only who asks for it by number is given: until then nobody listens there."""
    with contextlib.closing(HeldPort()) as held:
        yield held.number
