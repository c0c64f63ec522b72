# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus that scrapes one target, for as long as a test looks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.prometheus import Api

OLDEST = (2, 42)
"""The first that reads native histograms."""
_START_S = 60.0


@dataclass(frozen=True)
class Binary:
    """An executable and its version."""

    path: Path
    version: tuple[int, int]


def _version(path: Path) -> tuple[int, int]:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def newest() -> Binary | None:
    """The newest Prometheus there is: unpacked below tickpath's cache directory (tests/stack/debian), or installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickpath"
    found = [*cache.glob("debian/*/usr/bin/prometheus"), *cache.glob("prometheus*/**/bin/prometheus")]
    if installed := shutil.which("prometheus"):
        found.append(Path(installed))
    binaries = [Binary(path, _version(path)) for path in found]
    usable = [binary for binary in binaries if binary.version >= OLDEST]
    return max(usable, key=lambda binary: binary.version, default=None)


class Prometheus(Api):
    """Answers of a running one."""

    def value(self, expression: str) -> float:
        """The one value of an expression."""
        (sample,) = self.query(expression)
        return sample.value

    def until(self, true: Callable[[], bool]) -> None:
        """Ask again and again, once it answers, until it is so."""
        deadline = time.monotonic() + _START_S
        while not (self.ready() and true()):
            assert time.monotonic() < deadline, "did not come true"
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def scraping(binary: Binary, target: str, folder: Path) -> Iterator[Prometheus]:
    """One that scrapes `target` (host:port) every second, native histograms and exemplars included."""
    features, more = ["exemplar-storage"], ""
    if binary.version < (3, 8):
        features.append("native-histograms")
    else:
        more = ", scrape_native_histograms: true"
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s, scrape_timeout: 1s{more}}}\n"
        f"scrape_configs: [{{job_name: tickpath, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = _free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary.path,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--enable-feature={','.join(features)}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(30)
