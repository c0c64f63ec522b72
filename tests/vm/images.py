# SPDX-License-Identifier: Apache-2.0
"""What a guest boots from, made of Debian's packages once for each contents and kept in the cache.

One root file system serves every kernel; a kernel comes as its image, an initrd with what finds the disks, and a disk
of its modules. Each lives in a folder named by a key of all that it is made from but the archive's state: a cached one
is not made anew because Debian published an update.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITE = "bookworm"
PYTHON = (3, 11)  # the suite's
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# bpfcc brings its own compiler: the rung for kernels without BTF. DPDK's drivers are plug-ins: nothing needs them.
_PACKAGES = (
    *("bpftool", "ethtool", "iproute2", "iputils-ping", "kmod", "libbpf1", "mount", "netbase", "nftables", "openssl"),
    *("procps", "python3", "python3-bpfcc", "tcpdump", "util-linux"),
    *("dpdk", "librte-bus-pci23", "librte-bus-vdev23", "librte-mempool-ring23", "librte-net-af-packet23"),
    *("librte-net-e1000-23", "librte-net-null23", "librte-net-pcap23", "librte-net-ring23", "librte-net-virtio23"),
)
_NOT_INSTALLED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# What the initrd loads, with what these need.
_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "overlay")
# Debian's kernel for virtual machines: the same source with fewer drivers, a third of the size.
_FLAVOUR = "cloud-amd64"
_UNUSED_S = 14 * 86400
_MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0")


class ImageError(Exception):
    """No image can be made here; one line for a person."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by the name under which the matrix knows it, the suites that offer it, what it must be booted with."""

    name: str
    suites: tuple[str, ...]
    words: str = ""
    flavour: str = _FLAVOUR
    module: str = ""  # a folder beside this file, of a kernel module to be made for it
    devices: tuple[str, ...] = ()  # words for the emulator


# QEMU 7.2 computes wrong flags for cmpxchg16b, and these die of it: told not to use it, they live. The newest does not,
# and without it would give BPF no socket storage.
_NO_CX16 = "clearcpuid=cx16"

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("6.1", ("bookworm", "bookworm-security"), _NO_CX16),
        Kernel("6.12", ("bookworm-backports",), _NO_CX16),
        Kernel("newest", ("trixie-backports",)),
        # The whole of it, for its drivers: two NICs on one wire, and a module of our own.
        Kernel(
            "6.12-nics",
            ("bookworm-backports",),
            _NO_CX16,
            "amd64",
            "hwts",
            (
                *("-netdev", "hubport,id=a,hubid=0", "-netdev", "hubport,id=b,hubid=0"),
                *("-device", "e1000e,netdev=a", "-device", "e1000e,netdev=b"),
            ),
        ),
    )
}


def cache() -> Path:
    """The folder that keeps the images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickpath" / "vm"


def root_image() -> Path:
    """The root file system's disk, made if need be."""
    key = _key(SUITE, *_PACKAGES, *_NOT_INSTALLED, *_recipe(_make_root, disk))
    return _kept("root", key, _make_root) / "root.ext4"


def kernel_folder(kernel: Kernel) -> Path:
    """A folder with the kernel's `vmlinuz`, `initrd`, `modules.ext4` and `release`, made if need be."""
    recipe = _recipe(_make_kernel, _kernel_packages, _add_headers, _make_initrd, disk)
    if kernel.module:
        recipe += [*_recipe(_add_module), *(path.read_text() for path in sorted((HERE / kernel.module).iterdir()))]
    key = _key(*kernel.suites, kernel.flavour, *_MODULES, (HERE / "init").read_text(), *recipe)
    return _kept(f"kernel-{kernel.name}", key, lambda folder: _make_kernel(kernel, folder))


