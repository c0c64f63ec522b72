# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: what is measured, what is missing and why, and where the rest is. Static HTML, no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from tickpath import __version__
from tickpath.exporter.exposition.summary import HOPS, PARTS, SPANS, Figures, Summary
from tickpath.exporter.exposition.units import human
from tickpath.exporter.web.reasons import reason_in_words

MEANINGS: Mapping[str, str] = {
    "bn_to_nic": "exchange time → NIC",
    "nic_to_kernel": "NIC → readable on the socket",
    "hol_wait": "waiting for earlier bytes",
    "stack": "the kernel's network stack",
    "kernel_to_user": "readable → message decoded",
    "app_busy": "the application was busy",
    "wake": "waking the reader",
    "backlog": "messages read with it came first",
    "decode": "TLS and WebSocket decoding",
    "cpu": "decoded → parsed",
    "msk": "parsed → published",
    "total": "exchange time → published",
    "in_host": "NIC → published",
    "nic_to_user": "NIC → message decoded",
}

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #666; --bad: #b00020; --good: #12752f; }
@media (prefers-color-scheme: dark) { :root { --soft: #aaa; --bad: #ff6b7a; --good: #6fce8a; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; }
.soft { color: var(--soft); }
.bad { color: var(--bad); }
.good { color: var(--good); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
td.text { white-space: normal; }
td[colspan] { overflow-wrap: anywhere; }
tr.part td:first-child { padding-left: 1.3rem; }
tr.span td { font-weight: 600; }
code { font-size: .95em; }
nav > span { margin-right: 1.2rem; white-space: nowrap; }
.soft, tr td.why { font-weight: 400; }
td.why { color: var(--soft); }
@media (max-width: 48rem) {
  th, td { padding: .3rem .35rem; }
  td:first-child { white-space: normal; min-width: 9.5rem; }
}
"""

_LINKS = (
    ("/metrics", "metrics", "for Prometheus"),
    ("/api/summary", "summary", "these figures as JSON"),
    ("/-/ready", "ready", "figures can be relied on"),
    ("/-/healthy", "healthy", "the process works"),
)


def _count(number: int) -> str:
    return f"{number:,}"


def _why(name: str, summary: Summary) -> str:
    """Why there is nothing, most frequent reason first."""
    reasons = sorted(summary.missing.get(name, {}).items(), key=lambda item: -item[1])
    if reasons:
        return "; ".join(f"{escape(reason_in_words(reason))} ({_count(count)} messages)" for reason, count in reasons)
    if summary.messages:
        return "nothing measured it so far"
    return "no message so far"


def _label_cell(name: str, source: str) -> str:
    meaning = MEANINGS.get(name, "")
    taken = f' <span class="soft">[{escape(source)}]</span>' if source else ""
    return f'<td><code>{escape(name)}</code>{taken} <span class="soft">{meaning}</span></td>'


def _rows(name: str, figures: Figures | None, summary: Summary, kind: str) -> Iterable[str]:
    if figures is None:
        why = f'<td class="text why" colspan="5">{_why(name, summary)}</td>'
        yield f'<tr class="{kind}">{_label_cell(name, "")}{why}</tr>'
        return
    for source, one in ((figures.source, figures), *figures.other_sources.items()):
        cells = "".join(f"<td>{human(value)}</td>" for value in (one.p50_ns, one.p99_ns, one.p999_ns, one.max_ns))
        yield f'<tr class="{kind}">{_label_cell(name, source)}<td>{_count(one.count)}</td>{cells}</tr>'


def _hop_table(summary: Summary) -> str:
    rows: list[str] = []
    for hop in (*HOPS, *(h for h in summary.hops if h not in HOPS)):
        rows += _rows(hop, summary.hops.get(hop), summary, "hop")
        for part in PARTS.get(hop, ()):
            # Where the whole hop is missing, its row has said why.
            if hop in summary.hops or part in summary.parts:
                rows += _rows(part, summary.parts.get(part), summary, "part")
    for span in (*SPANS, *(s for s in summary.spans if s not in SPANS)):
        rows += _rows(span, summary.spans.get(span), summary, "span")
    head = '<tr><th class="text">hop</th><th>messages</th><th>p50</th><th>p99</th><th>p99.9</th><th>max</th></tr>'
    return _table(head, rows)


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _message_table(summary: Summary) -> str:
    rows = [
        f"<tr><td>matched by <code>{escape(method)}</code></td><td>{_count(count)}</td></tr>"
        for method, count in summary.matched.items()
    ]
    rows += (
        f"<tr><td>not matched: {escape(reason_in_words(reason))}</td><td>{_count(count)}</td></tr>"
        for reason, count in summary.unmatched.items()
    )
    rows += (
        f'<tr class="bad"><td>negative <code>{escape(hop)}</code>: clocks disagree</td><td>{_count(count)}</td></tr>'
        for hop, count in summary.negative.items()
        if count
    )
    rows += (
        f"<tr><td>{text}</td><td>{_count(count)}</td></tr>"
        for text, count in (
            ("waiting for their stamps", summary.pending),
            ("records lost: overwritten before they were read", summary.lost_records),
            ("records skipped before this exporter started", summary.skipped_records),
        )
        if count
    )
    return _table(f"<tr><th>messages</th><th>{_count(summary.messages)}</th></tr>", rows)


def _ring_table(summary: Summary) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td class='text'>{escape(ring.kind)}</td>"
        f"<td class='text {'good' if ring.alive else 'soft' if ring.stopped else 'bad'}'>"
        f"{'running' if ring.alive else 'stopped' if ring.stopped else 'gone'}</td>"
        f"<td>{_count(ring.lost_records)}</td><td>{_count(ring.skipped_records)}</td></tr>"
        for name, ring in sorted(summary.rings.items())
    ]
    rows += (
        f"<tr><td><code>{escape(name)}</code></td><td class='text bad' colspan='4'>{escape(why)}</td></tr>"
        for name, why in sorted(summary.unreadable_rings.items())
    )
    if not rows:
        return '<p class="soft">None: start a feed or a probe.</p>'
    head = (
        "<tr><th>ring</th><th class='text'>kind</th><th class='text'>producer</th>"
        "<th>records lost</th><th>skipped</th></tr>"
    )
    return _table(head, rows)


def _clock_table(summary: Summary) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code></td>"
        f"<td>{'unknown: not synchronised' if clock.bound_ns is None else '± ' + human(clock.bound_ns)}</td>"
        f"<td>{_count(clock.steps)}</td></tr>"
        for name, clock in sorted(summary.clocks.items())
    ]
    if not rows:
        return '<p class="soft">No probe has published a reading.</p>'
    return _table("<tr><th>clock</th><th>bound on its error against UTC</th><th>steps</th></tr>", rows)


def render_landing(summary: Summary, not_ready: str | None) -> str:
    """The whole page. `not_ready` is why figures are not to be relied on, None when they are."""
    state = '<span class="good">ready</span>' if not_ready is None else f'<span class="bad">{escape(not_ready)}</span>'
    links = " ".join(
        f'<span><a href="{href}">{text}</a> <span class="soft">{note}</span></span>' for href, text, note in _LINKS
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tickpath exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>tickpath exporter</h1>
<p class="soft">Where the time of every market-data message went. Version {escape(__version__)}, {state}.</p>
<nav>{links}</nav>
<h2>Hops</h2>
{_hop_table(summary)}
<h2>Messages</h2>
{_message_table(summary)}
<h2>Rings</h2>
{_ring_table(summary)}
<h2>Clocks</h2>
{_clock_table(summary)}
</body>
</html>
"""
