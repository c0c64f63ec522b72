# SPDX-License-Identifier: Apache-2.0
"""Which container a task is in, by the id of its version 2 cgroup: what runtimes name their cgroups says it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
# docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope, kubepods…:cri-containerd:ID, docker/ID.
_ID = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
_MONITOR = "-conmon-"
_SHORT = 12
_RESCAN_SECONDS = 1.0
_MOST_FOLDERS = 65536


def container_of(path: Path) -> str | None:
    """The short id of the innermost container that a cgroup's path names; None: it is none's."""
    for part in reversed(path.parts):
        found = _ID.search(part)
        if found and _MONITOR not in part:
            return found[1][:_SHORT]
    return None


def mounted() -> Path | None:
    """Where version 2 cgroups are mounted; None: nowhere."""
    for line in _MOUNTS.read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder.encode().decode("unicode_escape"))
    return None


class Containers:
    """Looks cgroups up below `root` and remembers them, also those that are gone by then."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._found: dict[int, str | None] = {}
        self._scanned = float("-inf")

    def of(self, cgroup: int) -> str:
        """The container's short id, '-' outside of containers, '?' where the cgroup is not to be found (any more)."""
        if self._root is None:
            return "?"
        # A cgroup that was removed would have the whole tree read for each of its attempts.
        if cgroup not in self._found and time.monotonic() - self._scanned >= _RESCAN_SECONDS:
            self._scan(self._root)
            self._scanned = time.monotonic()
        return (self._found[cgroup] or "-") if cgroup in self._found else "?"

    def _scan(self, root: Path) -> None:
        if len(self._found) > _MOST_FOLDERS:
            self._found.clear()
        self._found[root.stat().st_ino] = None
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    inside = [
                        (entry.inode(), Path(entry.path)) for entry in entries if entry.is_dir(follow_symlinks=False)
                    ]
            except OSError:
                continue  # removed since it was listed
            for inode, path in inside:
                self._found[inode] = container_of(path.relative_to(root))
                folders.append(path)
