# SPDX-License-Identifier: Apache-2.0
"""docs/matching.md explains every reason that the correlator can give, and none that it cannot."""

from __future__ import annotations

import re
from pathlib import Path

from tickpath.exporter.correlator import Reason


def test_every_reason_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "matching.md").read_text()
    table = page.split("## Reasons")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [
        reason.name.lower() for reason in sorted(Reason) if reason is not Reason.NONE
    ]
