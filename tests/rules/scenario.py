# SPDX-License-Identifier: Apache-2.0
"""Scenarios for the rules: messages with latencies over time, as promtool's unit tests take native histograms."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parents[2] / "dashboards" / "rules"
FEED = {"venue": "binance", "feed": "btcusdt"}


@cache
def tool(name: str) -> Path | None:
    """promtool of Prometheus 3, or a program of the Alertmanager: in the path, or as `make test-stack` caches them."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickpath" / "debian"
    in_path = shutil.which(name)
    found = [Path(in_path)] if in_path else []
    for path in (*found, *sorted(cached.glob(f"*/usr/bin/{name}"))):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if said.returncode == 0 and (name != "promtool" or "version 3." in said.stdout + said.stderr):
            return path
    return None


@dataclass(frozen=True)
class Minutes:
    """So many minutes in each of which these latencies (seconds: how many messages) were added.

    `restart` begins them from empty histograms, as a restarted exporter does; `silent` has no scrape at all.
    """

    count: int
    latencies: Mapping[float, int]
    restart: bool = False
    silent: bool = False


def _bucket(seconds: float) -> int:
    """The native bucket of schema 4: its upper bound is 2^(i/16)."""
    return math.ceil(16 * math.log2(seconds) - 1e-9)


def _dense(counts: Mapping[int, int]) -> tuple[int, str]:
    if not counts:
        return 0, ""
    first, last = min(counts), max(counts)
    return first, " ".join(str(counts.get(i, 0)) for i in range(first, last + 1))


def histogram(latencies: Mapping[float, int]) -> str:
    """A native histogram in promtool's notation."""
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for seconds, count in latencies.items():
        side = sides[seconds < 0]
        bucket = _bucket(abs(seconds))
        side[bucket] = side.get(bucket, 0) + count
    (offset, buckets), (n_offset, n_buckets) = map(_dense, sides)
    total = sum(s * n for s, n in latencies.items())
    text = f"schema:4 sum:{total:.9f} count:{sum(latencies.values())}"
    if buckets:
        text += f" offset:{offset} buckets:[{buckets}]"
    if n_buckets:
        text += f" n_offset:{n_offset} n_buckets:[{n_buckets}]"
    return f"{{{{{text}}}}}"


def values(load: Sequence[Minutes]) -> str:
    """Samples a minute apart of the cumulative histogram."""
    done: dict[float, int] = {}
    parts = []
    for piece in load:
        if piece.silent:
            parts.append(f"_x{piece.count}")
            continue
        if piece.restart:
            done = {}
        first = dict(done)
        for seconds, count in piece.latencies.items():
            first[seconds] = first.get(seconds, 0) + count
        text = histogram(first)
        if piece.count > 1:
            text += f"+{histogram(piece.latencies)}x{piece.count - 1}"
        parts.append(text)
        done = {s: first[s] + piece.latencies.get(s, 0) * (piece.count - 1) for s in first}
    return " ".join(parts)


@dataclass
class Host:
    """One target of Prometheus: its series, and which alerts must fire for it at some minute."""

    name: str
    series: list[dict[str, str]] = field(default_factory=list)
    expectations: list[dict[str, object]] = field(default_factory=list)

    def add(self, metric: str, samples: str, **labels: str) -> None:
        """One series in promtool's notation."""
        target = {"job": "tickpath", "instance": self.name, "region": "tokyo"}
        inside = ", ".join(f"{k}={json.dumps(v)}" for k, v in {**target, **labels}.items() if v)
        self.series.append({"series": f"{metric}{{{inside}}}", "values": samples})

    def latency(self, *load: Minutes, **labels: str) -> None:
        """A hop, a part of one, or a span: by its labels."""
        family = "span" if "span" in labels else "hop_part" if "part" in labels else "hop"
        self.add(f"tickpath_{family}_latency_seconds", values(load), **{**FEED, **labels})

    def expect(self, minute: int, expression: str, *samples: Mapping[str, str]) -> None:
        """The expression, which compares, has exactly these samples at that minute. HOST in it is this host."""
        self.expectations.append(
            {
                "expr": expression.replace("HOST", f'instance="{self.name}"'),
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": "{" + ", ".join(f"{k}={json.dumps(v)}" for k, v in labels.items()) + "}", "value": 1}
                    for labels in samples
                ],
            }
        )

    def firing(self, minute: int, *alerts: str | Mapping[str, str]) -> None:
        """Exactly these alerts fire for this host at that minute; given by name alone where labels do not matter."""
        by = "" if alerts and isinstance(alerts[0], str) else ", hop, part, span, venue, feed, source, region"
        told = [{"alertname": alert} if isinstance(alert, str) else {"region": "tokyo", **alert} for alert in alerts]
        self.expect(minute, f'group by (alertname{by}) (ALERTS{{alertstate="firing", HOST}})', *told)

    def quiet(self, *minutes: int) -> None:
        """Nothing fires for this host then."""
        for minute in minutes:
            self.firing(minute)


