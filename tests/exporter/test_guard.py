# SPDX-License-Identifier: Apache-2.0
"""--web.config.file: TLS and passwords as the exporter-toolkit has them; a mistake is one line with its remedy."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter_samples import FakeService
from tickpath.errors import ConfigError
from tickpath.exporter.web import guard as guard_module
from tickpath.exporter.web.application import Application
from tickpath.exporter.web.guard import Guard, read_web_config
from tickpath.exporter.web.server import Server

PASSWORD = "an ✓ password: with a colon"
# Of one salt: the names of tests must be the same in every process.
HASH = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
Serve = Callable[[str], Server]


def credentials(folder: Path, name: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    for name in ("server", "client", "stranger"):
        credentials(folder, name)
    return folder


@pytest.fixture
def serve(made: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(text: str) -> Server:
        path = made / f"web-{len(servers)}.yml"
        path.write_text(text)
        server = Server(("127.0.0.1", 0), Application(FakeService()), Guard(path), connection_seconds=30.0)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def status(server: Server, headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> int:
    address = server.server_address[:2]
    made = (
        http.client.HTTPSConnection(*address, timeout=60, context=context)
        if context
        else http.client.HTTPConnection(*address, timeout=60)
    )
    try:
        made.request("GET", "/metrics", headers=headers or {})
        answer = made.getresponse()
        answer.read()
        if answer.status == 401:
            assert answer.getheader("WWW-Authenticate") == 'Basic realm="tickpath"'
        return answer.status
    finally:
        made.close()


TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"


def trusting(made: Path, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(made / "server.pem"))
    if client:
        context.load_cert_chain(made / f"{client}.pem", made / f"{client}.key")
    return context


def test_only_who_knows_the_password_is_answered(serve: Serve) -> None:
    server = serve(f"basic_auth_users: {{alice: '{HASH}'}}")
    assert status(server) == 401
    for _ in range(2):  # the second time it is known
        assert status(server, basic("alice", PASSWORD)) == 200
        assert status(server, basic("alice", PASSWORD + "x")) == 401
        assert status(server, basic("bob", PASSWORD)) == 401
    assert status(server, {"Authorization": "Bearer x"}) == 401
    assert server.url.startswith("http://")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.text() | st.binary().map(lambda b: "Basic " + base64.b64encode(b).decode()))
def test_no_header_lets_a_stranger_in(tmp_path: Path, header: str) -> None:
    path = tmp_path / "web.yml"
    if not path.exists():
        path.write_text(f"basic_auth_users: {{alice: '{HASH}'}}")
    assert not Guard(path).admit(header)


def test_a_long_password_counts_as_far_as_bcrypt_reads_it(serve: Serve) -> None:
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    server = serve(f"basic_auth_users: {{alice: '{hashed}'}}")
    assert status(server, basic("alice", "x" * 100)) == 200
    assert status(server, basic("alice", "x" * 71)) == 401


def test_tls_is_served_and_nothing_else(serve: Serve, made: Path) -> None:
    server = serve(TLS)
    assert server.url.startswith("https://")
    assert status(server, context=trusting(made)) == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        status(server)
    # A client that says nothing, or nonsense, holds up no other.
    with (
        socket.create_connection(server.server_address[:2]) as silent,
        socket.create_connection(server.server_address[:2]) as noisy,
    ):
        noisy.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert status(server, context=trusting(made)) == 200
        assert silent.fileno() > 0


@pytest.mark.parametrize(
    ("kind", "without"), [("RequireAndVerifyClientCert", False), ("VerifyClientCertIfGiven", True)]
)
def test_clients_show_a_certificate_that_is_trusted(serve: Serve, made: Path, kind: str, without: bool) -> None:
    server = serve(TLS.replace("}", f", client_ca_file: client.pem, client_auth_type: {kind}}}"))
    assert status(server, context=trusting(made, "client")) == 200
    with pytest.raises(OSError):
        status(server, context=trusting(made, "stranger"))
    if without:
        assert status(server, context=trusting(made)) == 200
    else:
        with pytest.raises(OSError):
            status(server, context=trusting(made))


def test_a_renewed_certificate_and_another_password_are_taken_up_and_a_mistake_is_not(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "LOOK_SECONDS", 0.0)
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    path = tmp_path / "web.yml"
    path.write_text(f"{TLS}basic_auth_users: {{alice: '{HASH}'}}")
    guard = Guard(path)
    first = guard.context()
    assert guard.context() is first
    credentials(tmp_path, "server")
    second = guard.context()
    assert second is not first
    path.write_text(f"{TLS}basic_auth_user: {{alice: '{HASH}'}}")
    assert guard.context() is second
    assert not guard.admit(None)
    path.write_text(TLS)
    guard.context()
    assert guard.admit(None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "basic_auth_users:\n", "tls_server_config:\n"])
def test_a_file_that_asks_for_nothing_guards_nothing(serve: Serve, text: str) -> None:
    assert status(serve(text)) == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tls_server_config: {cert_file: a, key_file: b, ciphers: x}", "unknown field `ciphers`"),
        ("basic_auth: {}", "unknown field `basic_auth`"),
        ("http_server_config: {http2: false}", "unknown field"),
        ("tls_server_config: {cert_file: server.pem}", "key_file"),
        ("tls_server_config: {cert_file: none.pem, key_file: server.key}", "none.pem"),
        ("tls_server_config: {cert_file: server.pem, key_file: client.key}", "a certificate and its key"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "a certificate and its key"),
        (TLS.replace("}", ", client_auth_type: RequireAnyClientCert}"), "RequireAnyClientCert"),
        (TLS.replace("}", ", client_auth_type: RequireAndVerifyClientCert}"), "client_ca_file"),
        (TLS.replace("}", ", client_ca_file: client.pem}"), "client_auth_type"),
        (TLS.replace("}", ", client_ca_file: server.key, client_auth_type: VerifyClientCertIfGiven}"), "server.key"),
        (TLS.replace("}", ", min_version: TLS13, max_version: TLS12}"), "swap them"),
        (TLS.replace("}", ", min_version: TLS10}"), "TLS10"),
        ("basic_auth_users: {alice: secret}", "htpasswd"),
        (f"basic_auth_users: {{'a:b': '{HASH}'}}", "colon"),
        ("basic_auth_users: [alice]", "basic_auth_users"),
        ("a: [", "keys are"),
        ("\x00", "keys are"),
        ("[" * 5000, "keys are"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(made: Path, text: str, says: str) -> None:
    path = made / "mistake.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Guard(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_that_is_encrypted_is_not_asked_about(made: Path) -> None:
    subprocess.run(
        ["openssl", "pkey", "-in", made / "server.key", "-aes256", "-passout", "pass:x", "-out", made / "locked.key"],
        check=True,
        capture_output=True,
    )
    path = made / "locked.yml"
    path.write_text(TLS.replace("server.key", "locked.key"))
    with pytest.raises(ConfigError, match="passphrase"):
        Guard(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yml", tmp_path, Path("/dev/null") / "x"):
        with pytest.raises(ConfigError, match="cannot be read"):
            Guard(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(alphabet="abu_:{}[]&*!|>-'\"#\n %@0123~?,", max_size=60).map(str.encode))
def test_whatever_the_file_holds_it_is_a_configuration_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"web-{os.getpid()}.yml"
    path.write_bytes(content)
    try:
        read_web_config(path)
    except ConfigError as error:
        assert "\n" not in str(error)
