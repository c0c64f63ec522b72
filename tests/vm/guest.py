# SPDX-License-Identifier: Apache-2.0
"""One guest: boots a kernel in software emulation and runs a command in a copy of this checkout."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vm.images import PYTHON, ROOT, ImageError, Kernel, disk, kernel_folder, root_image, say

# What only building and linting need.
_LEFT_OUT = ("Cython", "ast_serialize", "clang_format", "librt", "mesonbuild", "mypy", "mypyc", "pip")
_LEFT_OUT_ENDINGS = ("__mypyc.cpython-311-x86_64-linux-gnu.so",)
# On a busy host an emulated timer may be too late for the kernel's check of it.
_APPEND = "console=ttyS0 loglevel=4 panic=-1 mitigations=off no_timer_check"
_MEMORY_MIB = 1536
# Two NICs on one cable, and an IOMMU, without which vfio-pci takes none: one that DPDK has a driver for and Debian's
# kernel for virtual machines has not, and one for who is at its other end.
_CABLE = (
    *("-device", "intel-iommu,intremap=on", "-netdev", "hubport,id=near,hubid=0", "-netdev", "hubport,id=far,hubid=0"),
    *("-device", "e1000e,netdev=near,mac=02:00:00:00:00:02"),
    *("-device", "virtio-net-pci,netdev=far,mac=02:00:00:00:00:01,csum=off,gso=off,host_mtu=9000"),
)
# Two captures' memory in huge pages: one that was killed may not have given its own back yet.
_CABLE_APPEND = "intel_iommu=on hugepages=72 tickpath.cable"
_CONSOLE_LINES = 40
_BOOTS = 3
_BOOT_LIMIT_S = 300.0
_BEGUN = b"tickpath: the guest runs its command"


class GuestError(Exception):
    """A guest that did not come to its end; says what its console said last."""


class NotBootedError(GuestError):
    """It did not come to its command. An emulated processor now and then trips over code that another one patches."""


@dataclass(frozen=True)
class Ended:
    """A command that came to its end in a guest."""

    status: int
    seconds: float


def payload(image: Path) -> None:
    """A disk with what differs between checkouts: the files that git knows, the installed package and its needs."""
    if sys.version_info[:2] != PYTHON:
        raise ImageError(
            f"guests run Python {PYTHON[0]}.{PYTHON[1]}, and this environment {sys.version_info[0]}."
            f"{sys.version_info[1]}: make it anew with make PYTHON=python{PYTHON[0]}.{PYTHON[1]}"
        )
    stage = image.with_suffix(".d")
    site = Path(sysconfig.get_path("purelib"))
    stage.mkdir()
    shutil.copytree(site, stage / "site", ignore=_left_out, symlinks=True)
    known = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, known.split("\0")):
        if (ROOT / name).is_file():
            (stage / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, stage / "checkout" / name)
    disk(stage, image)
    shutil.rmtree(stage)


def _left_out(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _LEFT_OUT or name.endswith(_LEFT_OUT_ENDINGS)}


def run(
    kernel: Kernel,
    command: str,
    folder: Path,
    *,
    payload: Path,
    timeout_s: float,
    append: str = "",
    cable: bool = False,
    listen: Callable[[bytes], object] = lambda _: None,
    stop: threading.Event | None = None,
) -> Ended:
    """Boot, run the shell command in the checkout, end; GuestError when it does not end within `timeout_s`.

    A boot that fails is tried again, and said. `listen` gets the command's words as they come; `stop`, once set, ends
    the guest. `folder`, empty, gets `console`, `output` and the files that the command left in the guest's /results
    below `results`. No guest outlives this call, nor this process.
    """
    system, made = root_image(), kernel_folder(kernel)
    script = folder / "command"
    script.write_bytes(command.encode() + b"\n")
    os.truncate(script, (script.stat().st_size + 511) // 512 * 512)
    words = (_APPEND, kernel.words, _CABLE_APPEND if cable else "", append)
    argv = [
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi"),
        *("-cpu", "max", "-smp", "2", "-m", f"{_MEMORY_MIB}M", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-serial", f"file:{folder / 'console'}"),
        *("-kernel", made / "vmlinuz", "-initrd", made / "initrd"),
        *("-append", " ".join(filter(None, words))),
        *_drive(system),
        *_drive(made / "modules.ext4"),
        *_drive(payload),
        *_drive(script),
        *kernel.devices,
        *("-device", "virtio-serial-pci", *_port(1, folder / "output"), *_port(2, folder / "returned")),
        *(_CABLE if cable else ()),  # behind the ports, whose names are by the order of the devices
    ]
    return boot(list(map(str, argv)), folder, timeout_s, listen, stop)


def boot(
    argv: list[str],
    folder: Path,
    timeout_s: float,
    listen: Callable[[bytes], object] = lambda _: None,
    stop: threading.Event | None = None,
) -> Ended:
    """Start the emulator until its guest comes to its command, three times at most; as `run` from then on."""
    boots_left = _BOOTS
    while True:
        boots_left -= 1
        try:
            return _once(argv, folder, timeout_s, listen, stop)
        except NotBootedError as error:
            if not boots_left:
                raise
            say(f"boots again: {error}")


def _once(
    argv: list[str],
    folder: Path,
    timeout_s: float,
    listen: Callable[[bytes], object],
    stop: threading.Event | None,
) -> Ended:
    for name in ("console", "output", "returned"):
        (folder / name).write_bytes(b"")
    began, begun = time.monotonic(), False
    with (folder / "emulator").open("wb") as errors, (folder / "output").open("rb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            while process.poll() is None and time.monotonic() - began < timeout_s:
                listen(output.read())
                if stop and stop.is_set():
                    raise GuestError("stopped")
                begun = begun or _has_begun(folder)
                if not begun and time.monotonic() - began > _BOOT_LIMIT_S:
                    break
                time.sleep(0.1)
            ended = process.poll() is not None
        finally:
            process.kill()
            process.wait()
        listen(output.read())
    seconds = time.monotonic() - began
    if not _has_begun(folder):
        raise NotBootedError(f"not at its command after {seconds:.0f} s; {_last_words(folder)}")
    if not ended:
        raise GuestError(f"not at its end within {timeout_s:g} s; {_last_words(folder)}")
    results = folder / "results"
    try:
        with tarfile.open(folder / "returned") as returned:
            returned.extractall(results, filter="data")
        status = int((results / "status").read_text())
    except (tarfile.TarError, OSError, ValueError):
        raise GuestError(f"ended without a result after {seconds:.0f} s; {_last_words(folder)}") from None
    return Ended(status, seconds)


def _has_begun(folder: Path) -> bool:
    """Also where the kernel said something amid the line on the console: what the command said or left shows it too."""
    left = any((folder / name).stat().st_size for name in ("output", "returned"))
    return left or _BEGUN in (folder / "console").read_bytes()


def quoted(words: list[str]) -> str:
    """One word is a line for the guest's shell; several are a command and its arguments."""
    return words[0] if len(words) == 1 else shlex.join(words)


def _drive(path: Path) -> tuple[str, str]:
    return "-drive", f"file={path},format=raw,if=virtio,readonly=on,cache=unsafe,file.locking=off"


def _port(number: int, path: Path) -> tuple[str, ...]:
    return (
        "-chardev",
        f"file,id=port{number},path={path}",
        "-device",
        f"virtserialport,chardev=port{number},nr={number}",
    )


def _last_words(folder: Path) -> str:
    console = (folder / "console").read_text(errors="replace").splitlines()
    emulator = (folder / "emulator").read_text(errors="replace").splitlines()
    return "\n  ".join(["its console's last lines:", *(emulator + console)[-_CONSOLE_LINES:]])
