# SPDX-License-Identifier: Apache-2.0
"""The committed dashboards: current, loadable, linked, explained, and about metrics that there are."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from boards.files import FOLDER, files
from boards.runbooks import runbooks
from dashboards_queries import DIALECTS, boards, panels, queries
from exporter_samples import observation
from tickpath.exporter.exposition.negotiation import Format
from tickpath.exporter.exposition.page import MetricsPage

BOARDS = [(dialect, name) for dialect in DIALECTS for name in boards(dialect)]
# Of other parts of the stack: Prometheus itself, and Python's process metrics, which the exporter adds.
ELSEWHERE = {"ALERTS"}
_HISTOGRAM = re.compile(r"(?<=_seconds)_(?:bucket|sum|count)$")


def _board(dialect: str, name: str) -> dict[str, Any]:
    return boards(dialect)[name]


def test_the_committed_files_are_what_the_source_makes() -> None:
    made = dict(files()) | dict(runbooks())
    committed = {path for folder in (*DIALECTS, "runbooks") for path in (FOLDER / folder).iterdir()}
    assert committed == set(made)
    stale = [str(path.relative_to(FOLDER)) for path, text in made.items() if path.read_text() != text]
    assert not stale, f"`make dashboards` writes other text for {stale}"


def _keys(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _keys(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _keys(inner, f"{path}[{at}]")
    else:
        yield path, value


@pytest.mark.parametrize(("dialect", "name"), BOARDS)
def test_no_key_vanishes_when_grafanas_types_read_a_dashboard(dialect: str, name: str) -> None:
    register_default_plugins()
    board = _board(dialect, name)
    read = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    lost = dict(_keys(board)).items() - dict(_keys(read)).items()
    assert not lost


def test_a_misspelt_key_would_be_found() -> None:
    register_default_plugins()
    board = _board("native", "region")
    board["panels"][1]["fieldConfig"]["defaults"]["untis"] = "s"
    read = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert dict(_keys(board)).items() - dict(_keys(read)).items()


@pytest.mark.parametrize(("dialect", "name"), BOARDS)
def test_every_panel_has_a_unit_a_meaning_thresholds_and_a_reason_to_be_empty(dialect: str, name: str) -> None:
    board = _board(dialect, name)
    assert board["description"]
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles)) > 5
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 10, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["thresholds"]["steps"], panel["title"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], panel["title"]
        # What would fill it: each metric that its queries ask for.
        asked = {_HISTOGRAM.sub("", metric) for target in panel["targets"] for metric in _metrics(target["expr"])}
        asked -= {"tickpath_build_info"} if len(asked) > 1 else set()
        assert all(metric in defaults["noValue"] for metric in asked), (panel["title"], asked, defaults["noValue"])


def _metrics(expr: str) -> set[str]:
    """Names that stand where PromQL has metrics: not a label's, a value's or a function's."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|on|group_left)\s*\([^)]*\)", "", bare)
    words = set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare))
    return words - {"and", "or", "unless", "bool", "Inf", "sum", "count", "min", "max", "by", "on", "group_left"}


def _exported() -> dict[str, set[str]]:
    """Family names of a page with everything on it, each with the labels of its samples."""
    page = MetricsPage(observation).render(Format.TEXT).decode()
    found: dict[str, set[str]] = {line.split()[2]: set() for line in page.splitlines() if line.startswith("# TYPE")}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels = re.findall(r'(\w+)="', rest.rpartition("}")[0])
            found.setdefault(name.split()[0], set()).update(labels)
    return found


def test_every_query_asks_for_a_metric_that_the_exporter_has() -> None:
    exported = _exported()
    assert not {name for name, labels in exported.items() if "region" in labels}
    for dialect in DIALECTS:
        for query in queries(dialect):
            for metric in _metrics(query.expr):
                family = _HISTOGRAM.sub("", metric)
                assert metric in exported or family in exported or family in ELSEWHERE, (query.where, metric)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_query_is_of_the_chosen_regions(dialect: str) -> None:
    for query in queries(dialect):
        assert 'region=~"$region"' in query.expr, query.where


def test_quantiles_are_never_stacked() -> None:
    """Averages add up, P99s do not."""
    stacked = set()
    for dialect, name in BOARDS:
        for panel in panels(_board(dialect, name)):
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            if custom.get("stacking", {}).get("mode", "none") != "none":
                stacked.add(panel["title"])
                assert not any("quantile" in target["expr"] for target in panel["targets"]), panel["title"]
    assert stacked == {"Average: where the time goes", "Parts, average"}


def test_both_dialects_show_the_same_and_ask_in_their_own_way() -> None:
    for name in boards("native"):
        native, classic = (_board(dialect, name) for dialect in ("native", "classic"))
        assert [p["title"] for p in native["panels"]] == [p["title"] for p in classic["panels"]]
    for query in queries("native"):
        assert "_bucket" not in query.expr, query.where
        assert "tickpath_negative" not in query.expr, query.where
    for query in queries("classic"):
        assert not re.search(r"histogram_(?!quantile)", query.expr), query.where


def test_uids_are_one_each() -> None:
    uids = [_board(*key)["uid"] for key in BOARDS]
    assert len(uids) == len(set(uids)) == 2 * len(boards("native"))


def _urls(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("url"), str):
            yield value["url"]
        for inner in value.values():
            yield from _urls(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _urls(inner)


@pytest.mark.parametrize(("dialect", "name"), BOARDS)
def test_links_lead_to_dashboards_of_the_same_set_with_time_and_variables(dialect: str, name: str) -> None:
    uids = {board["uid"] for board in boards(dialect).values()}
    board = _board(dialect, name)
    others = {urllib.parse.urlparse(link["url"]).path.removeprefix("/d/") for link in board["links"]}
    assert others == uids - {board["uid"]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])
    for url in _urls(board["panels"]):
        assert urllib.parse.urlparse(url).path.removeprefix("/d/") in uids
        assert "${__url_time_range}" in url
        assert "${datasource:queryparam}" in url


@pytest.mark.parametrize(("dialect", "name"), BOARDS)
def test_every_variable_that_is_used_is_one_of_the_dashboards(dialect: str, name: str) -> None:
    board = _board(dialect, name)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert "datasource" in variables
    for panel in panels(board):
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            assert used <= variables, (panel["title"], used)


@pytest.mark.parametrize(("dialect", "name"), BOARDS)
def test_panels_do_not_lie_on_one_another(dialect: str, name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in _board(dialect, name)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])):
            assert cell not in taken, (panel["title"], taken.get(cell))
            taken[cell] = panel["title"]


def test_what_grafana_is_provisioned_with_is_there() -> None:
    providers = yaml.safe_load((FOLDER / "provisioning/dashboards/tickpath.yaml").read_text())["providers"]
    assert {Path(provider["options"]["path"]).name for provider in providers} == set(DIALECTS)
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")
