# SPDX-License-Identifier: Apache-2.0
"""What passes between server and application: a request once parsed, an answer before it is bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request matters here. `target` is the request line's; the rest are headers, None where absent."""

    method: str
    target: str
    accept: str | None = None
    accept_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `headers` are those besides Content-Type and Content-Length."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


def plain(text: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """A line of text."""
    return Response(f"{text}\n".encode(), status=status, headers=headers or {})
