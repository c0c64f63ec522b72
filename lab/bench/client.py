# SPDX-License-Identifier: Apache-2.0
"""The measured process of the feed rows: tickpath's feed and a plain client in turn, the same work done by both."""

from __future__ import annotations

import multiprocessing
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import structlog
import websocket
import zmq

from tickpath.errors import TickpathError
from tickpath.lab.bench.measure import Effort, Pairs, alternate
from tickpath.probes.feed.connection import ConnectSettings, open_connection, tls_context
from tickpath.probes.feed.publisher import Publisher
from tickpath.probes.feed.session import ConnectionEnded, Session, Stop
from tickpath.probes.feed.venues import subscribe
from tickpath.recorder import Recorder

_PLENTY = 10_000_000  # of messages that the publisher may queue: a slow subscriber is not what is measured
_DATA = (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY)


@dataclass(frozen=True)
class ClientPlan:
    """What the two clients connect to, and how often."""

    url: str
    messages: int
    authority: Path | None
    folder: Path
    effort: Effort


def _spent_ns(run: Callable[[], int], messages: int) -> float:
    """CPU of the whole process per message: the publisher's I/O thread is part of the price."""
    began_ns = time.process_time_ns()
    came = run()
    spent_ns = time.process_time_ns() - began_ns
    if came != messages:
        raise RuntimeError(f"{came} of {messages} messages came")
    return spent_ns / messages


def _stamped(plan: ClientPlan, recorder: Recorder, publisher: Publisher, context: ssl.SSLContext) -> float:
    subscription = subscribe(plan.url)
    connection = open_connection(
        subscription, context, recorder, feed="bench", reconnects=0, settings=ConnectSettings()
    )
    session = Session(
        connection, subscription.reader(), recorder, publisher, idle_timeout_s=10, every_second=lambda: None
    )

    def run() -> int:
        with suppress(ConnectionEnded):
            session.run(Stop())
        return int(connection.recorder.messages)

    try:
        return _spent_ns(run, plan.messages)
    finally:
        connection.websocket.close(timeout=1)
        connection.sock.close()


def _plain(plan: ClientPlan, publisher: Publisher, context: ssl.SSLContext) -> float:
    """websocket-client as fast as its options make it, with our JSON reader and our publisher behind it."""
    reader = subscribe(plan.url).reader()
    connected = websocket.create_connection(
        plan.url, sslopt={"context": context}, enable_multithread=False, skip_utf8_validation=True
    )
    record = bytes(64)

    def run() -> int:
        came = 0
        receive, read, send = connected.recv_data, reader.read, publisher.send
        while True:
            opcode, payload = receive()
            if opcode not in _DATA:
                return came
            read(payload)
            send(reader.topic, payload, record)
            came += 1

    try:
        return _spent_ns(run, plan.messages)
    finally:
        connected.shutdown()  # type: ignore[no-untyped-call] # ships no types


def _subscribe(told: Pipe, addresses: list[str]) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as sock:
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.SUBSCRIBE, b"")
        for address in addresses:
            sock.connect(address)
        told.send(True)
        while True:
            sock.recv()


def _measure(told: Pipe, plan: ClientPlan) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    context = tls_context(plan.authority)
    publishers = [Publisher("tcp://127.0.0.1:0", _PLENTY) for _ in range(2)]
    spawn = multiprocessing.get_context("spawn")
    heard, ready = spawn.Pipe(duplex=False)
    subscriber = spawn.Process(target=_subscribe, args=(ready, [p.address for p in publishers]))
    subscriber.start()
    heard.recv()
    try:
        with Recorder(plan.folder, "bench") as recorder:

            def ours() -> float:
                return _stamped(plan, recorder, publishers[0], context)

            def theirs() -> float:
                return _plain(plan, publishers[1], context)

            ours(), theirs()  # the first of each pays for what is loaded late
            told.send(alternate(ours, theirs, plan.effort))
    finally:
        subscriber.terminate()
        subscriber.join()


def measure(plan: ClientPlan) -> Pairs:
    """CPU ns per message of tickpath's feed (ours) and of a plain client (theirs), in a process of their own."""
    spawn = multiprocessing.get_context("spawn")
    heard, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure, args=(told, plan))
    process.start()
    told.close()
    try:
        pairs: Pairs = heard.recv()
    except EOFError:
        raise TickpathError("the measured client failed; what it said stands above") from None
    finally:
        process.join(10)
        process.terminate()
    return pairs
