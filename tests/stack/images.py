# SPDX-License-Identifier: Apache-2.0
"""The images that compose.yaml and Dockerfile name, made here under their public names where no registry is reached."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stack.engine import HERE, Engine, unpacked

ROOT = HERE.parent.parent
PYTHON = "python:3.11-slim-bookworm"
DEBIAN = "debian:bookworm-slim"
# Which Debian package stands in; the versions are compared, so that what is tested is what is pinned.
PACKAGED = {"prometheus": ("prometheus", "promtool"), "alertmanager": ("prometheus-alertmanager",)}
SUITE = "sid"


@dataclass(frozen=True)
class Made:
    """How the images came: `cold` (ours was not there), `rebuilt` or `warm`; how long it took to have those that a
    registry has, and to build ours."""

    start: str
    prepared_s: float
    built_s: float


def pinned(service: str) -> str:
    """The image that compose.yaml names for a service that is not ours."""
    services = (ROOT / "compose.yaml").read_text()
    found = re.search(rf"^  {service}:\n(?:    .*\n)*?    image: (\S+)$", services, re.MULTILINE)
    assert found, service
    return found[1]


@cache
def programs() -> Path:
    """The folder with prometheus, promtool and prometheus-alertmanager."""
    return unpacked(SUITE, *(name for names in PACKAGED.values() for name in names)) / "usr" / "bin"


def make_base(engine: Engine) -> None:
    """python:3.11-slim-bookworm and debian:bookworm-slim."""
    tar = Path(subprocess.run([HERE / "base"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    label = f"tickpath.stack.base={tar.name}"
    if not engine.docker("image", "ls", "--quiet", "--filter", f"label={label}").stdout:
        change = ["--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        engine.docker("import", "--change", f"LABEL {label}", *change, tar, PYTHON)
    engine.docker("tag", PYTHON, DEBIAN)


def make_standins(engine: Engine) -> None:
    """Prometheus and Alertmanager of the pinned version, and what only answers in Grafana's place."""
    with tempfile.TemporaryDirectory(prefix="tp-images-") as folder:
        for service in (*PACKAGED, "grafana"):
            context = Path(folder) / service
            shutil.copytree(HERE / "standins" / service, context)
            (context / "bin").mkdir()
            for program in PACKAGED.get(service, ()):
                shutil.copy2(programs() / program, context / "bin" / program)
            if service == "alertmanager":
                shutil.copytree(programs().parent / "share/prometheus/alertmanager", context / "share")
            engine.docker("build", "--quiet", "--network=host", "--tag", pinned(service), context)
