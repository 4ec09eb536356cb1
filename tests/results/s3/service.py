"""An S3 service on a loopback port, in a process of its own; it prints its port and ends with its input."""

from __future__ import annotations

import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve until the standard input ends."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(f"port {server.get_host_and_port()[1]}", flush=True)  # noqa: T201 -- it is read by the tests
    sys.stdin.read()


if __name__ == "__main__":
    main()
