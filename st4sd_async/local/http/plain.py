"""
The port without TLS of a server with TLS.

The services are behind a proxy that terminates TLS, so they redirect to plain http. There, the route of the deployment
redirects to https. A client that follows loses its credentials or sends them in clear text, and a POST becomes a GET.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st4sd_async.local.http.messages import proxy_page

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class RedirectToHttps:
    """
    The ASGI application of the port without TLS.

    Attributes:
        port: The port with TLS; set when that port is bound.
    """

    port: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect one request."""
        query = scope["query_string"].decode("latin-1")
        url = f"https://{scope['server'][0]}:{self.port}{scope['raw_path'].decode('latin-1')}{query and '?'}{query}"
        page = proxy_page(302, "Found")
        headers = {"content-type": page.content_type, "content-length": str(len(page.body)), "location": url}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": page.status, "headers": raw})
        await send({"type": "http.response.body", "body": page.body})
