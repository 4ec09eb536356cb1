"""
A server that sends a body of a given length as fast as the client reads it; prints its port.

    python benchmarks/_body_server.py BYTES

Paths that end with ``/Big`` return the body; all others return ``{}``.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = bytes(1 << 20)


class Sending(BaseHTTPRequestHandler):
    """Handles GET, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    size = 0
    """Bytes of the body."""

    def do_GET(self) -> None:
        """Send the body, or ``{}``."""
        if not self.path.endswith("/Big"):
            self._head("application/json", 2)
            self.wfile.write(b"{}")
            return
        self._head("application/octet-stream", self.size)
        for sent in range(0, self.size, len(BLOCK)):
            self.wfile.write(BLOCK[: self.size - sent])

    def _head(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    Sending.size = int(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Sending) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
