# SPDX-License-Identifier: Apache-2.0
"""Pictures of every dashboard: the committed JSON and a live Prometheus's answers, drawn by Grafana's own components.

    make pictures [ARGS="--seconds 240 --replay FILE"]     gather and draw
    make pictures ARGS=--again                             draw what was gathered last, after a board was changed

Needs root (for the probes), node with npm, and chromium. Grafana's parts come from npm once, into tickpath's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from browser import screenshot  # noqa: E402

from dashboards_queries import DIALECTS, boards, panels, substituted  # noqa: E402
from stack.prometheus import FEATURES, Api, Prometheus  # noqa: E402
from tickpath.lab.demo.folder import demo_folder  # noqa: E402
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline  # noqa: E402
from tickpath.lab.demo.processes import Child  # noqa: E402
from tickpath.lab.simulator.config import EventTimes  # noqa: E402

BUILD = ROOT / "build" / "pictures"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickpath" / "pictures"
REGIONS = ("tokyo", "frankfurt")
_STEP_S = 2
_START_S = 30.0
_COLUMN, _LINE = 60, 38
# What panels.jsx may take to draw; the browser's own time, which does not pass while it works.
_DRAWING_MS = 10_000


def gather(prometheus: Api, dialect: str, seconds: int) -> None:
    """Write board and answers of each dashboard."""
    to = time.time()
    for name, board in boards(dialect).items():
        one = name in {"region", "feed"}
        variables = {
            "region": REGIONS[0] if one else ".*",
            "instance": ".*",
            "venue": ".*",
            "feed": ".*",
            "__rate_interval": "20s",
            "__range": f"{seconds}s",
        }
        answers: dict[str, Any] = {}
        for panel in panels(board):
            for target in panel["targets"]:
                query = substituted(target["expr"], variables)
                if target.get("instant"):
                    found = prometheus.get("/api/v1/query", query=query, time=to)
                else:
                    window = {"start": to - seconds, "end": to, "step": _STEP_S}
                    found = prometheus.get("/api/v1/query_range", query=query, **window)
                answers[f"{panel['id']} {target['refId']}"] = found["result"]
        picture = {"answers": answers, "from": (to - seconds) * 1000, "to": to * 1000}
        (BUILD / f"{name}-{dialect}.json").write_text(json.dumps(picture))


@contextlib.contextmanager
def pinging(folder: Path, exporter_port: int) -> Iterator[None]:
    """Pings of every kind, into the pipeline's rings: a far end that tells its times, and one that refuses."""
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    targets = ["127.0.0.1", f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{exporter_port}", "tcp://127.0.0.1:1"]
    environment = {**os.environ, "TICKPATH_DIRECTORY": str(folder / "rings"), "TICKPATH_CONFIG": os.devnull}
    with contextlib.ExitStack() as started:
        for name, *arguments in (
            ("serve", "ping", "--serve", "-I", "127.0.0.1", "-p", str(port)),
            ("ping", "probe", "ping", "--interval", "0.2", "--targets", ",".join(targets)),
        ):
            child = Child(name, arguments, folder, environment)
            started.callback(child.stop)
            child.wait_until(lambda log=child.log: "ready" in log.read_text(), _START_S, "ready line")
        yield


def play(seconds: int, replay: Path | None) -> None:
    """Run the demo's pipeline under a Prometheus for each dialect, and gather."""
    settings = DemoSettings(
        replay=replay, speed="1", tls=None, event_times=EventTimes.NOW, exporter_port=0, publish_port=0
    )
    rules = sorted((ROOT / "dashboards" / "rules").glob("*.yml"))
    with (
        demo_folder() as folder,
        tempfile.TemporaryDirectory(prefix="tp-pictures-") as data,
        Pipeline(settings, folder) as pipeline,
    ):
        port = urllib.parse.urlsplit(pipeline.exporter_url).port
        # One exporter under two names stands for two hosts.
        targets = {region: [f"{host}:{port}"] for region, host in zip(REGIONS, ("127.0.0.1", "localhost"), strict=True)}
        classic_only = FEATURES.replace("native-histograms,", "")
        with (
            pinging(folder, port or 0),
            Prometheus(Path(data, "native"), targets, rules) as native,
            Prometheus(Path(data, "classic"), targets, features=classic_only) as classic,
        ):
            time.sleep(seconds / 2)
            # Messages without a stamp, for the panels that say why.
            pipeline.wire.stop(20)
            time.sleep(3)
            pipeline.restart_wire()
            time.sleep(seconds / 6)
            # A connection opened while both Prometheus look.
            pipeline.feeds[0].stop()
            pipeline.restart_feed(0)
            time.sleep(seconds / 3)
            for dialect, prometheus in zip(DIALECTS, (native, classic), strict=True):
                gather(prometheus, dialect, seconds)


def bundle() -> Path:
    """Grafana's components and panels.jsx as one script."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package.json").read_text()
    have = CACHE / "package.json"
    if not (CACHE / "installed").exists() or have.read_text() != wanted:
        have.write_text(wanted)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=CACHE, check=True)
        # Grafana's table wants a branch of this that npm does not have. This release has the same parts, but names
        # contexts as React 19 does.
        for grid in CACHE.glob("**/react-data-grid/lib/bundle.js"):
            grid.write_text(re.sub(r"(jsxs?\(\w+Context), \{", r"\1.Provider, {", grid.read_text()))
        (CACHE / "installed").touch()
    script = BUILD / "panels.js"
    subprocess.run(
        [
            CACHE / "node_modules/.bin/esbuild",
            HERE / "panels.jsx",
            "--bundle",
            "--log-level=error",
            "--loader:.woff2=dataurl",
            "--loader:.ttf=dataurl",
            '--define:process.env.NODE_ENV="production"',
            "--define:global=window",
            # The default export of its CommonJS form would be an object to who imports it as a module.
            f"--alias:micro-memoize={CACHE / 'node_modules/micro-memoize/dist/micro-memoize.esm.js'}",
            f"--outfile={script}",
        ],
        env={**os.environ, "NODE_PATH": str(CACHE / "node_modules")},
        check=True,
    )
    return script


def draw(name: str, dialect: str, script: Path) -> Path:
    """One dashboard, as long as it is."""
    board = boards(dialect)[name]
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * _LINE
    gathered = BUILD / f"{name}-{dialect}.json"
    page, picture = gathered.with_suffix(".html"), gathered.with_suffix(".png")
    data = json.dumps({"board": board, **json.loads(gathered.read_text())}).replace("</", "<\\/")
    page.write_text(
        f"<!doctype html><meta charset=utf-8><link rel=stylesheet href={script.with_suffix('.css').name}>"
        "<style>body{margin:0;background:#111217} *{box-sizing:border-box} "
        "button{color:inherit;background:none;border:0;font:inherit}</style>"
        f"<div id=root></div><script>window.PICTURE={data}</script><script src={script.name}></script>"
    )
    screenshot(page, picture, 24 * _COLUMN, high, f"--virtual-time-budget={_DRAWING_MS}")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=180, help="how long to play, and what the pictures show (180)")
    parser.add_argument("--replay", type=Path, help="a recorded feed; else a generated one")
    parser.add_argument("--again", action="store_true", help="draw the answers that are in build/pictures")
    parser.add_argument("--only", metavar="NAME", help="fleet, region, feed, clocks or capture")
    flags = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if not flags.again:
        play(flags.seconds, flags.replay)
    script = bundle()
    for dialect in DIALECTS:
        for name in boards(dialect):
            if flags.only in (None, name):
                print(draw(name, dialect, script))


if __name__ == "__main__":
    main()
