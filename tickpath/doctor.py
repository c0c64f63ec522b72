# SPDX-License-Identifier: Apache-2.0
"""`tickpath doctor`: what this host offers per hop and clock, which source is used, and what would improve it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickpath import __version__
from tickpath.capability import GROUP, Capability
from tickpath.command import Command

# The hops of DESIGN 2 in their order, and what to say where no part of this installation speaks for one.
_NO_PART = "no part of this installation measures it"
HOPS = {
    "bn_to_nic": _NO_PART,
    "nic_to_kernel": _NO_PART,
    "kernel_to_user": _NO_PART,
    "nic_to_user": _NO_PART,
    "cpu": _NO_PART,
    "msk": _NO_PART,
}
# The first word of a subject's name -> the heading it stands under; parts and spans stand with the hops.
HOP = ""
# Below this width a source stands before what was found, not in a column of its own.
_WIDE_COLUMNS = 110
GROUPS = {HOP: "Hops", "clock": "Clocks", "host": "Host"}


@dataclass(frozen=True)
class Subject:
    """A hop, clock or property of the host with all its sources, best first."""

    name: str
    used: str | None
    sources: list[Capability]

    @property
    def improvements(self) -> list[Capability]:
        """What an operator can better: sources above the one in use that can be had, and that one itself."""
        best = next((source.rank for source in self.sources if source.available), None)
        return [
            source
            for source in self.sources
            if source.remedy and (best is None or source.rank < best or (source.available and source.rank == best))
        ]


@dataclass(frozen=True)
class Failure:
    """A provider that could not be asked."""

    provider: str
    error: str


@dataclass(frozen=True)
class Report:
    """Everything that doctor knows."""

    version: str
    subjects: list[Subject]
    failures: list[Failure]


def examine(providers: Iterable[EntryPoint]) -> Report:
    """Asks every provider; one that fails becomes a line of the report."""
    found: dict[str, list[Capability]] = {}
    failures = []
    for provider in sorted(providers, key=lambda entry: entry.name):
        try:
            for capability in provider.load()():
                found.setdefault(capability.subject, []).append(capability)
        except Exception as error:  # a part's fault must not hide what the others know
            failures.append(Failure(provider.name, " ".join(f"{type(error).__name__}: {error}".split())))
    for hop, reason in HOPS.items():
        found.setdefault(hop, [Capability(hop, "none", 0, False, f"not available: {reason}")])
    # Sorting is stable: inside a group subjects stay as their providers named them, hops as messages pass them.
    names = [*HOPS, *(name for name in found if name not in HOPS)]
    names.sort(key=lambda name: list(GROUPS).index(_group(name)))
    return Report(__version__, [_subject(name, found[name]) for name in names], failures)


def _group(name: str) -> str:
    prefix = name.partition(".")[0]
    return prefix if prefix in GROUPS else HOP


def _subject(name: str, sources: list[Capability]) -> Subject:
    ranked = sorted(sources, key=lambda source: (source.rank, source.source))
    return Subject(name, next((source.source for source in ranked if source.available), None), ranked)


def render(report: Report, console: Console) -> None:
    """The report as a table: per subject the source in use, what would be better and how, and what else is there."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    wide = console.width >= _WIDE_COLUMNS
    for title in ("", "", "source", "what was found") if wide else ("", "", "source: what was found"):
        table.add_column(title, no_wrap=title == "", header_style="dim")
    for group, title in GROUPS.items():
        table.add_row(Text(f"\n{title}", "bold"))
        for subject in report.subjects:
            if _group(subject.name) == group:
                _add_subject(table, subject, wide=wide)
    if report.failures:
        table.add_row(Text("\nCould not be asked", "bold"))
    for failure in report.failures:
        table.add_row(f"  {failure.provider}", Text("failed", "red"), *([""] if wide else []), Text(failure.error))
    console.print(f"tickpath {report.version}: what this host offers", highlight=False)
    console.print(table)


def _add_subject(table: Table, subject: Subject, *, wide: bool) -> None:
    used = [source for source in subject.sources if source.available][:1]
    better = subject.improvements
    # Worse sources than the one in use matter only where they are there to fall back to.
    others = [source for source in subject.sources if source.available or source in better]
    shown = used + sorted((source for source in others if source not in used), key=lambda source: source.available)
    for n, source in enumerate(shown or subject.sources):
        state = Text("also", "dim")
        if source in used:
            state = Text("used" if _group(subject.name) != "host" else "yes", "green")
        elif not source.available:
            state = Text("no", "yellow")
        found = Text(source.detail) if wide else Text.assemble((f"{source.source}: ", "bold"), source.detail)
        if source in better:
            found.append(f"\n-> {source.remedy}", "cyan")
        name = "" if n else f"  {subject.name.removeprefix(f'{_group(subject.name)}.')}"
        table.add_row(name, state, *([Text(source.source)] if wide else []), found)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def _run(args: argparse.Namespace) -> int:
    report = examine(entry_points(group=GROUP))
    if args.json:
        print(msgspec.json.encode(report).decode())
    else:
        # Into a file or a pipe: lines as long as they need to be for a reader, not for a terminal of 80.
        render(report, Console(width=None if sys.stdout.isatty() else 140))
    return 0


command = Command("what this host offers per hop and clock, and what would improve it", _add_arguments, _run)
