# SPDX-License-Identifier: Apache-2.0
"""A container engine of the tests' own, out of Debian's packages: it sees neither a host's engine nor its netfilter.

It lives in a mount namespace, so that no mount of it is left behind, and, when `isolated`, in a network namespace, so
that bridges, published ports and netfilter chains are there and "the host's network" is that namespace: a loopback and
no NIC. Images are built in the host's network first, with no bridge and no netfilter. Image data is kept in the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickpath" / "stack"
_START_S = 60
_STOP_S = 60


def unpacked(suite: str, *packages: str) -> Path:
    """The folder with these Debian packages, fetched where they are not cached yet."""
    done = subprocess.run([HERE / "debian", suite, *packages], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


class Engine:
    """A running dockerd; `docker` and `compose` speak to it."""

    def __init__(self, folder: Path, daemon: subprocess.Popen[bytes], path: str, plugins: Path) -> None:
        self._daemon = daemon
        self._environment = os.environ | {
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "client"),
            "PATH": path,
        }
        (folder / "client" / "cli-plugins").mkdir(parents=True)
        (folder / "client" / "cli-plugins" / "docker-compose").symlink_to(plugins / "docker-compose")
        self._log = folder / "dockerd.log"

    @property
    def pid(self) -> int:
        """A process in the namespaces of the engine."""
        return self._daemon.pid

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """The argument vector that runs another one where containers have "the host's" network and mounts."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", "--", *map(str, argv)]

    def docker(
        self, *arguments: str | Path, check: bool = True, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the client to its end; both outputs are kept."""
        # It reads files of the host and of the engine's mounts alike, which are the same but for the ring directory.
        done = subprocess.run(
            ["docker", *map(str, arguments)],
            env=self._environment | (env or {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def answers(self) -> bool:
        return self.docker("version", "--format", "{{.Server.Version}}", check=False).returncode == 0

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def engine(*, isolated: bool) -> Iterator[Engine]:
    """An engine that ends with the block, with every process, mount, link and cgroup that it made. Root only.

    One at a time on a host: a second one would wait. They share the images, and the mount point of the ring directory.
    """
    with (Path(tempfile.gettempdir()) / "tickpath-stack.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with _engine(isolated=isolated) as found:
            yield found


@contextlib.contextmanager
def _engine(*, isolated: bool) -> Iterator[Engine]:
    docker = unpacked("trixie", "docker.io", "docker-cli", "containerd", "docker-compose")
    runc = unpacked("bookworm", "runc")
    path = f"{docker}/usr/bin:{docker}/usr/sbin:{runc}/usr/sbin:{os.environ['PATH']}"
    CACHE.mkdir(parents=True, exist_ok=True)
    cgroup = f"tickpath-stack-{os.getpid()}"
    # Short: a socket's path has 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="tp-stack-"))
    # Its temporary mounts are its own; where the host has a ring directory, the engine's containers see an empty one.
    prepare = 'mkdir -p /run/tickpath && mount -t tmpfs tickpath /run/tickpath && ip link set lo up && exec "$@"'
    network = ["--net"] if isolated else []
    chains = [] if isolated else ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
    had_rings = Path("/run/tickpath").exists()
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                # It ends with us, however we end, and its containers with it.
                *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private", *network),
                *("sh", "-euc", prepare, "sh"),
                *("dockerd", f"--data-root={CACHE / 'engine'}", f"--exec-root={folder / 'exec'}"),
                *(f"--pidfile={folder / 'dockerd.pid'}", f"--host=unix://{folder}/docker.sock", *chains),
                *("--config-file=/dev/null", f"--cgroup-parent=/{cgroup}", "--log-level=warn"),
            ],
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    found = Engine(folder, daemon, path, docker / "usr/libexec/docker/cli-plugins")
    try:
        deadline = time.monotonic() + _START_S
        while not found.answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine does not start:\n{found.log()}")
            time.sleep(0.1)
        yield found
    finally:
        _end(daemon)
        for controller in Path("/sys/fs/cgroup").glob(f"*/{cgroup}"):
            _remove_cgroup(controller)
        with contextlib.suppress(OSError):
            _remove_cgroup(Path("/sys/fs/cgroup") / cgroup)
        if not had_rings:
            with contextlib.suppress(OSError):
                Path("/run/tickpath").rmdir()
        shutil.rmtree(folder, ignore_errors=True)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    """Ends the engine as its operator would; containers still running are stopped by it."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _remove_cgroup(folder: Path) -> None:
    for below in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        below.rmdir()
    if folder.exists():
        folder.rmdir()
