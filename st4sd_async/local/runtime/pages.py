"""
What the pages of the registry ask, and the pages themselves.

Source:
    st4sd-registry-backend, ``apis/experiments.py``, which hands the query on to the runtime service and keeps its words
    to itself when it refuses; st4sd-deployment, the nginx in front, which answers every other path with the one page
    that shows all.
"""

from __future__ import annotations

from st4sd_async.local.http.messages import Abort, Answer, Handler, Request, Route, Slash, page, reply

PREFIX = "/registry-ui/"
"""What the paths of the registry's pages begin with."""
_PAGE = '<!doctype html>\n<html lang="en">\n<head><title>ST4SD Registry</title></head>\n<body></body>\n</html>\n'


class Pages:
    """The handlers of ``/registry-ui/``."""

    def __init__(self, get: Handler) -> None:
        """
        Args:
            get: What gives an experiment, as the runtime service does.
        """
        self._get = get

    def routes(self) -> list[Route]:
        """The routes, the more special ones first."""
        return [
            Route(f"{PREFIX}backend/experiments/{{}}", Slash.NEVER, GET=self.experiment),
            Route(PREFIX.removesuffix("/"), Slash.NEEDED, GET=self.page),
            Route(f"{PREFIX}{{path}}", Slash.EITHER, GET=self.page),
        ]

    def experiment(self, request: Request, identifier: str) -> Answer:
        """One experiment; a refusal without its reason."""
        try:
            return self._get(request, identifier)
        except Abort as abort:
            return reply({}, abort.answer.status)

    def page(self, _request: Request, _path: str = "") -> Answer:
        """The page, whatever was asked for."""
        return page(200, _PAGE, "text/html")
