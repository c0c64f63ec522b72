# SPDX-License-Identifier: Apache-2.0
"""One client's connection, played by one thread: handshake, requests, paced messages, pings, a graceful end."""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
from http import HTTPStatus
from time import monotonic_ns

import structlog
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tickpath.clock import read_realtime
from tickpath.errors import InputError
from tickpath.lab.simulator import frames
from tickpath.lab.simulator.address import Address, Refusal, read_address
from tickpath.lab.simulator.batch import Batch
from tickpath.lab.simulator.config import AtEnd
from tickpath.lab.simulator.keep_alive import KeepAlive
from tickpath.lab.simulator.message import Message, stamped
from tickpath.lab.simulator.misbehaviour import Misbehaviour
from tickpath.lab.simulator.playback import Playback
from tickpath.lab.simulator.subscription import Subscription
from tickpath.lab.simulator.transport import Transport
from tickpath.lab.simulator.truth import ConnectionSummary
from tickpath.lab.simulator.wire import EndedError, Wire

log = structlog.get_logger(__name__)

_HANDSHAKE_NS = 10_000_000_000
# In a burst, or at full speed, requests and pongs are looked for this often.
_POLL_NS = 5_000_000
_PARTING_NS = 300_000_000
_PR_SET_TIMERSLACK = 29


