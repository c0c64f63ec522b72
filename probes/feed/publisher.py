# SPDX-License-Identifier: Apache-2.0
"""The feed's ZeroMQ PUB: three frames a message, never waiting; what the queue cannot take is counted."""

from __future__ import annotations

import errno

import zmq

from tickpath.errors import ConfigError, TickpathError

# Plain numbers: to join two members of an enumeration costs as much as sending a frame.
_MORE = int(zmq.SNDMORE) | int(zmq.NOBLOCK)
_LAST = int(zmq.NOBLOCK)


class Publisher:
    """A bound PUB socket.

    Frames: topic (`VENUE/STREAM`), the JSON as received, the message's record as it stands before publishing: 64
    bytes, followed by its MESSAGE_WIDE of another 64 where it is flagged WIDE. `published_ns` is 0 there and
    HAS_PUBLISHED clear, for the moment of publishing comes after.

    A subscriber that lags by `high_water_mark` messages makes send() refuse the message for all: unlike PUB's own way,
    which drops for that subscriber alone, this can be counted.
    """

    def __init__(self, address: str, high_water_mark: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        # What subscribers have not fetched when the feed stops is given this long.
        self._socket.setsockopt(zmq.LINGER, 200)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise TickpathError(
                    f"{address} is in use: name another with --publish, or `--publish none`, or stop the other feed"
                ) from None
            raise ConfigError(
                f"cannot publish at {address!r}: {error.strerror}; give tcp://HOST:PORT or ipc://FILE"
            ) from None
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._send = self._socket.send

    def send(self, topic: bytes, payload: bytes, record: bytes) -> bool:
        """Hand one message on; False when the queue is full and nothing of it was sent."""
        try:
            self._send(topic, _MORE)
        except zmq.Again:
            return False
        self._send(payload, _MORE)
        self._send(record, _LAST)
        return True

    def close(self) -> None:
        """Close the socket, giving subscribers a moment to fetch what is queued."""
        self._socket.close()
        self._context.term()
