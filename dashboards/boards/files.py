# SPDX-License-Identifier: Apache-2.0
"""Every dashboard, in both dialects, as the text of the file that is committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from boards.capture import capture
from boards.clocks import clocks
from boards.feed import feed
from boards.fleet import fleet
from boards.frame import Frame, Name
from boards.queries import Dialect
from boards.region import region

FOLDER = Path(__file__).parent.parent
_MAKERS = {Name.FLEET: fleet, Name.REGION: region, Name.FEED: feed, Name.CLOCKS: clocks, Name.CAPTURE: capture}


def path_of(dialect: Dialect, name: Name) -> Path:
    """Where a dashboard is committed."""
    return FOLDER / dialect / f"{name}.json"


def encode(board: Dashboard) -> str:
    """Grafana's JSON, in one form only."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Path and text of each dashboard."""
    for dialect in Dialect:
        frame = Frame(dialect)
        for name, make in _MAKERS.items():
            yield path_of(dialect, name), encode(make(frame))
