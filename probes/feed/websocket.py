# SPDX-License-Identifier: Apache-2.0
"""websocket-client over a stamped socket, with a bound on what one message may hold."""

from __future__ import annotations

from typing import Any

import websocket
from websocket._abnf import continuous_frame, frame_buffer
from websocket._handshake import SUPPORTED_REDIRECT_STATUSES

from tickpath.socket import StampedSocket

# The JSON parser checks UTF-8 again, and counts what is none instead of ending the connection.
_OPTIONS: dict[str, Any] = {"enable_multithread": False, "skip_utf8_validation": True}


class MessageTooLongError(websocket.WebSocketProtocolException):
    """A message of more bytes than the operator allows."""


class _BoundedFrames(frame_buffer):
    """Frames whose length is looked at before memory is given to it, read from the socket without detours."""

    def __init__(self, sock: StampedSocket, limit_bytes: int) -> None:
        super().__init__(self._read, True)
        self._sock_recv = sock.recv
        self._limit_bytes = limit_bytes

    def recv_strict(self, bufsize: int) -> bytes:
        # Here and not where the length is read: a goodbye after the refusal would go on with the payload.
        if bufsize > self._limit_bytes:
            raise MessageTooLongError(f"a frame of {bufsize} bytes, more than the {self._limit_bytes} allowed")
        # Nearly always what is asked for is there, in one piece.
        if not self.recv_buffer and bufsize:
            data = self._read(bufsize)
            if len(data) == bufsize:
                return data
            self.recv_buffer.append(data)
        return super().recv_strict(bufsize)

    def _read(self, size: int) -> bytes:
        try:
            data = self._sock_recv(size)
        except TimeoutError:
            raise websocket.WebSocketTimeoutException("timed out") from None
        if not data:
            raise websocket.WebSocketConnectionClosedException("the peer closed the connection")
        return data


class _BoundedMessages(continuous_frame):
    """Fragments that are counted together."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(False, True)
        self._limit_bytes = limit_bytes

    def add(self, frame: Any) -> None:
        held = len(self.cont_data[1]) if self.cont_data else 0
        if held + len(frame.data) > self._limit_bytes:
            raise MessageTooLongError(f"a message of more than the {self._limit_bytes} bytes allowed, in fragments")
        super().add(frame)


def handshake(url: str, sock: StampedSocket, host_header: str, limit_bytes: int) -> Any:
    """The WebSocket handshake over a connected (and, for wss, encrypted) socket; websocket-client's WebSocket.

    Redirects are not followed: the socket is the redirecting server's.
    """
    connected: Any = websocket.WebSocket(**_OPTIONS)
    try:
        connected.connect(url, socket=sock, host=host_header, suppress_origin=True, redirect_limit=0)
    except websocket.WebSocketException:
        answer = connected.handshake_response
        if answer is not None and answer.status in SUPPORTED_REDIRECT_STATUSES:
            location = str(answer.headers.get("location"))
            raise websocket.WebSocketException(f"it redirects to {location[:200]}: is that the URL?") from None
        raise
    connected.frame_buffer = _BoundedFrames(sock, limit_bytes)
    connected.cont_frame = _BoundedMessages(limit_bytes)
    return connected
