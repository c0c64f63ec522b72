# SPDX-License-Identifier: Apache-2.0
"""wss: the transport over our TLS shim, and the plain word where this build has none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tickpath.errors import ConfigError, TickpathError
from tickpath.lab.simulator.config import RECORD_MAX_BYTES, KeyUpdate, SimulatorConfig

if TYPE_CHECKING:
    from tickpath.lab.simulator._tls import Context, Session


class TlsTransport:
    """One wss connection."""

    record_max_bytes: int | None = RECORD_MAX_BYTES

    def __init__(self, session: Session) -> None:
        self._session = session
        self.open = session.open
        self.answer = session.answer
        self.seal = session.seal
        self.farewell = session.farewell

    def update_key(self, kind: KeyUpdate) -> None:
        self._session.update_key(kind is KeyUpdate.REQUESTED)


class TlsServer:
    """The credentials of one simulator; `close` removes the CA file where its place was not asked for."""

    def __init__(self, config: SimulatorConfig) -> None:
        try:
            from tickpath.lab.simulator._tls import Context, Session  # noqa: PLC0415 - absent without OpenSSL's headers
        except ImportError as error:
            raise ConfigError(
                "wss is unavailable: tickpath was built without OpenSSL; install libssl-dev and build again, or use ws"
            ) from error
        try:
            from tickpath.lab.simulator.authority import make_credentials  # noqa: PLC0415 - of the lab extra
        except ImportError as error:
            raise ConfigError("wss needs the package cryptography: pip install 'tickpath[lab]', or use ws") from error
        names = dict.fromkeys(["localhost", "127.0.0.1", "::1", config.host, *config.names])
        credentials = make_credentials(list(names))
        self._context: Context = Context(credentials.certificate, credentials.key, config.tls or "1.3")
        self._session = Session
        self._pad_bytes = config.shape.pad_bytes
        self._temporary = config.ca is None
        if config.ca is None:
            with tempfile.NamedTemporaryFile(prefix="tickpath-ca-", suffix=".pem", delete=False) as file:
                self.ca_path = Path(file.name)
        else:
            self.ca_path = config.ca
        try:
            self.ca_path.write_bytes(credentials.ca)
        except OSError as error:
            raise TickpathError(f"cannot write the CA certificate {self.ca_path}: {error.strerror}") from error

    def transport(self) -> TlsTransport:
        """For one connection."""
        return TlsTransport(self._session(self._context, self._pad_bytes))

    def close(self) -> None:
        """Nothing is left behind that was not asked for."""
        if self._temporary:
            self.ca_path.unlink(missing_ok=True)
