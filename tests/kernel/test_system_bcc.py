# SPDX-License-Identifier: Apache-2.0
"""When bcc is asked, what it hands over, and what an operator is told who lacks it; with stand-ins for its Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import structlog

from tickpath.probes.kernel import programs
from tickpath.probes.kernel.programs import UnavailableError, load
from tickpath.probes.kernel.system_bcc import BccError, attach
from tickpath.selector import Selector

pytest.importorskip("tickpath.probes.kernel._tracer", reason="built without the kernel probe")


def _stand_in(folder: Path, body: str) -> Path:
    """An executable that is called as the system's Python would be."""
    path = folder / "python3"
    path.write_text(f"#!{sys.executable}\nimport sys, os, socket\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "reason", "remedy"),
    [
        ("sys.exit(3)", "has no bcc", "apt install python3-bpfcc"),
        (
            "sys.exit('chdir(/lib/modules/9/build): No such file or directory\\nException: Failed to compile')",
            "no headers of kernel",
            f"apt install linux-headers-{os.uname().release}",
        ),
        ("sys.exit('bpf: Failed to load program: Operation not permitted')", "may not load", "run it as root"),
        ("print('x.c:1:2: error: no such thing\\nException: Failed')", "error: no such thing", None),
        ("os.kill(os.getpid(), 9)", "exit code -9", None),
    ],
)
def test_what_bcc_lacks_is_one_line_with_its_remedy(tmp_path: Path, body: str, reason: str, remedy: str | None) -> None:
    with pytest.raises(BccError) as failed:
        attach(b"", buffer_bytes=4096, python=_stand_in(tmp_path, body))
    assert reason in failed.value.reason
    assert failed.value.remedy == remedy
    assert "\n" not in str(failed.value)


def test_without_a_system_python_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BccError, match="apt install python3-bpfcc"):
        attach(b"", buffer_bytes=4096, python=tmp_path / "none")


def test_what_is_attached_comes_as_descriptors_and_no_other_is_left(tmp_path: Path) -> None:
    names = ["events", "counters", "program c", "program a", "program b", "tracepoint x", "tracepoint y"]
    body = (
        f"names = {names!r}\n"
        "held = [os.memfd_create(name) for name in names]\n"
        "at = sys.argv[3:]  # -I, attach.py, then its own\n"
        "assert sys.argv[1] == '-I' and os.path.exists(sys.argv[2]) and os.path.exists(at[1])\n"
        "assert os.path.exists(os.path.join(at[2], 'tickpath/event.h')) and at[3] == '2'\n"
        "assert bytes.fromhex(at[4]) == b'\\1' + bytes(7) + b'config'\n"
        "socket.send_fds(socket.socket(fileno=int(at[0])), ['\\n'.join(names).encode()], held)\n"
    )
    before = _descriptors()
    got = attach(b"config", buffer_bytes=8192, python=_stand_in(tmp_path, body))
    assert [_name(fd) for fd in (got.events, got.counters)] == ["events", "counters"]
    assert [_name(fd) for fd in got.programs] == ["program a", "program b"]
    assert [_name(fd) for fd in got.tracepoints] == ["tracepoint x", "tracepoint y"]
    held = [got.events, got.counters, *got.programs, *got.tracepoints]
    for fd in held:
        os.close(fd)
    assert _descriptors() == before


def _descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def _name(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).removeprefix("/memfd:").removesuffix(" (deleted)")


def _refuses(number: int) -> Callable[..., NoReturn]:
    def tracer(*_arguments: object, **_named: object) -> NoReturn:
        raise OSError(number, "no types")

    return tracer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bytes]:
    """The configurations that bcc was asked to serve; it never can. The kernel has no types of its own."""
    configs: list[bytes] = []

    def refuse(config: bytes, *, buffer_bytes: int) -> NoReturn:
        assert buffer_bytes == 4096
        configs.append(config)
        raise BccError("there is no bcc", "install it")

    monkeypatch.setattr(programs, "OWN_TYPES", tmp_path / "none")
    monkeypatch.setattr(programs, "system_bcc", SimpleNamespace(attach=refuse, BccError=BccError))
    monkeypatch.setattr(programs, "_lockdown", lambda: "")
    monkeypatch.setattr("tickpath.probes.kernel._tracer.Tracer", _refuses(2))
    return configs


def _load(rung: str = "auto", *, btf: Path | None = None, last_resort: bool = True) -> str:
    with structlog.testing.capture_logs() as said, pytest.raises(UnavailableError) as refused:
        load([Selector(1)], buffer_bytes=4096, rung=rung, btf=btf, last_resort=last_resort)
    assert "\n" not in str(refused.value)
    if rung == "auto" and "there is no bcc" in str(refused.value):
        assert [line["event"] for line in said] == ["no_types"]
    return str(refused.value)


def test_without_types_bcc_is_asked_and_both_reasons_are_told(asked: list[bytes]) -> None:
    line = _load()
    assert len(asked) == 1
    assert "no types, and there is no bcc; " in line
    assert "--btf, or install it" in line


def test_types_from_a_file_are_tried_before_bcc(asked: list[bytes]) -> None:
    line = _load(btf=Path("/given.btf"))
    assert len(asked) == 1
    assert line.index("/given.btf") < line.index("bcc")


@pytest.mark.parametrize("rung", ["tp_btf", "fentry", "kprobe"])
def test_a_rung_that_is_wanted_alone_does_not_become_bcc(asked: list[bytes], rung: str) -> None:
    _load(rung)
    assert not asked


def test_who_only_looks_does_not_compile(asked: list[bytes]) -> None:
    _load(last_resort=False)
    assert not asked


def test_where_the_kernel_has_types_bcc_is_not_asked_but_by_name(
    asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "OWN_TYPES", Path("/"))
    _load()
    assert not asked
    assert "there is no bcc; install it" in _load("bcc")
    assert len(asked) == 1


def test_who_may_not_load_programs_is_told_that_and_no_more(
    asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickpath.probes.kernel._tracer.Tracer", _refuses(1))
    assert "sudo" in _load()
    assert not asked


def test_the_settings_are_those_of_the_c_structure(asked: list[bytes]) -> None:
    _load("bcc")
    (config,) = asked
    selectors: Sequence[int] = config[8:12]
    assert int.from_bytes(bytes(selectors), sys.byteorder) == 1
    assert config[16 + 16 : 16 + 18] == (1).to_bytes(2, "big")
