# SPDX-License-Identifier: Apache-2.0
"""What chronyd and ptp4l say of themselves: by tools simulated on a PATH of the test's own, and by the real ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netns import Namespace, veth
from tickpath import discipline, servo
from tickpath.servo import Said
from traffic import wait_until

LOCKED = (
    "C0A80001,192.168.0.1,3,1795328593.492937061,0.000001234,-0.000000450,0.000002,1.250,0.001,0.010,"
    "0.002000000,0.000500000,64.2,Normal\n"
)
UNLOCKED = "00000000,,0,0.000000000,0.0,0.0,0.0,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n"
LOCAL = "7F7F0101,,8,1795328593.492937061,0.0,0.0,0.0,0.000,0.000,0.000,0.000000000,0.000000000,0.0,Normal\n"


def status(state: str, offset_ns: int = -42) -> str:
    return (
        "sending: GET TIME_STATUS_NP\nsending: GET PORT_DATA_SET\n"
        "\t921de2.fffe.577b37-0 seq 0 RESPONSE MANAGEMENT TIME_STATUS_NP \n"
        f"\t\tmaster_offset              {offset_ns}\n\t\tgmPresent                  true\n"
        "\t921de2.fffe.577b37-1 seq 1 RESPONSE MANAGEMENT PORT_DATA_SET \n"
        f"\t\tportIdentity            921de2.fffe.577b37-1\n\t\tportState               {state}\n"
    )


# The parsers


@pytest.mark.parametrize(
    ("text", "locked", "words"),
    [
        (LOCKED, True, "in lock with 192.168.0.1, stratum 3; +1.234 us still to correct, root distance 1.500 ms"),
        (UNLOCKED, False, "no source that it follows"),
        (LOCAL, False, "its own clock out as stratum 8"),
        ("506 Cannot talk to daemon\n", None, "cannot be read"),
        ("", None, "cannot be read"),
        (LOCKED.replace(",3,", ",three,"), None, "cannot be read"),
    ],
)
def test_what_chrony_tracks(text: str, locked: bool | None, words: str) -> None:
    said = servo.tracking(text)
    assert said.locked is locked
    assert words in said.detail


@pytest.mark.parametrize(
    ("text", "locked", "words"),
    [
        (status("SLAVE"), True, "-42 ns from it"),
        (status("TIME_RECEIVER", 7), True, "+7 ns from it"),
        (status("UNCALIBRATED"), False, "does not follow it (port UNCALIBRATED), -42 ns from it"),
        (status("LISTENING"), False, "it follows no clock (port LISTENING)"),
        (status("FAULTY"), False, "(port FAULTY)"),
        (status("MASTER"), True, "gives time to others"),
        (status("MASTER") + status("SLAVE"), True, "in lock"),
        ("sending: GET TIME_STATUS_NP\n", None, "no answer"),
    ],
)
def test_what_ptp4l_says_of_its_port(text: str, locked: bool | None, words: str) -> None:
    said = servo.time_status(text)
    assert said.locked is locked
    assert words in said.detail


@given(st.text(max_size=200), st.integers(0, len(LOCKED)))
@example("nan", 0)
@example("9" * 30, 0)
def test_no_text_is_too_odd_to_be_read_as_what_it_is(text: str, at: int) -> None:
    for parse, whole in ((servo.tracking, LOCKED), (servo.time_status, status("SLAVE"))):
        assert parse(text).detail
        assert parse(whole[:at] + text + whole[at:]).detail


# Simulated tools


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A simulated tool, alone on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_simulated_a_tool_is_asked_for_what_a_machine_reads(tool: Callable[[str, str], None]) -> None:
    tool("chronyc", f'[ "$*" = "-c -n tracking" ] && [ "$LC_ALL" = C ] && echo "{LOCKED.strip()}"')
    assert servo.chrony().locked is True
    tool("pmc", f'[ "$*" = "-u -b 0 GET TIME_STATUS_NP GET PORT_DATA_SET" ] && echo "{status("SLAVE")}"')
    assert servo.ptp("/usr/sbin/ptp4l -i eth0").locked is True


@pytest.mark.parametrize(
    "started",
    ["ptp4l --uds_address=/run/x --domainNumber 24", "ptp4l -i eth0 --domainNumber=24 --uds_address /run/x", "file"],
)
def test_simulated_ptp4l_is_asked_where_it_listens(
    tool: Callable[[str, str], None], tmp_path: Path, started: str
) -> None:
    if started == "file":
        (tmp_path / "conf").write_text("[global]\n# uds_address /run/z\nuds_address\t/run/x\ndomainNumber 24\n")
        started = f"ptp4l -i eth0 -f {tmp_path}/conf"
    tool(
        "pmc", f'[ "$*" = "-u -b 0 -s /run/x -d 24 GET TIME_STATUS_NP GET PORT_DATA_SET" ] && echo "{status("SLAVE")}"'
    )
    assert servo.ptp(started).locked is True


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 506 Cannot talk to daemon; exit 1", "chronyc could not ask it: 506 Cannot talk to daemon"),
        ("echo 501 Not authorised >&2; exit 1", "501 Not authorised"),
        ("exit 3", "code 3"),
        (":", "cannot be read"),
        ("printf '\\377\\376'", "cannot be read"),
        ("exec /bin/sleep 60", "gave no answer within 0.3 s"),
    ],
)
def test_simulated_a_tool_that_fails_or_hangs_leaves_it_unknown(
    tool: Callable[[str, str], None], script: str, words: str
) -> None:
    tool("chronyc", script)
    said = servo.chrony(timeout_s=0.3 if "sleep" in script else 30)
    assert said.locked is None
    assert words in said.detail


def test_a_tool_that_is_not_here_is_said(tool: Callable[[str, str], None]) -> None:
    del tool
    assert servo.chrony() == Said(None, "chronyc is not on the PATH")
    assert servo.ptp() == Said(None, "pmc is not on the PATH")


def test_simulated_doctor_says_in_one_line_who_runs_and_is_not_in_lock(tool: Callable[[str, str], None]) -> None:
    tool("chronyc", f'echo "{UNLOCKED.strip()}"')
    tool("pmc", f'echo "{status("SLAVE")}"')
    running = [
        discipline.Service("chronyd", 5, "chronyd"),
        discipline.Service("ptp4l", 6, "ptp4l"),
        discipline.Service("phc2sys", 7, "phc2sys"),
    ]
    chrony, ptp = discipline.servos(running)
    assert (chrony.subject, chrony.source, chrony.available) == ("clock.chronyd", "chronyd (pid 5)", False)
    assert chrony.detail == "runs and is not in lock: it has no source that it follows"
    assert chrony.remedy == "look at `chronyc sources`"
    assert (ptp.subject, ptp.available, ptp.remedy) == ("clock.ptp4l", True, None)
    tool("pmc", "exit 1")
    (ptp,) = discipline.servos(running[1:])
    assert ptp.available is False
    assert ptp.detail == "runs; whether it is in lock is not known: pmc could not ask it: code 1"


# The real ones, which must not touch a clock: chronyd -x, ptp4l free_running


def real(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(
        bool(missing) or os.geteuid() != 0, reason=f"needs root and {', '.join(missing or tools)}: chrony, linuxptp"
    )


@contextlib.contextmanager
def started(namespace: Namespace, *command: str) -> Iterator[None]:
    child = namespace.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


@pytest.mark.root
@real("chronyd", "chronyc")
@pytest.mark.parametrize(
    ("more", "words"), [("", "no source"), ("local stratum 8\n", "its own clock out as stratum 8")]
)
def test_a_real_chronyd_that_follows_nobody_says_so(tmp_path: Path, more: str, words: str) -> None:
    socket = tmp_path / "chronyd.sock"
    quiet = f"port 0\ncmdport 0\nbindcmdaddress {socket}\npidfile {tmp_path}/pid\n{more}"
    (tmp_path / "conf").write_text(quiet)
    asked = ("chronyc", "-h", str(socket), "-c", "-n", "tracking")
    with Namespace() as alone, started(alone, "chronyd", "-x", "-d", "-u", "root", "-f", str(tmp_path / "conf")):
        wait_until(lambda: servo.chrony(asked).locked is not None, "an answer")
        wait_until(lambda: words in servo.chrony(asked).detail, words)
        assert servo.chrony(asked).locked is False
    assert servo.chrony(asked).locked is None


@pytest.mark.root
@real("ptp4l", "pmc")
def test_real_ptp4ls_say_who_gives_time_and_who_does_not_follow(tmp_path: Path) -> None:
    def command(name: str, *more: str) -> list[str]:
        often = ["--logAnnounceInterval", "-3", "--logSyncInterval", "-3"]
        # Free running: it measures and sets nothing. Software stamps: of the host's clock.
        still = ["-S", "-i", "veth0", "--free_running", "1"]
        return ["ptp4l", *still, *often, "--uds_address", str(tmp_path / name), *more]

    giving, following = command("giving"), command("following", "--slaveOnly", "1")
    with Namespace() as here, Namespace() as there:
        veth(here, there)
        here.address("veth0", "10.0.0.1/24")
        there.address("veth0", "10.0.0.2/24")
        with started(there, *following):
            wait_until(lambda: "(port LISTENING)" in servo.ptp(" ".join(following)).detail, "it listens")
            with started(here, *giving):
                wait_until(lambda: "gives time to others" in servo.ptp(" ".join(giving)).detail, "the one gives")
                wait_until(lambda: "UNCALIBRATED), " in servo.ptp(" ".join(following)).detail, "the other measures")
                assert servo.ptp(" ".join(following)).locked is False
