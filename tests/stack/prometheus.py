# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus of the pinned version as a process, for tests that ask it for targets, queries and alerts.

    with Prometheus(tmp_path, targets={"local": ["127.0.0.1:18064"]}, rules=[rules]) as prometheus:
        samples = prometheus.wait("histogram_quantile(0.99, sum(rate(tickpath_hop_latency_seconds[1m])))")

`needs_prometheus` skips where its programs are not in the cache; `make test-stack` fetches them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import subprocess
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from netns import entered
from stack.images import programs
from tickpath.lab.ports import HeldPort

_START_S = 60
_POLL_S = 0.2
# What compose.yaml gives it, too.
FEATURES = "native-histograms,exemplar-storage"


needs_prometheus = pytest.mark.skipif(
    os.environ.get("TICKPATH_STACK") != "1", reason="asks a real Prometheus, which `make test-stack` fetches"
)


def promtool(*arguments: str | Path) -> str:
    """Run promtool to its end; what it printed. AssertionError with all it said when it fails."""
    done = subprocess.run([programs() / "promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"promtool {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Sample:
    """One element of an instant vector (or a scalar, with no labels). A histogram's value is its count."""

    labels: dict[str, str]
    value: float


class Api:
    """An HTTP interface at `url`, a Prometheus' if not said otherwise; of another network namespace if one is named."""

    def __init__(self, url: str, namespace: Path | None = None) -> None:
        self.url = url
        self._host, self._port = url.removeprefix("http://").split(":")
        self._namespace = namespace

    def fetch(self, target: str) -> tuple[int, bytes]:
        """Status and body of a page. OSError: nobody answers."""
        connection = http.client.HTTPConnection(self._host, int(self._port), timeout=10)
        with entered(self._namespace) if self._namespace else contextlib.nullcontext():
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def get(self, path: str, **parameters: str | float) -> Any:
        """`data` of the answer. RuntimeError: it says that the request is wrong; OSError: it does not answer."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return answered(self.fetch(path + query)[1])

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The expression now, or at a time in seconds since 1970. NaN is no data and left out."""
        found = self.get("/api/v1/query", query=expression, **({} if at is None else {"time": at}))
        result = [{"metric": {}, "value": found["result"]}] if found["resultType"] == "scalar" else found["result"]
        samples = [
            Sample(
                {k: v for k, v in one["metric"].items() if k != "__name__"},
                float(one["value"][1] if "value" in one else one["histogram"][1]["count"]),
            )
            for one in result
        ]
        return [sample for sample in samples if not math.isnan(sample.value)]

    def value(self, expression: str) -> float:
        """The one value of an expression."""
        (sample,) = self.query(expression)
        return sample.value

    def wait(self, expression: str, timeout_s: float = 60) -> list[Sample]:
        """Ask until there is data. AssertionError with what is scraped once the time is up."""
        deadline = time.monotonic() + timeout_s
        while not (samples := self.query(expression)):
            assert time.monotonic() < deadline, f"no data in {timeout_s} s: {expression}\n{self.targets()}"
            time.sleep(_POLL_S)
        return samples

    def targets(self) -> list[dict[str, Any]]:
        """Active targets: labels, health, lastError, scrapeUrl and so on, as Prometheus calls them."""
        found: list[dict[str, Any]] = self.get("/api/v1/targets")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule of every group, alerting and recording."""
        return [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing."""
        found: list[dict[str, Any]] = self.get("/api/v1/alerts")["alerts"]
        return found

    def ready(self) -> bool:
        try:
            return self.fetch("/-/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def answered(body: bytes) -> Any:
    """`data` of an answer of Prometheus. RuntimeError with what it finds wrong."""
    answer = json.loads(body)
    if answer["status"] != "success":
        raise RuntimeError(f"{answer['errorType']}: {answer['error']}")
    return answer["data"]


class Prometheus(Api):
    """A Prometheus that scrapes `targets` (region -> HOST:PORT, ...) and evaluates `rules`. Use as a context manager.

    `every` is the interval of scrapes and of evaluations alike. `flags` are further ones of its command line;
    without `native-histograms` among the `features` it scrapes the text formats. It runs in the network `namespace`,
    where one is named. `relabel` are metric_relabel_configs.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[str]],
        rules: Sequence[Path] = (),
        every: str = "1s",
        flags: Sequence[str] = (),
        *,
        features: str = FEATURES,
        namespace: Path | None = None,
        relabel: Sequence[Mapping[str, object]] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._held = HeldPort()
        port = self._held.number
        super().__init__(f"http://127.0.0.1:{port}", namespace)
        # YAML takes JSON as it is.
        discovery = [{"targets": [*given], "labels": {"region": region}} for region, given in targets.items()]
        (folder / "targets.json").write_text(json.dumps(discovery))
        configuration = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path.resolve()) for path in rules],
            "scrape_configs": [
                {
                    "job_name": "tickpath",
                    "file_sd_configs": [{"files": ["targets.json"]}],
                    "metric_relabel_configs": [*relabel],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
        self._log = folder / "prometheus.log"
        self._command = [
            *(["nsenter", f"--net={namespace}", "--"] if namespace else []),
            str(programs() / "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--enable-feature={features}",
            *flags,
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"Prometheus does not start:\n{self.log()}")
            time.sleep(_POLL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._held.close()

    def log(self) -> str:
        return self._log.read_text(errors="replace")
