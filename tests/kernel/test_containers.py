# SPDX-License-Identifier: Apache-2.0
"""Which container a cgroup's path names, and how a cgroup's id leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickpath.probes.kernel.containers import Containers, container_of

ID = "0123456789abcdef" * 4
OTHER = "f" * 64


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"system.slice/docker-{ID}.scope", ID[:12]),
        (f"docker/{ID}", ID[:12]),
        (f"docker/{ID}/init.scope", ID[:12]),
        (f"docker/{OTHER}/docker/{ID}", ID[:12]),
        (
            f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12ab.slice/cri-containerd-{ID}.scope",
            ID[:12],
        ),
        (f"kubepods.slice/kubepods-pod12ab.slice/crio-{ID}.scope/container", ID[:12]),
        (f"kubepods/besteffort/pod0f6a3f0e-1111-2222-3333-444455556666/{ID}", ID[:12]),
        (f"system.slice/containerd.service/kubepods-burstable-pod12ab.slice:cri-containerd:{ID}", ID[:12]),
        (f"machine.slice/libpod-{ID}.scope/container", ID[:12]),
        (f"machine.slice/libpod-conmon-{ID}.scope", None),
        ("kubepods.slice/kubepods-pod12ab.slice", None),
        ("system.slice/ssh.service", None),
        (f"system.slice/docker-{ID[:40]}.scope", None),
        (f"system.slice/docker-{ID.upper()}.scope", None),
        ("", None),
    ],
)
def test_runtimes_name_their_cgroups_each_in_its_way(path: str, container: str | None) -> None:
    assert container_of(Path(path)) == container


def test_a_cgroup_is_found_by_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "system.slice" / f"docker-{ID}.scope"
    inside.mkdir(parents=True)
    containers = Containers(tmp_path)
    assert containers.of(inside.stat().st_ino) == ID[:12]
    assert containers.of(inside.parent.stat().st_ino) == "-"
    assert containers.of(tmp_path.stat().st_ino) == "-"
    assert containers.of(2**63 + 1) == "?"


def test_a_cgroup_that_is_gone_is_remembered(tmp_path: Path) -> None:
    inside = tmp_path / f"docker-{ID}.scope"
    inside.mkdir()
    containers, inode = Containers(tmp_path), inside.stat().st_ino
    assert containers.of(inode) == ID[:12]
    inside.rmdir()
    assert containers.of(inode) == ID[:12]


def test_the_tree_is_read_once_in_a_while_however_many_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = Containers(tmp_path)
    now = 100.0
    monkeypatch.setattr("tickpath.probes.kernel.containers.time.monotonic", lambda: now)
    assert containers.of(2**63 + 1) == "?"
    later = tmp_path / f"docker-{ID}.scope"
    later.mkdir()
    assert containers.of(later.stat().st_ino) == "?"
    now += 1
    assert containers.of(later.stat().st_ino) == ID[:12]


def test_without_version_2_cgroups_nothing_is_known() -> None:
    assert Containers(None).of(1) == "?"
