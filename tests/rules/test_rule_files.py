# SPDX-License-Identifier: Apache-2.0
"""The rule files as files: every alert complete, its links leading somewhere, every metric one that exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rules.scenario import RULES, needs_promtool, tool

ROOT = RULES.parents[1]
DASHBOARDS = {f"tickpath-{name}" for name in ("fleet", "region", "feed", "clocks", "capture")}
RULE_FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))}
EVERY: list[dict[str, Any]] = [
    rule for content in RULE_FILES.values() for group in content["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in EVERY if "alert" in rule}
ALERTMANAGER = yaml.safe_load((RULES.parent / "alertmanager.yml").read_text())


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    return {
        line.lstrip("# ").strip().lower().replace(" ", "-") for line in page.read_text().splitlines() if line[:1] == "#"
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_complete(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    base = '{{ with query "tickpath:links:info" }}{{ . | first | label "%s" }}{{ end }}'
    runbook, dashboard = rule["annotations"]["runbook_url"], rule["annotations"]["dashboard_url"]
    assert runbook.startswith(base % "runbooks" + "/")
    page, anchor = runbook.removeprefix(base % "runbooks" + "/").split("#")
    assert anchor == alert.lower()
    assert f'<h2 id="{anchor}">' in (ROOT / "dashboards" / "runbooks" / page).read_text()
    assert dashboard.startswith(base % "dashboards" + "/d/")
    assert dashboard.removeprefix(base % "dashboards" + "/d/").split("?")[0] in DASHBOARDS


def test_no_runbook_is_left_over() -> None:
    told = {
        anchor for page in (ROOT / "docs" / "runbooks").glob("*.md") for anchor in anchors(page) if "tickpath" in anchor
    }
    assert told == {alert.lower() for alert in ALERTS}


def test_every_metric_is_documented_or_recorded() -> None:
    documented = set(re.findall(r"`(tickpath_\w+)", (ROOT / "docs" / "metrics.md").read_text()))
    recorded = {rule["record"] for rule in EVERY if "record" in rule}
    for rule in EVERY:
        expression = re.sub(r'"[^"]*"', '""', rule["expr"])
        for name in re.findall(r"(?:\w+:)?tickpath[:_][\w:]+", expression):
            known = recorded if ":" in name else documented
            assert name.removesuffix("_count") in known, (rule.get("record") or rule["alert"], name)


def test_every_setting_is_read() -> None:
    expressions = " ".join(rule["expr"] + str(rule.get("annotations", "")) for rule in EVERY)
    for group in RULE_FILES["settings"]["groups"]:
        for rule in group["rules"]:
            assert rule["record"] in expressions, rule["record"]


def test_inhibition_names_alerts_that_exist() -> None:
    for rule in ALERTMANAGER["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, names = re.fullmatch(r'(\w+)!?=~?"(.*)"', matcher).groups()  # type: ignore[union-attr]
            if label == "alertname":
                for name in names.split("|"):
                    assert any(re.fullmatch(name, alert) for alert in ALERTS), name


@needs_promtool
def test_promtool_finds_nothing() -> None:
    done = subprocess.run(
        [tool("promtool") or "", "check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(tool("amtool") is None, reason="needs amtool: `make test-stack` fetches it")
def test_amtool_finds_nothing() -> None:
    done = subprocess.run(
        [tool("amtool") or "", "check-config", RULES.parent / "alertmanager.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