class Connection:
    """Owns the socket; `run` is the thread's whole life and raises nothing."""

    def __init__(self, number: int, sock: socket.socket, transport: Transport, playback: Playback) -> None:
        self._sock = sock
        self._playback = playback
        self._config = playback.config
        self._protocol = ServerProtocol()
        self._subscription = Subscription(Address((), False), ())
        self._replies: list[bytes] = []  # plain control frames and answers: sent between messages, never inside one
        self._request_parts: list[bytes] = []
        self._polled_ns = 0
        self._stop_by_ns: int | None = None
        self._leaving: str | None = None
        self.summary = ConnectionSummary(number, sock.getpeername()[1], monotonic_ns())
        self._pings = KeepAlive(playback.ping_interval_ns, self.summary)
        self._wire = Wire(sock, transport, self.summary, self._blocked)

    def run(self) -> None:
        """Play until the client leaves, the messages end, or the simulator stops."""
        # The kernel rounds every timed wait up by 50 us unless told otherwise (prctl(2), PR_SET_TIMERSLACK).
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reason = "the simulator failed"
        try:
            if self._handshake():
                self._play()
            self._leaving = self._leaving or "the replay ended"
            self._finish()
            reason = self._leaving
        except EndedError as ended:
            reason = str(ended)
        except InputError as error:
            reason = f"the client broke the protocol: {error}"
            with contextlib.suppress(OSError, EndedError):
                self._wire.flush()  # TLS's alert tells the client
        except OSError as error:
            reason = f"the TCP connection ended: {error.strerror}"
        finally:
            self._sock.close()
            self.summary.closed = reason
            self._playback.truth.flush()
            log.info(
                "connection ended",
                connection=self.summary.connection,
                reason=reason,
                messages=self.summary.messages,
                bytes=self.summary.bytes,
            )

    # --- the client's side ---

    def _handshake(self) -> bool:
        """Whether the connection was upgraded; a refusal waits in the replies."""
        by_ns = monotonic_ns() + _HANDSHAKE_NS
        while self._protocol.state is State.CONNECTING and not self._leaving:
            if self._protocol.handshake_exc is not None:
                break
            left_ns = by_ns - monotonic_ns()
            if left_ns <= 0:
                raise EndedError("no WebSocket handshake came")
            self._look(left_ns)
            self._send_replies()
        if self._protocol.state is State.OPEN:
            return True
        self._leaving = self._leaving or "the handshake was refused"
        return False

    def _upgrade(self, request: Request) -> None:
        self.summary.path = request.path
        refused = self._config.faults.refuse_status
        if refused is not None:
            address: Address | Refusal = Refusal(HTTPStatus(refused), "refused, as the simulator was told")
        else:
            address = read_address(request.path, self._playback.venue)
        if isinstance(address, Refusal):
            response = self._protocol.reject(address.status, address.text + "\n")
        else:
            response = self._protocol.accept(request)
            self._subscription = Subscription(address, self._playback.streams)
            self._tell_unserved()
        log.info(
            "connection",
            connection=self.summary.connection,
            peer_port=self.summary.peer_port,
            path=request.path,
            status=response.status_code,
        )
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._leaving = "the handshake was refused"
        self._protocol.send_response(response)
        # Now, so that it goes before the reply to a request which came with it.
        self._replies += filter(None, self._protocol.data_to_send())

    def _tell_unserved(self) -> None:
        for name in self._subscription.unserved():
            log.warning("nothing to send for a stream", stream=name, path=self.summary.path)

    def _receive(self) -> None:
        """Take what the client sent. Answers of TLS are queued; those of WebSocket wait in the replies."""
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            raise EndedError(self._leaving or "the client ended the TCP connection")
        try:
            plain = self._wire.transport.open(data)
        finally:
            self._wire.answer()  # an alert says why TLS failed
        if plain:
            self._protocol.receive_data(plain)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._upgrade(event)
            elif isinstance(event, Frame):
                self._take_frame(event)
        self._replies += filter(None, self._protocol.data_to_send())
        if self._protocol.state is State.CLOSING and self._leaving is None:
            received = self._protocol.close_rcvd
            failed = self._protocol.parser_exc
            self._leaving = (
                f"the client broke the protocol: {failed}"
                if failed is not None
                else f"the client closed with {received.code if received else 1006}"
            )

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._pings.take_pong(bytes(frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._request_parts.append(bytes(frame.data))
            if frame.fin:
                request = b"".join(self._request_parts)
                self._request_parts.clear()
                self.summary.requests += 1
                reply = self._subscription.request(request)
                if reply is not None:
                    self._replies.append(frames.text(reply))
                self._tell_unserved()

    def _keep_alive(self, now_ns: int) -> None:
        if self._protocol.state is not State.OPEN or self._leaving:
            return
        if self._pings.given_up(now_ns):
            self._leaving = "pings stayed unanswered"
            self._close(1008, "Pong timeout")
        elif ping := self._pings.due(now_ns):
            self._replies.append(ping)

    # --- waiting ---

    def _wait(self, until_ns: int | None) -> None:
        """Serve the client until a monotonic time, or (None) until something happened."""
        while not self._leaving:
            now_ns = monotonic_ns()
            self._polled_ns = now_ns
            self._keep_alive(now_ns)
            self._send_replies()
            wake_ns = self._pings.next_ns if until_ns is None else min(self._pings.next_ns, until_ns)
            happened = self._look(wake_ns - now_ns)
            if until_ns is None:
                if happened:
                    break
            elif monotonic_ns() >= until_ns:
                return  # the replies have time, the message has not
        self._send_replies()

    def _look(self, timeout_ns: int) -> bool:
        """Wait for the client or the stop; take what came."""
        readable, _, _ = select.select(self._watched(), (), (), max(0, timeout_ns) / 1e9)
        self._see_stop(readable)
        if self._sock in readable:
            self._receive()
        return bool(readable)

    def _blocked(self) -> None:
        """The client takes no bytes now: listen to it until it does."""
        timeout_ns = _HANDSHAKE_NS
        if self._stop_by_ns is not None:
            timeout_ns = self._stop_by_ns - monotonic_ns()
            if timeout_ns <= 0:
                raise EndedError("the simulator stops; the client took no more bytes")
        readable, _, _ = select.select(self._watched(), (self._sock,), (), timeout_ns / 1e9)
        self._see_stop(readable)
        if self._sock in readable:
            self._receive()

    def _watched(self) -> list[socket.socket | int]:
        return [self._sock] if self._stop_by_ns is not None else [self._sock, self._playback.stop_fd]

    def _see_stop(self, readable: list[socket.socket | int]) -> None:
        if self._playback.stop_fd in readable:
            self._stop_by_ns = monotonic_ns() + self._config.linger_ns
            self._leaving = self._leaving or "the simulator stops"

    def _send_replies(self) -> None:
        while self._replies:
            replies, self._replies = self._replies, []
            for plain in replies:
                self._wire.push(self._wire.transport.seal(plain))
            self._wire.flush()
        self._wire.flush()

    def _close(self, code: int, reason: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._replies += filter(None, self._protocol.data_to_send())

    # --- the replay ---

    def _play(self) -> None:
        config, playback = self._config, self._playback
        while not (self._subscription.active or self._leaving):
            self._wait(None)
        playback.subscribed.set()
        pace = playback.pace()
        joined_ns = pace.start()
        batch = Batch(self._wire, config.shape, playback.truth, self._pings.ping)
        misbehaviour = Misbehaviour(config.faults, self._sock, self._wire, config.linger_ns)
        source = iter(()) if config.faults.silent else playback.messages()
        if not config.faults.silent:
            misbehaviour.first(batch)
        for message in source:
            if config.messages is not None and self.summary.messages + len(batch) >= config.messages:
                break
            planned_ns = pace.planned_ns(message.time_ns)
            now_ns = monotonic_ns()
            if planned_ns is None:
                planned_ns = now_ns
            elif config.shared_clock and planned_ns < joined_ns:
                continue
            # Made before the wait, so that only the sending is left to do when it is over.
            prepared = self._prepared(message, planned_ns)
            changes = self._subscription.changes
            if planned_ns > now_ns or now_ns - self._polled_ns > _POLL_NS:
                self._wait(planned_ns)
            while config.speed is None and not (self._subscription.active or self._leaving):
                self._wait(None)
            if self._leaving:
                break
            body = prepared if changes == self._subscription.changes else self._prepared(message, planned_ns)
            if body is None:
                continue
            misbehaviour.next(batch)
            batch.add(body, planned_ns)
        if self._protocol.state is State.OPEN:  # no message follows a Close
            batch.send()
            misbehaviour.next(batch)
        self._send_replies()
        while not self._leaving and (config.at_end is AtEnd.HOLD or config.faults.silent):
            self._wait(None)

    def _prepared(self, message: Message, planned_ns: int) -> bytes | None:
        """The bytes to send at a monotonic time; None where nobody has subscribed to them."""
        if not self._subscription.selects(message.stream):
            return None
        config = self._config
        # Event times follow the realtime clock, at the planned moment.
        now = read_realtime()
        send_ns = now.time_ns - now.before_ns + planned_ns
        body = stamped(message, config.event_times, send_ns, config.exchange_delay_ns)
        if self._subscription.combined and message.stream:
            return b'{"stream":"%b","data":%b}' % (message.stream.encode(), body)
        return body

    def _finish(self) -> None:
        """Close as RFC 6455, 7.1.1 has it: Close sent and received, the server ends TCP first, the client follows."""
        by_ns = self._stop_by_ns or monotonic_ns() + self._config.linger_ns
        self._stop_by_ns = by_ns
        self._close(1000, "")
        self._send_replies()
        waits = self._protocol.close_sent is not None and self._protocol.parser_exc is None
        while waits and self._protocol.close_rcvd is None and monotonic_ns() < by_ns:
            self._look(by_ns - monotonic_ns())
        # The client has its messages and its Close; that it resets the connection now instead of ending it is no news.
        with contextlib.suppress(OSError):
            # One that has answered our Close has read everything; some clients then keep the socket open all the same.
            self._part(min(by_ns, monotonic_ns() + _PARTING_NS) if self._protocol.close_rcvd else by_ns)

    def _part(self, by_ns: int) -> None:
        if farewell := self._wire.transport.farewell():
            self._wire.push(farewell)
        self._wire.flush()
        self._sock.shutdown(socket.SHUT_WR)
        while (left_ns := by_ns - monotonic_ns()) > 0:
            if select.select([self._sock], (), (), left_ns / 1e9)[0] and not self._sock.recv(1 << 16):
                return
