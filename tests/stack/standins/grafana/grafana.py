# SPDX-License-Identifier: Apache-2.0
"""Stands in for Grafana where its image cannot be had: proves the mounts, the user and the port, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryFile

# The first process of a container is ended by no signal that it does not ask for.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
PASSWORD = Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text()
assert len(PASSWORD.strip()) >= 20, "no password"
for folder in ("/etc/grafana/provisioning", "/etc/tickpath/dashboards"):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    read = sum(len(path.read_bytes()) for path in files)
    print(f"stand-in for Grafana: {folder}: {len(files)} files, {read} bytes", flush=True)
for folder in ("/var/lib/grafana", "/tmp"):
    TemporaryFile(dir=folder).close()


class Health(BaseHTTPRequestHandler):
    """The one page."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b'{"database": "stand-in"}\n')

    def log_message(self, *_: object) -> None:
        pass


HTTPServer(("0.0.0.0", 3000), Health).serve_forever()
