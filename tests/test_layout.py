# SPDX-License-Identifier: Apache-2.0
"""The layout is a contract: arrows between folders run down only, and the wheel installs one top-level name."""

from __future__ import annotations

import ast
from importlib.metadata import files
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("probes", "dpdk_capture", "exporter", "lab")
# Who may import whom, besides itself and the library `tickpath`.
BELOW = {
    "tickpath": set(),
    "probes": set(),
    "dpdk_capture": set(),
    "exporter": set(),
    "lab": {"probes", "dpdk_capture", "exporter"},
}


def _part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def _modules() -> list[Path]:
    return [p for part in ("tickpath", *PARTS) for p in (ROOT / part).rglob("*.py")]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write tickpath.… so that the arrow is seen"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _owner(imported: str) -> str | None:
    words = imported.split(".")
    if words[0] != "tickpath":
        return None
    return words[1] if len(words) > 1 and words[1] in PARTS else "tickpath"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_run_down_only(path: Path) -> None:
    part = _part_of(path)
    reached = {owner for name in _imported(path) if (owner := _owner(name))} - {part, "tickpath"}
    assert reached <= BELOW[part], f"{path} imports {sorted(reached - BELOW[part])}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_probes_do_not_import_each_other(path: Path) -> None:
    if _part_of(path) != "probes" or path.parent == ROOT / "probes":
        return
    mine = path.relative_to(ROOT).parts[1]
    others = {name.split(".")[2] for name in _imported(path) if name.startswith("tickpath.probes.")} - {mine}
    assert not others, f"{path} imports probes {sorted(others)}"


def test_the_wheel_installs_one_top_level_name() -> None:
    installed = files("tickpath")
    assert installed
    tops = {PurePosixPath(f).parts[0] for f in installed} - {".."}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"tickpath"}


def test_every_module_of_the_tree_is_installed() -> None:
    installed = {str(f) for f in files("tickpath") or []}
    for path in _modules():
        inside = path.relative_to(ROOT)
        wanted = str(inside) if inside.parts[0] == "tickpath" else f"tickpath/{inside}"
        assert wanted in installed, f"{inside} is not in the wheel: name it in its meson.build"
