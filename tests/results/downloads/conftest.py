"""What the tests of downloads are given: the server, the clock and the client of the tests of results."""

from __future__ import annotations

from tests.results.scenes import client as client
from tests.results.scenes import clock as clock
from tests.results.scenes import server as server
