"""What the tests of downloads are given: the server, the clock and the client of the tests of results."""

from __future__ import annotations

from tests.client.results import client as client
from tests.client.results import clock as clock
from tests.client.results import server as server
