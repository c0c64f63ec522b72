# SPDX-License-Identifier: Apache-2.0
"""TLS and passwords before the pages: a file in the format of Prometheus's exporter-toolkit (--web.config.file)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import ssl
import threading
import time
from pathlib import Path
from typing import Literal, NoReturn

import bcrypt
import msgspec
import structlog

from tickpath.errors import ConfigError

log = structlog.get_logger()

MAX_FILE_BYTES = 1 << 20
LOOK_SECONDS = 1.0
"""How often, at most, the files are looked at for changes."""
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_HASH_REMEDY = "make one with: htpasswd -nBC 10 '' | tr -d ':\\n'"
# What bcrypt sees of a password, here as in the exporter-toolkit.
_PASSWORD_BYTES = 72
# Of a password that nobody has: that a user is not known takes as long to say as that his password is wrong.
_NOBODY = b"$2b$10$" + b"." * 22 + b"." * 31
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TlsServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tls_server_config`. Paths are relative to the file that names them."""

    cert_file: str
    key_file: str
    client_ca_file: str = ""
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert", ""] = ""
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"


class WebConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Of the exporter-toolkit's keys, those that are here; another is an error, never ignored."""

    tls_server_config: TlsServerConfig | None = None
    basic_auth_users: dict[str, str] | None = None
    """Users and their passwords' bcrypt hashes."""


def _refuse(path: Path, why: object, remedy: str = "see docs/metrics.md") -> NoReturn:
    raise ConfigError(f"web configuration {str(path)!r}: {' '.join(str(why).split())}; {remedy}") from None


def read_web_config(path: Path) -> WebConfig:
    """The file, checked but for the files that it names. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        _refuse(path, f"cannot be read: {reason}", "name another with --web.config.file")
    if len(content) > MAX_FILE_BYTES:
        _refuse(path, f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        # An empty file means that nothing is wanted, as it does to the exporter-toolkit.
        config = msgspec.yaml.decode(content, type=WebConfig | None) or WebConfig()
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        keys = ", ".join(
            [*(f"tls_server_config.{name}" for name in TlsServerConfig.__struct_fields__), "basic_auth_users"]
        )
        _refuse(path, str(error) or type(error).__name__, f"its keys are {keys}")
    for user, hashed in (config.basic_auth_users or {}).items():
        if not _HASH.fullmatch(hashed):
            _refuse(path, f"the password of {user!r} is not a bcrypt hash", _HASH_REMEDY)
        if ":" in user:
            _refuse(path, f"user {user!r} holds a colon, which HTTP does not allow")
    if config.tls_server_config:
        _check_clients(path, config.tls_server_config)
    return config


def _check_clients(path: Path, tls: TlsServerConfig) -> None:
    checked = tls.client_auth_type not in ("", "NoClientCert")
    if checked and not tls.client_ca_file:
        _refuse(
            path, f"client_auth_type {tls.client_auth_type} checks certificates", "name who signs them: client_ca_file"
        )
    if tls.client_ca_file and not checked:
        _refuse(
            path,
            "client_ca_file is there and client_auth_type asks for no certificate",
            "set client_auth_type to RequireAndVerifyClientCert",
        )
    if _VERSIONS[tls.min_version] > _VERSIONS[tls.max_version]:
        _refuse(path, f"min_version {tls.min_version} is above max_version {tls.max_version}", "swap them")


def _context(path: Path, tls: TlsServerConfig) -> ssl.SSLContext:
    certificate, key = path.parent / tls.cert_file, path.parent / tls.key_file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]

    def password() -> str:
        _refuse(
            path, f"key_file {str(key)!r} is encrypted", "a server has nobody to ask: give a key without passphrase"
        )

    for file, what in ((certificate, "cert_file"), (key, "key_file")):
        _check_readable(path, file, what)
    try:
        context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        _refuse(path, f"{error}", f"are {str(certificate)!r} and {str(key)!r} a certificate and its key, as PEM?")
    if tls.client_ca_file:
        authorities = path.parent / tls.client_ca_file
        _check_readable(path, authorities, "client_ca_file")
        try:
            context.load_verify_locations(authorities)
        except (ssl.SSLError, ValueError) as error:
            _refuse(path, f"{error}", f"does {str(authorities)!r} hold certificates, as PEM?")
        context.verify_mode = _CLIENTS[tls.client_auth_type]
    return context


def _check_readable(path: Path, file: Path, what: str) -> None:
    try:
        file.open("rb").close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        _refuse(path, f"{what} {str(file)!r} cannot be read: {reason}", "paths are relative to the web configuration")


class _Passwords:
    """Who may come in.

    A hash takes a tenth of a second of CPU: one at a time, and a password that was right once is known.
    """

    def __init__(self, users: dict[str, str]) -> None:
        self._users = {user: hashed.encode() for user, hashed in users.items()}
        self._checking = threading.Lock()
        self._salt = os.urandom(16)
        self._right: dict[str, bytes] = {}

    def admit(self, authorization: str | None) -> bool:
        """Whether an Authorization header names one of the users and his password."""
        given = _credentials(authorization)
        if given is None:
            return False
        user, password = given
        digest = hmac.digest(self._salt, password, hashlib.sha256)
        known = self._right.get(user)
        if known is not None and hmac.compare_digest(known, digest):
            return True
        with self._checking:
            right = bcrypt.checkpw(password[:_PASSWORD_BYTES], self._users.get(user, _NOBODY)) and user in self._users
        if right:
            self._right[user] = digest
        return right


def _credentials(authorization: str | None) -> tuple[str, bytes] | None:
    """User and password of HTTP's basic scheme (RFC 7617); None where there are none."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon and b"\0" not in password else None
    except (binascii.Error, ValueError):
        return None


class Guard:
    """What the file asks for. It and the files it names are read again when they change, as the toolkit does."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file, or one that it names, cannot be used."""
        self._path = path
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        files = [self._path]
        config = read_web_config(self._path)
        tls = config.tls_server_config
        if tls:
            files += [self._path.parent / name for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name]
        # Looked at before they are read: a change meanwhile is seen the next time.
        self._files = files
        self._seen = [_state(file) for file in files]
        self._looked = time.monotonic()
        self._context = _context(self._path, tls) if tls else None
        self._passwords = _Passwords(config.basic_auth_users) if config.basic_auth_users else None

    def _look(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_SECONDS:
                return
            self._looked = now
            if [_state(file) for file in self._files] == self._seen:
                return
            try:
                self._load()
                log.info("web_configuration", path=str(self._path), state="read again")
            except ConfigError as error:
                # Who had no access must not get any by a mistake in the file: what held goes on to hold.
                log.warning("web_configuration", reason=str(error), state="the one before stays in force")

    @property
    def scheme(self) -> str:
        """`https` with TLS, else `http`."""
        return "https" if self._context else "http"

    def context(self) -> ssl.SSLContext | None:
        """What a connection is to be wrapped in; None: nothing."""
        self._look()
        return self._context

    def admit(self, authorization: str | None) -> bool:
        """Whether a request with this Authorization header may be answered."""
        return self._passwords is None or self._passwords.admit(authorization)


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
