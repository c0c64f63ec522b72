# SPDX-License-Identifier: Apache-2.0
"""The histogram is as usable from plain C and from another Cython module as from Python, and says the same there."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from tickpath.histogram import MIN_INDEX, Histogram, bucket_index, upper_bound_ns

ROOT = Path(__file__).parent.parent.parent
EDGES = [edge + by for index in range(-478, 530) for edge in [upper_bound_ns(index)] for by in (0, 1)]
VALUES = [*EDGES, *[-edge for edge in EDGES], 0, -(2**63), 2**63 - 1, -(2**63), 2**63 - 1]
ZERO_SLOT = 1009


def _slot(value_ns: int) -> int:
    if value_ns == 0:
        return ZERO_SLOT
    place = bucket_index(abs(value_ns)) - MIN_INDEX + 1
    return ZERO_SLOT + (place if value_ns > 0 else -place)


def test_c_counts_what_python_counts(sanitized) -> None:
    expected = Histogram()
    slots: dict[int, int] = {}
    for value in VALUES:
        expected.observe(value)
        slots[_slot(value)] = slots.get(_slot(value), 0) + 1
    text = "\n".join(map(str, VALUES))
    run = subprocess.run(
        [sanitized("histogram_by_value.c"), str(len(VALUES))], input=text, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    first, *lines = [[int(word) for word in line.split()] for line in run.stdout.splitlines()]
    count, sum_high, sum_low, low, high, median = first
    assert (count, (sum_high << 64) + sum_low) == (expected.count, expected.sum_ns)
    assert (low, high, median) == (expected.min_ns, expected.max_ns, expected.quantile_ns(0.5))
    assert dict(lines) == slots
    assert [slot for slot, _ in lines] == sorted(slots)


ANOTHER_MODULE = """
from tickpath._histogram cimport Histogram, tp_histogram, tp_histogram_observe, tp_histogram_reset

cdef struct series:
    int id
    tp_histogram histogram

def fill(values):
    cdef series own
    cdef Histogram copy
    tp_histogram_reset(&own.histogram)
    for value in values:
        tp_histogram_observe(&own.histogram, value)
    copy = Histogram.of(&own.histogram)
    tp_histogram_observe(&copy.histogram, 1)
    return copy
"""


def test_another_cython_module_embeds_it_and_hands_out_copies(tmp_path: Path) -> None:
    (tmp_path / "another.pyx").write_text(ANOTHER_MODULE)
    library = tmp_path / f"another{sysconfig.get_config_var('EXT_SUFFIX')}"
    cython = [sys.executable, "-m", "cython", "-3", "-I", ROOT, "another.pyx"]
    compiler = [*shlex.split(os.environ.get("CC", "cc")), "-shared", "-fPIC", "-I", ROOT]
    subprocess.run(cython, cwd=tmp_path, check=True)
    subprocess.run(
        [*compiler, "-I", sysconfig.get_path("include"), "-o", library, "another.c"], cwd=tmp_path, check=True
    )
    spec = importlib.util.spec_from_file_location("another", library)
    assert spec is not None
    assert spec.loader is not None
    another = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(another)

    expected = Histogram()
    for value in (*VALUES, 1):
        expected.observe(value)
    filled = another.fill(VALUES)
    assert isinstance(filled, Histogram)
    assert filled == expected
