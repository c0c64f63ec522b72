# SPDX-License-Identifier: Apache-2.0
"""Builds the fuzzers of tests/fuzz, gives them corpora and runs them: `make fuzz DURATION=SECONDS`, each so long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.seeds import CORPORA
from native import ROOT, compiled

_SMALL = ["sh", "-c", '"$0" "$@"; exit $?']
FLAGS = ["-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
JOIN = [f"exporter/correlator/{name}.c" for name in ("accounting", "connections", "finish", "join", "timeline")]
# Our own C behind each, beside the headers.
SOURCES = {
    "correlator": [*JOIN, "tickpath/epochs.c", "tickpath/fit.c"],
    "flow": [],
    "packet": [],
    "ping": ["probes/ping/split.c"],
    "ring": ["tickpath/ring.c"],
    "stamps": [],
    "stream": ["tickpath/ring.c", "tickpath/socket_read.c"],
    "wire": ["tickpath/ring.c", "tickpath/wire_flows.c"],
}


def missing(folder: Path) -> str:
    """Why no fuzzer can be built here; empty when one can."""
    probe = folder / "probe.c"
    probe.write_text(
        "int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long);\n"
        "int LLVMFuzzerTestOneInput(const unsigned char *b, unsigned long n) { return n > 9 && b[0] > 300; }\n"
    )
    try:
        subprocess.run(["clang", *FLAGS, "-o", folder / "probe", probe], check=True, capture_output=True)
    except FileNotFoundError:
        return "clang is not installed (Debian package clang)"
    except subprocess.CalledProcessError:
        return "clang has no fuzzer run-time library (Debian package libclang-rt-dev)"
    return ""


def build(name: str, folder: Path, overlay: Path | None = None) -> Path:
    """The fuzzer `name`, in `folder`."""
    sources = [ROOT / "tests" / "fuzz" / f"fuzz_{name}.c", *(ROOT / source for source in SOURCES[name])]
    return compiled(folder / f"fuzz_{name}", sources, *FLAGS, overlay=overlay, cc="clang")


def run(program: Path, seconds: int, corpus: Path) -> tuple[int, str]:
    """How many inputs it tried within `seconds`, and what it found wrong (empty: nothing). `corpus` grows."""
    name = program.name.removeprefix("fuzz_")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(CORPORA[name]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
    # The kernel takes the largest size of who starts a program for the program's own (ru_maxrss), and a fuzzer goes by
    # that: a shell's child starts it.
    found = subprocess.run(
        [*_SMALL, program, *limits, "-print_final_stats=1", f"-artifact_prefix={program}-", corpus],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={variable: value for variable, value in os.environ.items() if variable != "LD_PRELOAD"},
    )
    tried = re.search(r"stat::number_of_executed_units: (\d+)", found.stdout)
    return int(tried[1]) if tried else 0, "" if found.returncode == 0 else found.stdout[-8000:]


def main() -> int:
    """Fuzz everything for the seconds given; the corpora are kept in build/fuzz from run to run."""
    seconds = int(sys.argv[1])
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    if reason := missing(folder):
        print(f"tickpath: cannot fuzz: {reason}", file=sys.stderr)
        return 1

    def fuzz(name: str) -> bool:
        tried, wrong = run(build(name, folder), seconds, folder / "corpus" / name)
        print(f"{name:12} {tried:12,} inputs  {'FOUND' if wrong else 'nothing'}\n{wrong}".rstrip(), flush=True)
        return bool(wrong)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        return int(any(list(workers.map(fuzz, SOURCES))))


if __name__ == "__main__":
    sys.exit(main())
