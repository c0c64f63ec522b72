# SPDX-License-Identifier: Apache-2.0
"""What the application hands to the server: an answer before it is bytes on a socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus


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
