"""An S3 service on a loopback port, in a process of its own; it prints its port and ends with its input."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class ConditionsAreAtomic:
    """
    Handle one request with a condition at a time.

    moto checks a condition, then reads the content, then writes: of two requests at once both would be carried out.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
            with self._lock:
                return list(self._application(environ, start_response))
        return self._application(environ, start_response)


def main() -> None:
    """Serve until the standard input ends."""
    application: Any = ConditionsAreAtomic(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"port {server.server_port}", flush=True)  # noqa: T201 -- it is read by the tests
    sys.stdin.read()


if __name__ == "__main__":
    main()
