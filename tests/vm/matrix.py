# SPDX-License-Identifier: Apache-2.0
"""`make test-vm`: tests in guests, the kernel probe's rung by kernel; exit code 1 if unlike matrix.toml."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))

from vm.guest import GuestError, payload, quoted, run
from vm.images import KERNELS, ImageError, kernel_folder, root_image, say

RUNGS = ("tp_btf", "fentry", "kprobe", "auto", "bcc")
# What is no rung of the kernel probe, and in no column of theirs.
HARDWARE = "hardware"
# At a load of 16 on two processors the longest of them needs some 2200 s.
_GUEST_TIMEOUT_S = 3600.0
_AT_ONCE = 2


@dataclass(frozen=True)
class Guest:
    """A row of matrix.toml."""

    name: str
    kernel: str
    lockdown: str
    rungs: dict[str, str]
    cable: bool = False
    """Whether it has two NICs on one cable, one of them to give to DPDK."""


@dataclass(frozen=True)
class Cell:
    """What one rung came to in one guest; `wrong` says how it is unlike the expected, empty: it is as expected."""

    guest: str
    release: str
    rung: str
    expected: str
    found: str
    wrong: str


def main() -> int:
    """Boot, test, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="guests whose name contains this")
    parser.add_argument("--json", type=Path, help="file for the cells")
    parser.add_argument("-v", action="store_true", help="show what the guests say as they say it")
    arguments = parser.parse_args()
    # An end by word runs the finally clauses: they end the guests and remove the disks.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    matrix = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    guests = [Guest(**row) for row in matrix["guest"] if arguments.only in row["name"]]
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            making = [pool.submit(root_image)]
            making += [pool.submit(kernel_folder, KERNELS[name]) for name in {guest.kernel: None for guest in guests}]
            for image in making:
                image.result()
        with tempfile.TemporaryDirectory(prefix="tickpath-vm-") as temporary:
            payload(Path(temporary) / "payload.ext4")
            cells = _played(guests, matrix["suites"], Path(temporary), arguments.v)
            figures = [line for number in range(len(guests)) for line in _figures(Path(temporary) / str(number))]
    except ImageError as error:
        print(f"tickpath vm: {error}", file=sys.stderr)
        return 125
    _print(guests, cells, figures)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    wrong = sum(bool(cell.wrong) for cell in cells)
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{len(cells) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


def _played(guests: list[Guest], suites: dict[str, list[str]], folder: Path, talkative: bool) -> list[Cell]:
    stop = threading.Event()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            futures = [
                pool.submit(
                    _play,
                    guest,
                    suites,
                    folder / str(number),
                    disk=folder / "payload.ext4",
                    talkative=talkative,
                    stop=stop,
                )
                for number, guest in enumerate(guests)
            ]
            return [cell for future in futures for cell in future.result()]
        finally:
            # Also when a person stops us: no guest goes on, and none begins.
            stop.set()


def _play(
    guest: Guest, suites: dict[str, list[str]], folder: Path, *, disk: Path, talkative: bool, stop: threading.Event
) -> list[Cell]:
    folder.mkdir()
    words = []
    for rung, expected in guest.rungs.items():
        word, _, suite = expected.partition(" ")
        words.append(f"{rung}={' '.join(suites[suite] if word == 'passed' else [])}")
    ended = "it did not run"
    try:
        came = run(
            KERNELS[guest.kernel],
            quoted(["python3", "-P", "tests/vm/cells.py", *words]),
            folder,
            payload=disk,
            timeout_s=_GUEST_TIMEOUT_S,
            append="" if guest.lockdown == "none" else f"lockdown={guest.lockdown}",
            cable=guest.cable,
            listen=lambda said: talkative and sys.stdout.buffer.write(said) and sys.stdout.buffer.flush(),
            stop=stop,
        )
        say(f"{guest.name}: at its end after {came.seconds:.0f} s")
    except GuestError as error:
        ended = "the guest did not come to its end"
        say(f"{guest.name}: {error}")
    cells = [_judged(guest, rung, folder / "results", suites["skips"], ended) for rung in guest.rungs]
    for table in sorted((folder / "results").glob("*.table")):
        print(f"--- {guest.name}\n{table.read_text()}", end="", flush=True)
    if any(cell.wrong for cell in cells):
        said = (folder / "output").read_text(errors="replace").splitlines()
        print("\n".join([f"--- {guest.name} said", *said[-400:]]), flush=True)
    return cells


def _judged(guest: Guest, rung: str, results: Path, skips: list[str], ended: str) -> Cell:
    expected = guest.rungs[rung]
    release = _text(results / "release") or guest.kernel
    lockdown = _text(results / "lockdown")
    found, wrong = ended, ended
    if (results / f"{rung}.xml").exists():
        found, wrong = _counted(results / f"{rung}.xml", skips)
    elif (results / f"{rung}.refusal").exists():
        status, _, said = (results / f"{rung}.refusal").read_text().partition("\n")
        found = "refused" if status != "0" else "offered"
        words = expected.removeprefix("refused: ")
        if status == "0":
            wrong = f"expected to be refused with '{words}', and runs"
        elif len(said.splitlines()) != 1 or words not in said:
            wrong = f"refused without one line that says '{words}': {said}"
        else:
            wrong = ""
    if lockdown and lockdown != guest.lockdown:
        wrong = f"the guest's lockdown is {lockdown}"
    return Cell(guest.name, release, rung, expected, found, wrong)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _counted(report: Path, skips: list[str]) -> tuple[str, str]:
    """'N passed', and what is wrong: tests that failed or skipped for another reason than these, or none at all."""
    failed, unexpected, passed = [], [], 0
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(case.get("name", ""))
        elif skipped is None:
            passed += 1
        elif not any(re.search(reason, skipped.get("message", "")) for reason in skips):
            unexpected.append(f"{case.get('name')} ({skipped.get('message')})")
    wrong = [f"failed: {', '.join(failed)}"] if failed else []
    wrong += [f"skipped: {', '.join(unexpected)}"] if unexpected else []
    wrong += [] if passed or wrong else ["no test ran"]
    return f"{passed} passed" + (f", {len(failed)} failed" if failed else ""), "; ".join(wrong)


def _figures(folder: Path) -> list[str]:
    """What the tests of hardware stamps measured in a guest, by what they looked at."""
    path = folder / "results" / "hardware.json"
    if not path.exists():
        return []
    lines = []
    for looked_at, found in json.loads(path.read_text()).items():
        words = [f"{name} {value:g}" for name, value in found.items() if not isinstance(value, str)]
        lines.append(f"{looked_at:<12}{', '.join(words)}")
    return lines


def _print(guests: list[Guest], cells: list[Cell], figures: list[str]) -> None:
    at = {(cell.guest, cell.rung): cell for cell in cells}
    print(f"{'guest':<20}{'kernel':<28}" + "".join(f"{rung:<18}" for rung in RUNGS))
    for guest in guests:
        release = next(cell.release for cell in cells if cell.guest == guest.name)
        if HARDWARE in guest.rungs:
            print(f"{guest.name:<20}{release:<28}{HARDWARE}: {at[guest.name, HARDWARE].found}")
            continue
        found = (at[guest.name, rung].found if rung in guest.rungs else "-" for rung in RUNGS)
        print(f"{guest.name:<20}{release:<28}" + "".join(f"{words[:17]:<18}" for words in found))
    for line in figures:
        print(line)
    for cell in cells:
        if cell.wrong:
            print(f"unexpected: {cell.guest}, {cell.rung}: {cell.wrong}")


if __name__ == "__main__":
    sys.exit(main())
