"""
The root page of each service, and the OpenAPI document that the page displays.

The documents in ``openapi/`` come from the services (st4sd-runtime-service and st4sd-datastore, Apache-2.0).
The scripts and styles of the page are not served.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from st4sd_async.local.http.messages import Request, Response, Route, TrailingSlash, html_response, json_response

_PAGE = """<!DOCTYPE html>
<html>
<head>
    <title>{title}</title>
    <link media="screen" rel="stylesheet" type="text/css" href="{base}/swaggerui/swagger-ui.css" />
</head>
<body>
    <div id="swagger-ui"></div>
    <script src="{base}/swaggerui/swagger-ui-bundle.js"></script>
    <script type="text/javascript">
        window.onload = () => SwaggerUIBundle({{url: "{base}/swagger.json", dom_id: "#swagger-ui"}})
    </script>
</body>
</html>
"""


def page_routes(name: str, prefix: str = "") -> list[Route]:
    """
    Return the routes ``/`` and ``/swagger.json`` of a service.

    Args:
        name: Name of the document of the service in ``openapi/``, without the suffix.
        prefix: Prefix of the paths of the service, without a slash at the end.
    """

    def home(_request: Request) -> Response:
        document = _document(name)
        return html_response(200, _PAGE.format(title=document["info"]["title"], base=document["basePath"]))

    def swagger(_request: Request) -> Response:
        return json_response(_document(name))

    return [
        Route(f"{prefix}/", TrailingSlash.FORBIDDEN, GET=home),
        Route(f"{prefix}/swagger.json", TrailingSlash.FORBIDDEN, GET=swagger),
    ]


@cache
def _document(name: str) -> dict[str, dict[str, str]]:
    document: dict[str, dict[str, str]] = json.loads(
        (Path(__file__).parent / "openapi" / f"{name}.json").read_text(encoding="utf-8")
    )
    return document
