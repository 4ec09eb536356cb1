"""A bucket of a test, as those see it who look into it by plain HTTP, and runs that use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import httpx

from st4sd_async import S3, Client, Run, S3Store
from st4sd_async.local import LocalServer

MOLECULES = b"index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"
KEY_ID, SECRET = "QIDSXC0123456789ABCD", "QSECXD/abcdefghijklmnopqrstuvwxyz+012345"
"""A test that finds these in a message fails."""
DEMO = ["Energies/energies.csv", "Folder/sub/b.bin", "Folder/summary.json"]
"""Where the key-outputs of the demo go."""
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass
class Storage:
    """A bucket, as those see it who look into it by plain HTTP."""

    url: str
    name: str
    web: httpx.Client

    def s3(self, **changes: Any) -> S3:
        """The bucket as a payload says it."""
        keys = {"accessKeyID": KEY_ID, "secretAccessKey": SECRET, "bucket": self.name, "endpoint": self.url}
        return S3.model_validate({**keys, **changes})

    def store(self, path: str | None = None) -> S3Store:
        """The bucket as the place for key-outputs."""
        return S3Store(credentials=self.s3(), **({} if path is None else {"bucketPath": path}))

    def put(self, key: str, content: bytes) -> None:
        """Make an object, whatever its key."""
        # Dots are quoted, because otherwise ".." could not be sent.
        self.web.put(f"/{self.name}/{quote(key).replace('.', '%2E')}", content=content).raise_for_status()

    def get(self, key: str) -> bytes:
        """The content of an object."""
        return self.web.get(f"/{self.name}/{quote(key)}").raise_for_status().content

    def listed(self) -> list[str]:
        """The keys of all objects, up to a thousand."""
        text = self.web.get(f"/{self.name}?list-type=2").raise_for_status().text
        return [found.text or "" for found in ElementTree.fromstring(text).iter(f"{_SPACE}Key")]


async def demo(client: Client, server: LocalServer, store: S3Store | None, **more: Any) -> Run:
    """A run of the demo that is over, and has uploaded what it made."""
    inputs = [{"filename": "molecules.csv", "content": MOLECULES}]
    return await ended(server, await client.start("demo", {"inputs": inputs, "s3Store": store, **more}))


async def ended(server: LocalServer, run: Run) -> Run:
    """The run when it is over."""
    await server.advance(10)
    status = await run.status()  # one look, because after a slow one a client that waits takes its time
    assert status.is_final, status
    return run