def disk(folder: Path, image: Path) -> None:
    """An ext4 disk that holds what `folder` holds."""
    used = sum(4096 + (entry.lstat().st_size + 4095) // 4096 * 4096 for entry in folder.rglob("*"))
    _run(*_MKE2FS, "-d", folder, image, f"{(used * 108 // 100 >> 20) + 32}M")


def say(line: str) -> None:
    """To standard error: fetching takes minutes and should not look hung."""
    print(f"tickpath vm: {line}", file=sys.stderr, flush=True)


def _recipe(*steps: Callable[..., object]) -> list[str]:
    return [inspect.getsource(step) for step in steps]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _kept(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder NAME-KEY, which `make` fills under another name first: what has its name is whole."""
    done = cache() / f"{name}-{key}"
    if done.exists():
        with contextlib.suppress(PermissionError):
            os.utime(done)  # in use: nobody's making of another one removes it
        return done
    if os.geteuid():
        raise ImageError(f"making the image {name} needs root (once; then anybody of the same cache may use it)")
    cache().mkdir(parents=True, exist_ok=True)
    with _locked(cache() / f"{name}.lock"):
        if done.exists():
            return done
        for left in cache().glob(f"{name}.making-*"):
            shutil.rmtree(left, ignore_errors=True)
        for older in cache().glob(f"{name}-{'?' * len(key)}"):
            if time.time() - older.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(older, ignore_errors=True)
        # A name of its own: what a killed maker started may still write for a moment.
        making = Path(tempfile.mkdtemp(prefix=f"{name}.making-", dir=cache()))
        making.chmod(0o755)
        began = time.monotonic()
        say(f"making the image {name}")
        try:
            make(making)
            making.rename(done)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        say(f"made the image {name} in {time.monotonic() - began:.0f} s")
    return done


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes {path.stem}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Its standard output; ImageError with the end of what it said."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd)
    except FileNotFoundError as error:
        raise ImageError(f"no {error.filename} here: tools/system-packages vm names what guests need") from None
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-5:])
        raise ImageError(f"{' '.join(map(str, command))[:300]}: exit code {done.returncode}\n{said}")
    return done.stdout


def _fetched(*command: str | Path, cwd: Path | None = None) -> None:
    _run(ROOT / "tools" / "retry", *command, cwd=cwd)


def _mirror(label: str) -> str:
    """Where this machine gets its own packages from."""
    if given := os.environ.get("DEBIAN_MIRROR" if label == "Debian" else "DEBIAN_SECURITY_MIRROR"):
        return given
    known = _run("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    for line in known.splitlines():
        if line.startswith(f"{label} "):
            return line.removeprefix(f"{label} ")
    raise ImageError(f"apt knows no source of {label} here: set DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR to theirs")


def _sources(suites: tuple[str, ...]) -> list[str]:
    labels = ["Debian-Security" if suite.endswith("-security") else "Debian" for suite in suites]
    return [
        f"deb [signed-by={_KEYRING}] {_mirror(label)} {suite} main" for label, suite in zip(labels, suites, strict=True)
    ]


def _make_root(folder: Path) -> None:
    tree = folder / "tree"
    _fetched(
        *("sh", "-c", 'rm -rf "$0" && exec "$@"', str(tree)),
        *("mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(_PACKAGES)}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_INSTALLED),
        *(SUITE, str(tree), *_sources((SUITE, f"{SUITE}-security"))),
    )
    disk(tree, folder / "root.ext4")
    shutil.rmtree(tree)


def _make_kernel(kernel: Kernel, folder: Path) -> None:
    tree = folder / "tree"
    packages = _kernel_packages(kernel, folder / "apt")
    for package in packages:
        _run("dpkg", "-x", package, tree)
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    modules = tree / "lib" / "modules"
    (release,) = (path.name for path in modules.iterdir())
    (image,) = [*(tree / "boot").glob("vmlinuz-*"), *modules.glob("*/vmlinuz")]
    if kernel.module:
        _add_module(HERE / kernel.module, tree, release)
    _run("depmod", "-b", tree, release)
    image.rename(folder / "vmlinuz")
    (folder / "release").write_text(release)
    _add_headers(tree, modules / release)
    _make_initrd(tree, release, folder)
    disk(modules, folder / "modules.ext4")
    shutil.rmtree(tree)
    shutil.rmtree(folder / "apt")


def _add_module(source: Path, tree: Path, release: str) -> None:
    """Compile it with the kernel's own headers and build system, and put it where modprobe finds it."""
    building = tree / "building"
    shutil.copytree(source, building)
    sources = tree / "usr" / "src"
    headers = sources / f"linux-headers-{release}"
    # It names the place where the packages are installed, which is elsewhere here; and without the kernel itself no
    # types are made for the module.
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src", str(sources)))
    (headers / "vmlinux").unlink(missing_ok=True)
    _run("make", "-s", "-C", headers, "CC=gcc", f"M={building}", "modules")
    extra = tree / "lib" / "modules" / release / "extra"
    extra.mkdir()
    shutil.copy(building / f"{source.name}.ko", extra)
    shutil.rmtree(building)


def _add_headers(tree: Path, modules: Path) -> None:
    """What bcc compiles against, on the disk of the modules: C headers alone, of this architecture and of all."""
    sources = tree / "usr" / "src"
    for link in ("build", "source"):
        wanted = sources / (modules / link).readlink().name
        (modules / link).unlink()
        for part in ("include", "arch/x86/include"):
            if (wanted / part).exists():
                shutil.copytree(wanted / part, modules / link / part)


def _kernel_packages(kernel: Kernel, private: Path) -> list[Path]:
    """Download the kernel's own packages with an apt of our own, which knows these suites and nothing installed."""
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (private / name).mkdir(parents=True)
    (private / "status").touch()
    (private / "sources.list").write_text("\n".join(_sources(kernel.suites)) + "\n")
    options = {
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "Dir::Cache": private / "cache",
        "Dir::Etc::sourcelist": private / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": private / "lists",
        "Dir::State::status": private / "status",
    }
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _fetched("apt-get", "-qq", *flags, "update")
    # Newer ones come in several packages, of which the one with the plain name needs the others.
    wanted: list[str] = []
    ahead = [f"linux-image-{kernel.flavour}", f"linux-headers-{kernel.flavour}"]
    kinds = "base|binary|headers|image|modules" + ("|kbuild" if kernel.module else "")
    while ahead:
        described = _run("apt-cache", *flags, "show", "--no-all-versions", ahead.pop())
        depends = described.partition("\nDepends:")[2].partition("\n")[0]
        needed = re.findall(rf"linux-(?:{kinds})-\d[^ ,]*", depends)
        ahead += [name for name in needed if name not in wanted]
        wanted += [name for name in needed if name not in wanted]
    if not wanted:
        raise ImageError(f"{' '.join(kernel.suites)} offers no linux-image-{kernel.flavour}")
    _fetched("apt-get", "-qq", *flags, "download", *wanted, cwd=private / "packages")
    return sorted((private / "packages").glob("*.deb"))


def _make_initrd(tree: Path, release: str, folder: Path) -> None:
    content = folder / "initrd.d"
    for name in ("bin", "dev", "modules", "proc", "sys"):
        (content / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", content / "bin" / "busybox")
    shutil.copy(HERE / "init", content / "init")
    (content / "init").chmod(0o755)
    order: dict[str, None] = {}
    for wanted in _MODULES:
        steps = _run("modprobe", "-d", tree, "-S", release, "--ignore-install", "--show-depends", wanted)
        for path in (Path(line.split()[1]) for line in steps.splitlines() if line.startswith("insmod ")):
            data, name = path.read_bytes(), path.name
            if path.suffix == ".xz":
                data, name = lzma.decompress(data), path.stem
            (content / "modules" / name).write_bytes(data)
            order[name] = None
    (content / "modules" / "order").write_text("\n".join(order) + "\n")
    _run("sh", "-c", f"find . | cpio -o -H newc --quiet -R 0:0 >'{folder / 'initrd'}'", cwd=content)
    shutil.rmtree(content)