class Fleet:
    """Hosts that live through their misfortunes side by side, in one run of promtool: its cost is in the steps."""

    def __init__(self, *files: str, **settings: str) -> None:
        """`files` of the rules: all when none is named, by their stems; settings and recorded always.

        `settings` replace values of settings.yml, by the second part of the record's name."""
        self.hosts: dict[str, Host] = {}
        self.files = {"settings", "recorded", *files} if files else {path.stem for path in RULES.glob("*.yml")}
        self.settings = settings
        self.alerts: list[dict[str, object]] = []

    def host(self, name: str, up: str | None = "1x2000") -> Host:
        """Another one, scraped well unless told otherwise."""
        host = self.hosts[name] = Host(name)
        if up:
            host.add("up", up)
        return host

    def annotations(self, minute: int, alert: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
        """The alert fires then with exactly these labels and annotations, and for nothing else."""
        self.alerts.append(
            {
                "eval_time": f"{minute}m",
                "alertname": alert,
                "exp_alerts": [{"exp_labels": dict(labels), "exp_annotations": dict(annotations)}],
            }
        )

    def _rules(self, folder: Path) -> list[str]:
        written = []
        for path in sorted(RULES / f"{stem}.yml" for stem in self.files):
            text = path.read_text()
            if path.stem == "settings":
                for name, value in self.settings.items():
                    text, replaced = re.subn(
                        rf"(record: \"tickpath:{name}\S*\", expr: vector)\(\S+\)", rf"\1({value})", text
                    )
                    assert replaced, f"settings.yml has no row {name}"
            (folder / path.name).write_text(text)
            written.append(path.name)
        return written

    def run(self, folder: Path) -> str:
        """What promtool complained of: nothing is good."""
        promtool = tool("promtool")
        assert promtool is not None
        document = {
            "rule_files": self._rules(folder),
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [one for host in self.hosts.values() for one in host.series],
                    "promql_expr_test": [one for host in self.hosts.values() for one in host.expectations],
                    "alert_rule_test": self.alerts,
                }
            ],
        }
        path = folder / "test.yml"  # JSON is YAML
        path.write_text(json.dumps(document, indent=1))
        done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "FAILED" in done.stdout + done.stderr, done.stdout + done.stderr
        return "" if done.returncode == 0 else done.stdout + done.stderr


@dataclass(frozen=True)
class Verdict:
    """What a run of promtool said, host by host."""

    output: str

    def of(self, host: str) -> str:
        """The complaints that name the host."""
        blocks = re.split(r"\n(?=\s+expr: )", self.output)
        return "\n".join(
            block for block in blocks if f'instance=\\"{host}\\"' in block or f'instance="{host}"' in block
        )

    @property
    def unattributed(self) -> str:
        """Complaints that name no host: promtool could not run, or an annotation differs."""
        return "" if re.search(r"instance=", self.output) else self.output


needs_promtool = pytest.mark.skipif(
    tool("promtool") is None, reason="needs promtool of Prometheus 3: `make test-stack` fetches it"
)
