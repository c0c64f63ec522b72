# SPDX-License-Identifier: Apache-2.0
"""Feed: CPU per message over the stamped socket, beside plain websocket-client."""

from __future__ import annotations

from pathlib import Path

from tickpath.lab.bench.client import ClientPlan, measure
from tickpath.lab.bench.exchange import Exchange, Plan
from tickpath.lab.bench.row import Group, Row, Settings
from tickpath.lab.simulator.authority import make_credentials

_WHAT = "feed: CPU per 300-byte message, {}, {}"
_KINDS = [(scheme, pace) for pace in ("blast", "paced") for scheme in ("ws", "wss")]
_TITLES = tuple(
    Row(
        name=f"feed_{scheme}_{pace}",
        what=_WHAT.format(scheme, {"blast": "blast", "paced": "2000 a second"}[pace]),
        unit="us",
        bar="<= 1.00x",
    )
    for scheme, pace in _KINDS
)
_PACED_GAP_NS = 500_000


def _credentials(folder: Path) -> tuple[Path, Path, Path]:
    made = make_credentials(["127.0.0.1"])
    files = {"authority.pem": made.ca, "certificate.pem": made.certificate, "key.pem": made.key}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "authority.pem", folder / "certificate.pem", folder / "key.pem"


def _run(settings: Settings, rows: dict[str, Row]) -> None:
    authority, certificate, key = _credentials(settings.folder)
    for scheme, pace in _KINDS:
        messages = {"blast": 10_000, "paced": 1_000}[pace] // (10 if settings.quick else 1)
        tls = scheme == "wss"
        plan = Plan(
            messages=messages,
            gap_ns=_PACED_GAP_NS if pace == "paced" else 0,
            certificate=certificate if tls else None,
            key=key if tls else None,
        )
        with Exchange(plan) as exchange:
            pairs = measure(
                ClientPlan(
                    url=exchange.url,
                    messages=messages,
                    authority=authority if tls else None,
                    folder=settings.folder,
                    effort=settings.effort(least=10, most=40, budget_s=12, width=0.01),
                )
            )
        row = rows[f"feed_{scheme}_{pace}"]
        row.compared(pairs, "plain websocket-client", 1e-3)
        row.clocks = (row.value or 0) * 1e3 / settings.clock_ns
        row.judge(pairs.ratio.median <= 1.0)


GROUP = Group("feed", _TITLES, _run)
