# SPDX-License-Identifier: Apache-2.0
"""The HTTP server over a real socket: paths, methods, codings, and clients that do not behave."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from exporter_samples import FakeService, full_snapshot, observation
from tickpath.errors import ConfigError
from tickpath.exporter.exposition.observation import Observation
from tickpath.exporter.web.application import Application
from tickpath.exporter.web.server import Server


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Application(service), max_connections=4, connection_seconds=60.0)
    made.start()
    yield made
    made.stop()


def request(
    server: Server, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def raw(server: Server, sent: bytes) -> bytes:
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


def test_metrics_in_the_format_that_was_asked_for(server: Server) -> None:
    response, body = request(server, "/metrics")
    assert (response.status, response.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"tickpath_hop_latency_seconds_bucket" in body
    response, body = request(server, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.getheader("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    assert response.getheader("Vary") == "Accept, Accept-Encoding"


def test_gzip_when_accepted(server: Server) -> None:
    response, body = request(server, "/metrics", headers={"Accept-Encoding": "gzip"})
    assert response.getheader("Content-Encoding") == "gzip"
    assert b"# TYPE tickpath_hop_latency_seconds histogram" in gzip.decompress(body)
    assert int(response.getheader("Content-Length") or 0) == len(body)


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/summary", "/-/healthy", "/-/ready"])
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    response, body = request(server, path, "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.getheader("Content-Length") or 0) > 0


@pytest.mark.parametrize("path", ["/nope", "/metrics/", "/../etc/passwd", "/%00", "/-/", "/api/summary/x"])
def test_unknown_paths_are_not_found(server: Server, path: str) -> None:
    response, body = request(server, path)
    assert response.status == 404
    assert b"/metrics" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    response, _ = request(server, "/metrics", method)
    assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")


def test_summary_filters_by_feed(server: Server, service: FakeService) -> None:
    service.observed = observation(full_snapshot(("a&b", "c")))
    assert json.loads(request(server, "/api/summary")[1])["messages"] == 20
    assert json.loads(request(server, "/api/summary?feed=a%26b")[1])["messages"] == 10
    assert json.loads(request(server, "/api/summary?feed=a%26b&feed=c")[1])["messages"] == 20
    assert json.loads(request(server, "/api/summary?feed=nobody")[1])["messages"] == 0


def test_health_and_readiness_give_their_reason(server: Server, service: FakeService) -> None:
    assert request(server, "/-/ready")[1] == request(server, "/-/healthy")[1] == b"ok\n"
    service.unready = "ring directory /x is not there"
    response, body = request(server, "/-/ready")
    assert (response.status, body) == (503, b"ring directory /x is not there\n")
    assert request(server, "/-/healthy")[0].status == 200
    service.failed = "rings are no longer read: ValueError: x"
    assert request(server, "/-/healthy")[0].status == 503


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b"505"),
        (b"BREW /metrics HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /\xff\xfe?\x80 HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics HTTP/1.1\r\nAccept: \xff\xfe;q=\x80\r\n\r\n", b"200"),
        (b"GET /api/summary?" + b"feed=x&" * 2000 + b" HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_garbage_is_refused_and_the_next_scrape_served(server: Server, sent: bytes, status: bytes) -> None:
    assert raw(server, sent).split(b" ")[1] == status
    assert request(server, "/metrics")[0].status == 200


def _dripping(server: Server) -> tuple[list[int], float]:
    """Statuses that others get while four clients drip, until one is served, and when the first of them had come."""
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        slow = [stack.enter_context(socket.create_connection(server.server_address[:2], timeout=60)) for _ in range(4)]
        for connection in slow:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        statuses: list[int] = []
        first_s = 0.0
        while 200 not in statuses:
            assert time.monotonic() < began + 60, statuses
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            answer = raw(server, b"GET /metrics HTTP/1.1\r\n\r\n")
            statuses.append(int(answer.split(b" ")[1]) if answer else 503)
            first_s = first_s or time.monotonic() - began
        return statuses, first_s


def test_a_client_that_drips_is_cut_off_and_one_that_leaves_is_nothing(service: FakeService) -> None:
    allowed_s = 1.0
    server = Server(("127.0.0.1", 0), Application(service), max_connections=4, connection_seconds=allowed_s)
    server.start()
    try:
        # All threads are held: the next client is told to come back rather than queued behind them. Where this thread
        # stood still until they had been cut off, it saw nothing of that.
        statuses, first_s = _dripping(server)
        while first_s >= allowed_s:
            statuses, first_s = _dripping(server)
        assert statuses[0] == 503
        assert statuses[-1] == 200
    finally:
        server.stop()


def test_scrapes_at_the_same_time_are_all_answered(server: Server) -> None:
    results: list[int] = []

    def scrape() -> None:
        for _ in range(5):
            results.append(request(server, "/metrics")[0].status)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 15


def test_a_fault_on_one_page_leaves_the_others(service: FakeService, server: Server) -> None:
    class Broken(FakeService):
        def observe(self) -> Observation:
            raise RuntimeError("broken")

    broken = Server(("127.0.0.1", 0), Application(Broken()))
    broken.start()
    try:
        assert request(broken, "/metrics")[0].status == 500
        assert request(broken, "/-/healthy")[0].status == 200
    finally:
        broken.stop()


def test_a_port_in_use_is_one_line_with_the_remedy(server: Server, service: FakeService) -> None:
    port = server.server_address[1]
    with pytest.raises(ConfigError) as caught:
        Server(("127.0.0.1", port), Application(service))
    text = str(caught.value)
    assert str(port) in text
    assert "--listen" in text
    assert "TICKPATH_EXPORTER_LISTEN" in text
    assert "\n" not in text


def test_it_serves_on_ipv6_too(service: FakeService) -> None:
    try:
        made = Server(("::1", 0), Application(service))
    except ConfigError as error:
        pytest.skip(f"no IPv6 on this host: {error}")
    made.start()
    try:
        assert made.url.startswith("http://[::1]:")
        assert request(made, "/-/healthy")[1] == b"ok\n"
    finally:
        made.stop()


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7", "x" * 300])
def test_an_address_that_is_not_ours_is_one_line(service: FakeService, host: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        Server((host, 0), Application(service))


class _Balanced(HTMLParser):
    """Fails on tags that do not nest; gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_landing_page_shows_figures_reasons_and_no_foreign_markup(server: Server, service: FakeService) -> None:
    service.unready = "<script>alert(1)</script>"
    response, body = request(server, "/")
    assert response.getheader("Content-Type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in (response.getheader("Content-Security-Policy") or "")
    assert b"<script" not in body
    parser = _Balanced()
    parser.feed(body.decode())
    assert not parser.open
    text = " ".join(parser.text)
    assert "no kernel probe runs on this host (10 messages)" in text
    assert "-1.27 s" in text
    assert "wrong magic" in text
    assert "unknown: not synchronised" in text
