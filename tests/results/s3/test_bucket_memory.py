"""The memory of keyed starts in a bucket."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest

from st4sd_async import BucketMemory, Client, Config, ConfigError, RetryPolicy, S3Error
from st4sd_async.local import LocalServer
from tests.tries import tries

from .storage import KEY_ID, SECRET, Storage

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_record_is_replaced_only_if_it_has_not_changed(storage: Storage) -> None:
    """None means that there is no record. Names may have any character."""
    memory, name = BucketMemory(storage.s3()), "key/../ü / ☃"

    assert await memory.get(name) is None
    assert not await memory.compare_and_set(name, "old", "new")
    assert await memory.compare_and_set(name, None, "1")
    assert not await memory.compare_and_set(name, None, "2")
    assert await memory.compare_and_set(name, "1", "2")
    assert not await memory.compare_and_set(name, "1", "3")

    assert await memory.get(name) == await BucketMemory(storage.s3()).get(name) == "2"
    assert all(key.startswith("st4sd-memory/") for key in storage.listed())


async def test_concurrent_changes_are_not_lost(storage: Storage) -> None:
    """Each of some tasks counts as far as there are tasks, in the same record."""
    number = tries(5, 3)

    async def count() -> None:
        memory = BucketMemory(storage.s3())
        for _ in range(number):
            text = await memory.get("count")
            while not await memory.compare_and_set("count", text, str(int(text or 0) + 1)):
                text = await memory.get("count")

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(count)

    assert await BucketMemory(storage.s3()).get("count") == str(number**2)


async def test_a_key_is_started_once_with_it(server: LocalServer, client: Client, storage: Storage) -> None:
    """By workers that share nothing but the bucket."""
    found: list[str] = []

    async def start() -> None:
        run = await client.start(
            "demo", inputs={"molecules.csv": "smiles\nCO\n"}, key="a", memory=BucketMemory(storage.s3())
        )
        found.append(run.id)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(start)

    assert Counter(found).most_common() == [(server.started[0].rest_uid, 3)]
    assert len(server.started) == 1


class _Unconditional(BaseHTTPRequestHandler):
    """An S3 service that ignores conditions."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def unconditional() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Unconditional) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


async def test_a_service_that_ignores_conditions_is_refused(storage: Storage, unconditional: str) -> None:
    """Two workers could both start the same key."""
    memory = BucketMemory(storage.s3(endpoint=unconditional))

    with pytest.raises(ConfigError, match="ignores the conditions"):
        await memory.compare_and_set("a", None, "1")


async def test_an_error_names_no_credential(storage: Storage) -> None:
    """As in all errors about buckets."""
    config = Config(retry=RetryPolicy(attempts=1))
    memory = BucketMemory(storage.s3(bucket="missing-bucket"), config=config)

    with pytest.raises(S3Error) as caught:
        await memory.compare_and_set("a", None, "1")

    shown = f"{caught.value!r} {caught.value} {memory!r}"
    assert KEY_ID not in shown
    assert SECRET not in shown
