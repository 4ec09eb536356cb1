"""Gateways for tests: one that forwards requests, scripted ones; and checks of targets."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, urlsplit

import anyio

from st4sd_async import Client, Download, DownloadFailed, Run
from st4sd_async.local import LocalServer, Reply

from .raw import Answer, Exchange, RawServer, Seen, close, head

MANIFEST = ".st4sd-downloads.jsonl"
"""The only file in a target that was not requested."""
REGISTRY = "POST /ds-registry/gateways"
GATEWAY = "example-cluster"
"""The id of the embedded server's gateway."""
INPUTS = [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}]


def register(server: LocalServer, address: str) -> None:
    """Register another address of the gateway."""
    entry = {GATEWAY: {"unique_id": GATEWAY, "host": address, "label": GATEWAY}}
    server.faults.add(REGISTRY, Reply(200, {"Content-Type": "application/json"}, json.dumps(entry).encode()), None)


def forward(server: LocalServer, *, piece: int = 1 << 16, pause: float = 0.0) -> Answer:
    """Forward requests to the embedded server's gateway; send so many bytes at a time, with a pause between."""

    async def answer(exchange: Exchange) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port, limit=piece)
        try:
            writer.write(_request(exchange.seen, server.api_key))
            while data := await reader.read(piece):
                await exchange.send(data)
                await anyio.sleep(pause)
        finally:
            writer.close()
        exchange.close()

    return answer


def _request(seen: Seen, key: str) -> bytes:
    lines = [
        f"{seen.method} /ds-gateway{seen.path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(seen.body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + seen.body


class _Pipe:
    """A stream that cannot seek, such as one to a client."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self.write, self.getvalue = self._out.write, self._out.getvalue

    def flush(self) -> None:
        """Do nothing."""


def zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return an archive as the services make it: zip64, with data descriptors. Names may be duplicates."""
    pipe = _Pipe()
    with zipfile.ZipFile(cast("BinaryIO", pipe), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
            archive.NameToInfo.clear()  # otherwise Python warns about duplicate names
    return pipe.getvalue()


def honest(seen: Seen) -> list[tuple[str, bytes]]:
    """Return the members of the archive that answers a request."""
    if seen.method == "POST":
        return [
            (path, Path(path).read_bytes())
            for paths in requested_paths([seen])
            for path in paths
            if Path(path).is_file()
        ]
    asked_for = {name: values[0] for name, values in parse_qs(urlsplit(seen.path).query).items()}
    folder = Path(asked_for["experiment"], "stages", f"stage{asked_for['stage']}", asked_for["component"])
    return [(f"/{path.relative_to(folder)}", path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


def archive(
    change: Callable[[list[tuple[str, bytes]]], Iterable[tuple[str, bytes]] | bytes] = list,
    *,
    chunked: bool = True,
    missing: int | None = None,
    then: Answer | None = None,
    **headers: str,
) -> Answer:
    """
    Send what was requested, or what ``change`` makes of it: other members, or a body.

    The last ``missing`` bytes on the wire are not sent; instead ``then`` happens.
    """

    async def answer(exchange: Exchange) -> None:
        changed = change(honest(exchange.seen))
        body = changed if isinstance(changed, bytes) else zipped(changed)
        lead = {"Content-Type": "application/zip", **{name.replace("_", "-"): text for name, text in headers.items()}}
        if chunked:
            lead["Transfer-Encoding"] = "chunked"
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _pieces(body)) + b"0\r\n\r\n"
        else:
            lead["Content-Length"] = str(len(body))
        await exchange.send(head(200, lead) + (body[:-missing] if missing else body))
        if missing is not None:
            await (then or close())(exchange)

    return answer


def _pieces(body: bytes) -> list[bytes]:
    return [body[at : at + 1000] for at in range(0, len(body), 1000)]


def when(applies: Callable[[Seen], object], answer: Answer, otherwise: Answer) -> Answer:
    """Use one of two answers, depending on the request."""

    async def either(exchange: Exchange) -> None:
        await (answer if applies(exchange.seen) else otherwise)(exchange)

    return either


@asynccontextmanager
async def gateway(server: LocalServer, *answers: Answer) -> AsyncIterator[RawServer]:
    """Run a registered gateway with these answers; without answers it forwards all requests."""
    async with RawServer(list(answers) or [forward(server)]) as running:
        register(server, running.url)
        yield running


def requested_paths(seen: Iterable[Seen]) -> list[list[str]]:
    """Return the absolute paths in each of some requests for files."""
    bodies = [json.loads(one.body) for one in seen if one.method == "POST"]
    return [path_list for body in bodies for path_list in body.values()]


async def finished(client: Client, server: LocalServer) -> Run:
    """Return a run of the demo that is over in both services; the server's clock stands still."""
    await client.push(server.example("demo"))
    return await another(client, server)


async def another(client: Client, server: LocalServer) -> Run:
    """Return a finished run of a demo that was pushed before."""
    run = await client.start("demo", {"inputs": INPUTS})
    await server.advance(100)
    return run


def instance_of(server: LocalServer, run: Run) -> Path:
    """Return the directory of a run."""
    directory = server.directory(run.id)
    assert directory is not None
    return directory


def files_in(folder: Path) -> dict[str, bytes]:
    """Return path -> content, for files below a folder with their final names; a link fails."""
    found = {}
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.name == MANIFEST or any(map(is_part, below.parts)):
            continue
        assert not path.is_symlink(), path
        if path.is_file():
            found[below.as_posix()] = path.read_bytes()
    return found


def is_part(name: str) -> bool:
    """Return whether a name is that of a temporary folder."""
    return name.startswith(".st4sd-") and name.endswith(".part")


def leftovers(folder: Path) -> list[Path]:
    """Return temporary folders anywhere below a folder."""
    return [path for path in folder.rglob("*") if is_part(path.name)]


def whole(outcomes: Iterable[Download | DownloadFailed]) -> list[Download]:
    """Return the downloads; fail if one failed, or differs from its file on disk."""
    found = []
    for one in outcomes:
        assert isinstance(one, Download), one
        content = one.path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (one.size, one.sha256), one
        found.append(one)
    return found


def failed(outcomes: Iterable[Download | DownloadFailed]) -> list[Any]:
    """Return the errors among outcomes."""
    return [one.error for one in outcomes if isinstance(one, DownloadFailed)]
