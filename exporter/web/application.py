# SPDX-License-Identifier: Apache-2.0
"""Paths and what they answer; knows nothing of sockets."""

from __future__ import annotations

import gzip
import threading
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

import msgspec

from tickpath.exporter.exposition.negotiation import accepts_gzip, choose_format
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.exposition.page import MetricsPage
from tickpath.exporter.exposition.summary import Summary, summarise
from tickpath.exporter.web.landing import render_landing
from tickpath.exporter.web.response import Request, Response, plain

# Below this a gzip header costs more than it saves.
_GZIP_FROM_BYTES = 1024
# Level 1 takes a third of the default's time for a page that is a fifth larger.
_GZIP_LEVEL = 1
_MAX_FIELDS = 100


class Observed(Protocol):
    """What the application asks of the service."""

    def observe(self) -> Observation:
        """The state now."""

    def failure(self) -> str | None:
        """Why the exporter no longer reads rings; None while it does."""

    def not_ready(self) -> str | None:
        """Why figures are not to be relied on now; None when they are."""


class Application:
    """Answers requests out of what the service observed."""

    def __init__(self, service: Observed) -> None:
        self._service = service
        self._page = MetricsPage(service.observe)
        # Pages are made one after the other: at the same time would not be faster, and each takes memory for a copy
        # of every histogram.
        self._making = threading.Lock()
        self._routes = {
            "/": self._landing,
            "/metrics": self._metrics,
            "/api/summary": self._summary,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
        }

    def answer(self, request: Request) -> Response:
        """The answer to one request."""
        path, _, query = request.target.partition("?")
        route = self._routes.get(path)
        if route is None:
            return plain(f"404 not found; there are {' '.join(self._routes)}", HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return plain("405 only GET and HEAD", HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        response = route(request, query)
        if len(response.body) >= _GZIP_FROM_BYTES and accepts_gzip(request.accept_encoding):
            body = gzip.compress(response.body, _GZIP_LEVEL, mtime=0)
            coded = {**response.headers, "Content-Encoding": "gzip"}
            return Response(body, response.content_type, response.status, coded)
        return response

    def _summarised(self, feeds: frozenset[str] = frozenset()) -> Summary:
        with self._making:
            return summarise(self._service.observe(), feeds)

    def _landing(self, _request: Request, _query: str) -> Response:
        summary = self._summarised()
        page = render_landing(summary, self._service.not_ready())
        # Nothing on the page comes from elsewhere or runs: a feed name that slipped through could still do nothing.
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
        return Response(
            page.encode(),
            "text/html; charset=utf-8",
            headers={"Content-Security-Policy": policy, "Cache-Control": "no-store", "Vary": "Accept-Encoding"},
        )

    def _metrics(self, request: Request, _query: str) -> Response:
        chosen = choose_format(request.accept)
        with self._making:
            page = self._page.render(chosen)
        return Response(page, chosen.value, headers={"Vary": "Accept, Accept-Encoding"})

    def _summary(self, _request: Request, query: str) -> Response:
        try:
            feeds = frozenset(parse_qs(query, max_num_fields=_MAX_FIELDS).get("feed", ()))
        except ValueError:
            return plain(f"400 more than {_MAX_FIELDS} fields in the query", HTTPStatus.BAD_REQUEST)
        body = msgspec.json.encode(self._summarised(feeds))
        return Response(body, "application/json", headers={"Cache-Control": "no-store", "Vary": "Accept-Encoding"})

    def _healthy(self, _request: Request, _query: str) -> Response:
        return _state(self._service.failure())

    def _ready(self, _request: Request, _query: str) -> Response:
        return _state(self._service.not_ready())


def _state(reason: str | None) -> Response:
    if reason is None:
        return plain("ok", headers={"Cache-Control": "no-store"})
    return plain(reason, HTTPStatus.SERVICE_UNAVAILABLE, {"Cache-Control": "no-store"})
