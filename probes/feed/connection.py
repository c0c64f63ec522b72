# SPDX-License-Identifier: Apache-2.0
"""One connection of a feed: TCP, TLS and WebSocket handshakes over a stamped socket, each refusal as one line."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import websocket

from tickpath.errors import ConfigError, InputError, TickpathError
from tickpath.event import Transport
from tickpath.probes.feed.venues.venue import Address, Subscription
from tickpath.probes.feed.websocket import handshake
from tickpath.recorder import ConnectionRecorder, Recorder
from tickpath.socket import StampedSocket, connect, learn_irs

_log = structlog.get_logger()


class ConnectError(TickpathError):
    """An attempt that did not become a connection.

    `lasting`: another attempt would end alike. `retry_after_s`: how long the venue asks to wait, or None.
    """

    def __init__(self, text: str, *, lasting: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.lasting = lasting
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class ConnectSettings:
    """What the operator says of connecting."""

    timeout_s: float = 10.0
    learn_irs: bool = True
    max_message_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Connection:
    """A connection over which messages come."""

    websocket: Any
    sock: StampedSocket
    recorder: ConnectionRecorder


def tls_context(cafile: Path | None) -> ssl.SSLContext:
    """A client context that trusts the host's authorities, or `cafile` alone; ConfigError where it cannot be read."""
    try:
        return ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read certificates from {cafile}: {error}") from None


def _initial_sequence(tcp: socket.socket) -> int | None:
    try:
        return learn_irs(tcp)
    except OSError as error:
        # Not a failure: a capture that holds the SYN-ACK teaches it as well.
        _log.debug("irs_unknown", reason=error.strerror)
        return None


def _host_header(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == (443 if address.secure else 80) else f"{host}:{address.port}"


def _transport(address: Address, sock: StampedSocket) -> Transport:
    if not address.secure:
        return Transport.WS
    return {"TLSv1.2": Transport.WSS12, "TLSv1.3": Transport.WSS13}.get(sock.tls_version or "", Transport.UNKNOWN)


def _retry_after_s(error: websocket.WebSocketBadStatusException) -> float | None:
    said = (error.resp_headers or {}).get("retry-after", "")
    return float(said) if said.isdecimal() else None


def _explain(subscription: Subscription, error: Exception) -> ConnectError:
    where = f"{subscription.address.host}:{subscription.address.port}"
    lasting = False
    retry_after_s = None
    if isinstance(error, websocket.WebSocketBadStatusException):
        meaning = subscription.refusal(error.status_code) or "is this URL one that the server knows?"
        text = f"{where} answered HTTP {error.status_code}: {meaning}"
        lasting = error.status_code in {400, 401, 404, 410, 451}
        retry_after_s = _retry_after_s(error)
    elif isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of {where} is not accepted: {error.verify_message.rstrip('.')}; "
            "an authority of your own is named with --cafile FILE"
        )
        lasting = True
    elif isinstance(error, ssl.SSLError):
        text = f"TLS with {where} failed: {error.reason or error}"
    elif isinstance(error, socket.gaierror):
        host = subscription.address.host
        text = f"{host} cannot be resolved: {error.strerror}; check the name, DNS, and that this host may go out"
    elif isinstance(error, TimeoutError | websocket.WebSocketTimeoutException):
        text = f"{where} did not answer in time; check that this host may go out to that port"
    elif isinstance(error, OSError):
        text = f"cannot connect to {where}: {error.strerror or error}"
    else:
        text = f"{where} is no WebSocket server, or refused: {error}"
    return ConnectError(text, lasting=lasting, retry_after_s=retry_after_s)


def open_connection(
    subscription: Subscription,
    context: ssl.SSLContext,
    recorder: Recorder,
    *,
    feed: str,
    reconnects: int,
    settings: ConnectSettings,
) -> Connection:
    """Connect and shake hands; ConnectError where that fails, with its record closed."""
    address = subscription.address
    sock: StampedSocket | None = None
    try:
        tcp = connect(address.host, address.port, settings.timeout_s)
        connection = recorder.open_connection(
            tcp,
            venue=subscription.venue,
            feed=feed,
            stream="/".join(subscription.streams),
            reconnects=reconnects,
            irs=_initial_sequence(tcp) if settings.learn_irs else None,
        )
        sock = StampedSocket(tcp, connection)
        if address.secure:
            sock.start_tls(context, address.host)
        opened = handshake(address.url, sock, _host_header(address), settings.max_message_bytes)
        for greeting in subscription.greetings:
            opened.send(greeting)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError | InputError | websocket.WebSocketException):
            raise _explain(subscription, error) from None
        raise
    connection.established(_transport(address, sock))
    return Connection(opened, sock, connection)
