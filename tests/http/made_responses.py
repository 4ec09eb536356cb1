"""Responses for tests of how they are parsed."""

from __future__ import annotations

import json
from typing import Any

import httpx

from st4sd_async._http.call import Response

URL = "https://st4sd.example/rs/somewhere"


def reply(status: int, body: Any = None, *, html: bool = False, **headers: str) -> Response:
    """Return a response with a JSON body, or with bytes as they are."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = "text/html" if html else "application/json"
    return Response(status, httpx.Headers({"content-type": kind, **headers}), content)
