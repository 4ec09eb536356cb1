"""What the tests of downloads are given: the server, the clock and the client of the tests of results."""

from __future__ import annotations

from tests.results.demo_runs import client as client
from tests.results.demo_runs import clock as clock
from tests.results.demo_runs import server as server
