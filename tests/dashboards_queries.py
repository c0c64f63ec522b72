# SPDX-License-Identifier: Apache-2.0
"""The dashboards as they are committed, and their queries run against a Prometheus as Grafana would run them."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "dashboards"
DIALECTS = ("native", "classic")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class PanelQuery:
    """One target of one panel."""

    board: str
    panel: str
    ref: str
    expr: str
    kind: str
    instant: bool

    @property
    def where(self) -> str:
        return f"{self.board} / {self.panel} / {self.ref}"


def boards(dialect: str) -> dict[str, dict[str, Any]]:
    """Name to JSON of each committed dashboard."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / dialect).glob("*.json"))}


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every panel that shows something: rows are headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(dialect: str) -> Iterator[PanelQuery]:
    """Every query of every dashboard of a set."""
    for name, board in boards(dialect).items():
        for panel in panels(board):
            for target in panel["targets"]:
                instant = bool(target.get("instant"))
                yield PanelQuery(name, panel["title"], target["refId"], target["expr"], panel["type"], instant)


def substituted(expr: str, variables: Mapping[str, str]) -> str:
    """The query with Grafana's variables filled in; none may be left over."""
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(f"${name}", variables[name])
    assert "$" not in expr, f"a variable that nobody fills in: {expr}"
    return expr


def ask(prometheus: str, path: str, **parameters: str) -> Any:
    """`data` of an answer of Prometheus's API; its own message where it refuses."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with _OPENER.open(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{json.load(error).get('error')}: {parameters}") from None


def samples(prometheus: str, query: PanelQuery, variables: Mapping[str, str], seconds: int = 60) -> list[list[Any]]:
    """Series that the query returns over the last so many seconds, each with its numbers; NaN is none.

    A native histogram counts by how many values it holds.
    """
    expr = substituted(query.expr, variables)
    if query.instant:
        found = ask(prometheus, "query", query=expr)["result"]
        points = [
            ([one["value"]] if "value" in one else [], [one["histogram"]] if "histogram" in one else [])
            for one in found
        ]
    else:
        now = time.time()
        span = {"start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": "2"}
        found = ask(prometheus, "query_range", query=expr, **span)["result"]
        points = [(one.get("values", []), one.get("histograms", [])) for one in found]
    series = []
    for values, histograms in points:
        numbers = [value for _, value in values if value != "NaN"] + [one["count"] for _, one in histograms]
        if numbers:
            series.append(numbers)
    return series
