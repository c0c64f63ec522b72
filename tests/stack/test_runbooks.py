# SPDX-License-Identifier: Apache-2.0
"""A click on an alert's runbook: Prometheus, which is up while an alert fires, serves the page."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import yaml

from stack.prometheus import Prometheus, needs_prometheus

pytestmark = needs_prometheus

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "dashboards" / "runbooks"


def test_every_page_is_served_where_the_links_lead(tmp_path: Path) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]
    (inside,) = (flag.partition("=")[2] for flag in service["command"] if "console.templates" in flag)
    assert f"./dashboards/runbooks:{inside}:ro" in service["volumes"]
    settings = yaml.safe_load((ROOT / "dashboards" / "rules" / "settings.yml").read_text())
    (links,) = (rule for rule in settings["groups"][0]["rules"] if rule["record"] == "tickpath:links:info")
    path = links["labels"]["runbooks"].removeprefix("http://127.0.0.1:9090")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with Prometheus(tmp_path, {}, flags=[f"--web.console.templates={PAGES}"]) as prometheus:
        for page in PAGES.iterdir():
            with opener.open(f"{prometheus.url}{path}/{page.name}", timeout=10) as answer:
                served = answer.read().decode()
                assert answer.headers.get_content_type() == "text/html"
            written = page.read_text()
            assert set(re.findall(r'id="(tickpath\w+)"', served)) == set(re.findall(r'id="(tickpath\w+)"', written))
            assert "{{" not in served
