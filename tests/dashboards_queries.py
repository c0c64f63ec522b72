# SPDX-License-Identifier: Apache-2.0
"""The dashboards as they are committed, and their queries run against a Prometheus as Grafana would run them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.prometheus import Api

FOLDER = Path(__file__).parent.parent / "dashboards"
DIALECTS = ("native", "classic")
# Why a query may return nothing over a simulated exchange. All others must return something.
MAY_BE_EMPTY = {
    "tickpath_feed_gaps_total": "the simulator leaves out no sequence number",
    "tickpath_wire_frames_discarded_total": "the capture loses nothing at this pace",
    "tickpath_wire_interface_lost_total": "loopback stays up",
    "tickpath_ring_unreadable": "every ring is usable",
    "tickpath_rows_exhausted_total": "two connections fill no table",
    "tickpath_kernel_events_lost_total": "the kernel probe loses nothing at this pace",
    "tickpath_kernel_runs_left_out_total": "nothing interrupts the programs for which none stands in",
    "tickpath_kernel_unsupported_connections_total": "loopback is plain TCP",
    "tickpath_parse_failures_total": "the simulator sends JSON",
    "tickpath_protocol_errors_total": "the simulator keeps to the protocol",
    "tickpath_publish_dropped_messages_total": "nobody subscribes slowly",
    'result="failed"': "the simulator accepts every connection",
    "tickpath_clock_uncertainty_seconds{.*} < Inf": "the host's clock may be synchronised by nobody",
    "tickpath_ping_": "nobody is pinged",
    "tickpath_probe_cost_seconds_total": "the host keeps BPF statistics with `--cost` alone",
    "tickpath_evicted_total.* > 0": "the correlator has room for what comes",
    'part="hol_wait".* and on': "loopback neither loses nor reorders: no message waits for others' bytes",
}


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


def excused(query: PanelQuery) -> str | None:
    """Why it may return nothing."""
    return next((why for pattern, why in MAY_BE_EMPTY.items() if re.search(pattern, query.expr)), None)


def substituted(expr: str, variables: Mapping[str, str]) -> str:
    """The query with Grafana's variables filled in; none may be left over."""
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(f"${name}", variables[name])
    assert "$" not in expr, f"a variable that nobody fills in: {expr}"
    return expr


def series(prometheus: Api, query: PanelQuery, variables: Mapping[str, str], seconds: int = 60) -> int:
    """How many series the query returns over the last so many seconds that have a number, which NaN is not.

    RuntimeError: Prometheus refuses the query.
    """
    expr = substituted(query.expr, variables)
    if query.instant:
        found = prometheus.get("/api/v1/query", query=expr)["result"]
        points = [([one["value"]] if "value" in one else [], "histogram" in one) for one in found]
    else:
        now = time.time()
        found = prometheus.get("/api/v1/query_range", query=expr, start=now - seconds, end=now, step=2)["result"]
        points = [(one.get("values", []), "histograms" in one) for one in found]
    return sum(histograms or any(value != "NaN" for _, value in values) for values, histograms in points)
