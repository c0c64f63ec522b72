# SPDX-License-Identifier: Apache-2.0
"""The URL forms of each venue: what a request path asks for, or the HTTP error that answers it.

USD-M futures (since 2026-04-23): `/public`, `/market`, `/private`, each with `/ws/<stream>` and `/stream?streams=a/b`.
Spot and COIN-M futures: the same two forms without a prefix. `/ws` and `/stream` alone wait for SUBSCRIBE requests.
Coinbase: `/`, then a `subscribe` message.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from tickpath.lab.simulator.config import Venue

# Which class of USD-M path serves a stream, by the kind in its name; what is not public here is market data.
_PUBLIC_KINDS = ("bookticker", "depth", "rpidepth")
_USDM_FORMS = "/public, /market and /private, each with /ws/<stream> and /stream?streams=a/b"
_CLASSES = ("public", "market", "private")


@dataclass(frozen=True)
class Address:
    """`combined`: messages are wrapped as `{"stream","data"}`. `usdm_class`: public, market or private; else empty."""

    streams: tuple[str, ...]
    combined: bool
    usdm_class: str = ""


@dataclass(frozen=True)
class Refusal:
    """An HTTP answer in place of the upgrade."""

    status: HTTPStatus
    text: str


def read_address(target: str, venue: Venue) -> Address | Refusal:
    """What the request target asks for under the venue's URL forms."""
    try:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
    except ValueError:
        return Refusal(HTTPStatus.BAD_REQUEST, f"{target[:200]} is no URL path")
    words = unquote(parts.path).strip("/").split("/")
    if venue is Venue.COINBASE:
        return Address((), False) if words == [""] else _unknown(parts.path, "/")
    streams = "/".join(query.get("streams", ()))
    if venue is not Venue.USDM:
        return _form(words, streams) or _unknown(parts.path, "/ws/<stream>, /stream?streams=a/b")
    return _usdm(words, streams) or _unknown(parts.path, _USDM_FORMS)


def _usdm(words: list[str], streams: str) -> Address | Refusal | None:
    form = words[0]
    if form in ("ws", "stream"):
        return Refusal(
            HTTPStatus.GONE,
            f"/{form} was retired for USD-M futures on 2026-04-23: use /public/{form} (bookTicker, depth), "
            f"/market/{form} (aggTrade, trade, kline, ticker, markPrice) or /private/{form}",
        )
    return _form(words[1:], streams, form) if form in _CLASSES else None


def _form(words: list[str], streams: str, usdm_class: str = "") -> Address | None:
    match words:
        case ["ws", *names]:
            return Address(tuple(filter(None, names)), False, usdm_class)
        case ["stream"]:
            return Address(tuple(filter(None, streams.split("/"))), True, usdm_class)
    return None


def _unknown(path: str, known: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"{path[:200]} is not served; known here: {known}")


def usdm_class_of(stream: str) -> str:
    """The USD-M path class that serves a stream name."""
    kind = stream.rpartition("!")[2] if stream.startswith("!") else stream.partition("@")[2]
    return "public" if kind.lower().startswith(_PUBLIC_KINDS) else "market"
