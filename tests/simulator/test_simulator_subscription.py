# SPDX-License-Identifier: Apache-2.0
"""URL forms and requests are answered as the venues do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickpath.lab.simulator.address import Address, Refusal, read_address
from tickpath.lab.simulator.config import Venue
from tickpath.lab.simulator.subscription import Subscription

KNOWN = ("btcusdt@bookTicker", "btcusdt@trade", "btcusdt@depth@0ms")


@pytest.mark.parametrize(
    ("venue", "target", "address"),
    [
        (Venue.USDM, "/public/ws/btcusdt@bookTicker", Address(("btcusdt@bookTicker",), False, "public")),
        (Venue.USDM, "/market/stream?streams=a@trade/b@trade", Address(("a@trade", "b@trade"), True, "market")),
        (Venue.USDM, "/public/ws", Address((), False, "public")),
        (Venue.USDM, "/private/ws/key", Address(("key",), False, "private")),
        (Venue.SPOT, "/ws/btcusdt@trade", Address(("btcusdt@trade",), False)),
        (Venue.SPOT, "/ws/btcusdt@trade/btcusdt@depth", Address(("btcusdt@trade", "btcusdt@depth"), False)),
        (Venue.SPOT, "/stream?streams=btcusdt@trade", Address(("btcusdt@trade",), True)),
        (Venue.SPOT, "/stream?streams=btcusdt%40trade&timeUnit=MICROSECOND", Address(("btcusdt@trade",), True)),
        (Venue.SPOT, "/stream", Address((), True)),
        (Venue.COINM, "/ws/btcusd_perp@aggTrade", Address(("btcusd_perp@aggTrade",), False)),
        (Venue.COINBASE, "/", Address((), False)),
    ],
)
def test_current_url_forms(venue: Venue, target: str, address: Address) -> None:
    assert read_address(target, venue) == address


@pytest.mark.parametrize("target", ["/ws/btcusdt@trade", "/stream?streams=btcusdt@trade", "/ws"])
def test_retired_usdm_paths_name_their_successors(target: str) -> None:
    refusal = read_address(target, Venue.USDM)
    assert isinstance(refusal, Refusal)
    assert refusal.status >= 400
    assert "/public" in refusal.text
    assert "/market" in refusal.text


@settings(max_examples=200)
@given(st.text(max_size=40).map(lambda text: "/" + text), st.sampled_from(Venue))
def test_no_target_raises(target: str, venue: Venue) -> None:
    assert isinstance(read_address(target, venue), Address | Refusal)


def _subscribed(*names: str, known: tuple[str, ...] = KNOWN, usdm_class: str = "") -> set[str]:
    subscription = Subscription(Address(names, False, usdm_class), known)
    return {stream for stream in (*known, "") if subscription.selects(stream)}


def test_names_match_without_regard_to_case() -> None:
    assert _subscribed("BTCUSDT@BookTicker") == {"btcusdt@bookTicker", ""}


def test_a_name_without_speed_selects_any_speed() -> None:
    assert _subscribed("btcusdt@depth") == {"btcusdt@depth@0ms", ""}
    assert _subscribed("btcusdt@depth@100ms") == {"btcusdt@depth@0ms", ""}


def test_an_exact_name_comes_first() -> None:
    known = ("a@depth@0ms", "a@depth@100ms")
    assert _subscribed("a@depth@100ms", known=known) == {"a@depth@100ms", ""}


def test_a_recording_of_one_symbol_serves_every_symbol() -> None:
    assert _subscribed("ethusdt@trade") == {"btcusdt@trade", ""}
    assert _subscribed("ethusdt@trade", known=(*KNOWN, "xrpusdt@trade")) == {""}


def test_usdm_classes_part_depth_from_trades() -> None:
    assert _subscribed("btcusdt@trade", "btcusdt@depth", usdm_class="public") == {"btcusdt@depth@0ms", ""}
    assert _subscribed("btcusdt@trade", "btcusdt@depth", usdm_class="market") == {"btcusdt@trade", ""}
    assert Subscription(Address(("btcusdt@trade",), False, "public"), KNOWN).unserved() == ["btcusdt@trade"]


def test_nothing_is_selected_before_a_subscription() -> None:
    assert _subscribed() == set()


def _ask(subscription: Subscription, **request: object) -> object:
    reply = subscription.request(json.dumps(request))
    assert reply is not None
    return json.loads(reply)


def test_requests_change_the_subscription() -> None:
    subscription = Subscription(Address((), False), KNOWN)
    assert _ask(subscription, method="SUBSCRIBE", params=["btcusdt@trade"], id=1) == {"result": None, "id": 1}
    assert subscription.selects("btcusdt@trade")
    assert _ask(subscription, method="LIST_SUBSCRIPTIONS", id=2) == {"result": ["btcusdt@trade"], "id": 2}
    assert _ask(subscription, method="UNSUBSCRIBE", params=["btcusdt@trade"], id="x") == {"result": None, "id": "x"}
    assert not subscription.active


def test_the_wrapping_is_a_property() -> None:
    subscription = Subscription(Address((), False), KNOWN)
    assert _ask(subscription, method="GET_PROPERTY", params=["combined"], id=1) == {"result": False, "id": 1}
    assert _ask(subscription, method="SET_PROPERTY", params=["combined", True], id=2) == {"result": None, "id": 2}
    assert subscription.combined


def test_coinbase_subscribes_to_everything() -> None:
    subscription = Subscription(Address((), False), ())
    assert subscription.request('{"type":"subscribe","channels":["level2"]}') is None
    assert subscription.selects("")


@pytest.mark.parametrize(
    ("request_text", "code", "words"),
    [
        ("{", 3, "Invalid JSON"),
        ("[]", 2, "Invalid request"),
        ('{"id":1}', 2, "missing field `method`"),
        ('{"method":"NOPE","id":1}', 2, "unknown variant `NOPE`"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":-1}', 2, "unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["a"]}', 2, "unsigned integer"),
        ('{"method":"SUBSCRIBE","params":"a","id":1}', 2, "params"),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, "params"),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1, "expected Boolean"),
        ('{"method":"SET_PROPERTY","params":["colour",true],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":[5],"id":1}', 2, "property name must be a string"),
    ],
)
def test_bad_requests_get_the_venues_errors(request_text: str, code: int, words: str) -> None:
    reply = Subscription(Address((), False), KNOWN).request(request_text)
    assert reply is not None
    error = json.loads(reply)["error"]
    assert error["code"] == code
    assert words in error["msg"]


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.text() | st.integers() | st.sampled_from(["SUBSCRIBE"]),
            lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["method", "params", "id", "type"]), v),
        ).map(lambda v: json.dumps(v).encode()),
    )
)
def test_no_request_raises(request_bytes: bytes) -> None:
    reply = Subscription(Address((), False), KNOWN).request(request_bytes)
    if reply is not None:
        json.loads(reply)
