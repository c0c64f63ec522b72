# SPDX-License-Identifier: Apache-2.0
"""Content negotiation: which exposition format and which coding a scrape asked for (RFC 9110, 12.4 and 12.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Format(Enum):
    """An exposition format that is served; the value is its content type."""

    PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of an Accept header: what it names, its parameters, its weight."""

    name: str
    parameters: Mapping[str, str]
    weight: float


# Of two formats that are asked for alike, the one named first here is served.
_OFFERED = (
    (Format.TEXT, "text/plain", "0.0.4"),
    (Format.OPENMETRICS, "application/openmetrics-text", "1.0.0"),
)
# Asked for by these alone, as Prometheus does: to `*/*` a page that no person can read would be a surprise.
_PROTOBUF = "application/vnd.google.protobuf"
_PROTOBUF_PARAMETERS = {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"}


def _weight(text: str) -> float:
    """A qvalue; what is not one (a NaN, a negative, a word) weighs nothing."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return min(weight, 1.0) if weight > 0 else 0.0


def _ranges(header: str) -> list[_Range]:
    found = []
    for element in header.split(","):
        name, *rest = (word.strip() for word in element.split(";"))
        if not name:
            continue
        parameters = {}
        for word in rest:
            key, _, value = word.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"').lower()
        found.append(_Range(name.lower(), parameters, _weight(parameters.pop("q", "1"))))
    return found


def _specificity(asked: _Range, media: str, version: str) -> int:
    """How closely a range names this type and version; 0: it does not."""
    if asked.name == media:
        named = asked.parameters.get("version")
        if named is None:
            return 3
        return 4 if named == version else 0
    if asked.name == media.partition("/")[0] + "/*":
        return 2
    return 1 if asked.name == "*/*" else 0


def _is_protobuf(asked: _Range) -> bool:
    return asked.name == _PROTOBUF and all(
        asked.parameters.get(name) == value for name, value in _PROTOBUF_PARAMETERS.items()
    )


def choose_format(accept: str | None) -> Format:
    """The format of the answer to a request with this Accept header.

    The range that names a format most closely gives its weight; the heaviest format wins, then the most closely named.
    A client that accepts nothing of ours gets classic text, as from every other exporter.
    """
    best = (0.0, 0)
    chosen = Format.TEXT
    ranges = _ranges(accept or "")
    for offered, matches in (
        *((o, [(s, r.weight) for r in ranges if (s := _specificity(r, m, v))]) for o, m, v in _OFFERED),
        (Format.PROTOBUF, [(4, r.weight) for r in ranges if _is_protobuf(r)]),
    ):
        if not matches:
            continue
        closest = max(s for s, _ in matches)
        rank = (max(w for s, w in matches if s == closest), closest)
        if rank[0] > 0 and rank > best:
            best, chosen = rank, offered
    return chosen


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether the answer may be gzipped: named (or `*`) with a weight above 0."""
    weights = {r.name: r.weight for r in _ranges(accept_encoding or "")}
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0
