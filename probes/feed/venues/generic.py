# SPDX-License-Identifier: Apache-2.0
"""A venue of which nothing is known: every message counts, none has an event time or a sequence."""

from __future__ import annotations

from tickpath.probes.feed.venues.venue import Address, Reader, Subscription


class Generic:
    """Any WebSocket server that sends JSON."""

    label = "generic"
    hosts: frozenset[str] = frozenset()

    def resembles(self, address: Address) -> bool:  # noqa: ARG002 - it has no form
        """Always: it is the last that is asked."""
        return True

    def subscribe(self, address: Address, streams: tuple[str, ...]) -> Subscription:
        """One stream, named after the path; `streams` are sent as they are, one text message each."""
        name = address.path.strip("/") or address.host
        return Subscription(
            address=address,
            venue=self.label,
            streams=(name,),
            greetings=streams,
            reader=lambda: Reader(f"{self.label}/{name}"),
            refusal=_no_refusal,
        )


def _no_refusal(_status: int) -> None:
    """Nothing is known of what this server means by a status."""
