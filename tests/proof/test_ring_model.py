# SPDX-License-Identifier: Apache-2.0
"""The ring's protocols hold under every interleaving and reordering; each ordering and step in them is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODEL = Path(__file__).parent / "ring.pml"
SHARED = (
    "INVALIDATION",
    "INVALIDATION_FENCE",
    "RELEASE_OF_NUMBER",
    "ACQUIRE_OF_NUMBER",
    "RECHECK_FENCE",
    "RECHECK",
)
HEAD = ("RELEASE_OF_HEAD", "ACQUIRE_OF_HEAD", "ORDER_OF_HEAD", "SECOND_LOOK")

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None, reason="the model checker is not installed (Debian package spin)"
)


def _errors(directory: Path, *definitions: str) -> tuple[int, str]:
    """How many violated properties the checker finds, 0 only after the whole state space was searched."""
    flags = [f"-D{definition}" for definition in definitions]
    subprocess.run(["spin", "-a", *flags, MODEL], cwd=directory, check=True, capture_output=True)
    # A model that fails does so at once: compiling its checker well would take longer than running it.
    level = "-O0" if any(definition.startswith("WITHOUT") for definition in definitions) else "-O1"
    subprocess.run(["cc", level, "-w", "-DSAFETY", "-DVECTORSZ=2048", "-o", "pan", "pan.c"], cwd=directory, check=True)
    said = subprocess.run(["./pan", "-m100000", "-w22"], cwd=directory, check=True, capture_output=True, text=True)
    assert "Search not completed" not in said.stdout or "errors: 1" in said.stdout, said.stdout
    assert "max search depth too small" not in said.stdout, said.stdout
    found = re.search(r"errors: (\d+)", said.stdout)
    assert found, said.stdout
    return int(found[1]), said.stdout


@needs_spin
@pytest.mark.parametrize(
    "definitions",
    [["SLOTS"], ["SLOTS", "KILL", "RECORDS=4"], ["ROWS"], ["ROWS", "KILL"]],
    ids=" ".join,
)
def test_nothing_torn_nothing_lost_uncounted(tmp_path: Path, definitions: list[str]) -> None:
    errors, said = _errors(tmp_path, *definitions)
    assert errors == 0, said


@needs_spin
@pytest.mark.parametrize(
    ("protocol", "removed"),
    [("SLOTS", removed) for removed in (*SHARED, *HEAD)] + [("ROWS", removed) for removed in SHARED],
)
def test_without_any_one_of_them_the_protocol_fails(tmp_path: Path, protocol: str, removed: str) -> None:
    errors, said = _errors(tmp_path, protocol, f"WITHOUT_{removed}")
    assert errors == 1, said
    assert "assertion violated (latest" not in said, "the model's memory was too small"


def test_every_ordering_of_the_model_has_been_taken_away_once() -> None:
    switches = set(re.findall(r"#ifn?def WITHOUT_(\w+)", MODEL.read_text()))
    assert switches == {*SHARED, *HEAD}


# --- the model is of this source -----------------------------------------------------------------------------------

ATOMIC = re.compile(r"\batomic_\w+\(")


def _calls(text: str) -> Iterator[str]:
    """Every atomic operation of a C text in order, blanks evened out."""
    for begin in ATOMIC.finditer(text):
        depth, at = 1, begin.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        yield " ".join(text[begin.start() : at].split())


def _function(path: str, name: str) -> str:
    source = (ROOT / path).read_text()
    found = re.search(rf"^[\w \*]*\b{name}\([^;{{]*\) \{{\n.*?^\}}\n", source, re.MULTILINE | re.DOTALL)
    assert found, f"{name} is not in {path}"
    return found[0]


def _model(begin: str) -> list[tuple[str, str, bool]]:
    """The lines of a part of the model that stand for C: the model's own text, the C, whether it is private memory."""
    part = MODEL.read_text().split(f"/* --- {begin}", 1)[1].split("/* --- end", 1)[0]
    found = re.findall(r"^(.*)/\* C( \(private\))?: (.*?) \*/", part, re.MULTILINE)
    return [(text.strip(), c, bool(private)) for text, private, c in found]


PARTS = [
    ("tp_ring_write", "tickpath/ring.h", ["tp_ring_write"]),
    ("tp_ring_read", "tickpath/ring.h", ["tp_ring_read"]),
    ("row_store", "tickpath/ring.c", ["row_store"]),
    ("tp_ring_row_at", "tickpath/ring.c", ["tp_ring_row_at", "row_copy"]),
]


@pytest.mark.parametrize(("part", "path", "functions"), PARTS, ids=[part for part, _, _ in PARTS])
def test_the_model_does_what_the_source_does_in_its_order(part: str, path: str, functions: list[str]) -> None:
    text = _function(path, functions[0])
    for called in functions[1:]:
        body = _function(path, called)
        text, count = re.subn(rf"\b{called}\(\w+\)", lambda _, body=body: body, text)
        assert count == 1, f"{functions[0]} calls {called} once"
    assert list(_calls(text)) == [c for _, c, _ in _model(part)]


@pytest.mark.parametrize("part", [part for part, _, _ in PARTS])
def test_each_line_of_the_model_has_the_operation_and_order_of_its_source(part: str) -> None:
    for line, c, private in _model(part):
        if private:
            continue
        operation = re.match(r"(store|load|release_fence|acquire_fence)\(", line)
        order = re.search(r"\b(RELAXED|RELEASE|ACQUIRE)\w*\);$", line)
        assert operation and order, line
        kind = "thread_fence" if operation[1].endswith("fence") else f"{operation[1]}_explicit"
        assert c.startswith(f"atomic_{kind}("), line
        assert c.endswith(f"memory_order_{order[1].lower()})"), line


def test_a_changed_order_in_the_source_would_be_noticed() -> None:
    text = _function("tickpath/ring.h", "tp_ring_write")
    modelled = [c for _, c, _ in _model("tp_ring_write")]
    for order in ("memory_order_release", "memory_order_relaxed"):
        assert list(_calls(text.replace(order, "memory_order_seq_cst", 1))) != modelled
