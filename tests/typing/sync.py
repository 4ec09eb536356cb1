"""How the blocking API is typed: checked by mypy, never executed."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal, assert_type

from st4sd_async import Config, Draft, Experiment, Instance, KeyOutput, Launch, Output, Properties, Status, UserMetadata
from st4sd_async import Run as AsyncRun
from st4sd_async.models import ExperimentList
from st4sd_async.sync import Batch, Client, Item, Run


def verbs(client: Client, other: AsyncRun) -> None:
    assert_type(client.push({}), Experiment)
    run = assert_type(client.start("demo", {"variables": {"scale": 2}}), Run)
    assert_type(client.status(run), Status)
    assert_type(client.wait(run), Status)
    assert_type(client.wait([run, "demo-1"]), list[Status])
    assert_type(client.watch(run, timeout=5), Generator[Status])
    for one, seen in client.watch_many([run], interval=1):
        assert_type(one, Run)
        assert_type(seen, Status)
    assert_type(client.outputs(run), dict[str, KeyOutput])
    assert_type(run.output("Energies"), Output)
    assert_type(run.wait(check=True), Status)
    assert_type(run.client, Client)
    assert_type(client.draft("demo"), Draft)
    assert_type(client.properties([run]), Properties)
    client.wait(run, 5)  # type: ignore[call-overload] # all but the run is named
    client.status(other)  # type: ignore[arg-type] # that of an asynchronous client


def groups(client: Client) -> None:
    assert_type(client.experiments.list(), ExperimentList)
    assert_type(client.instances.list(), list[Instance])
    assert_type(client.datastore.user_metadata(rest_uid="demo-1"), list[UserMetadata])
    client.library.nothing()  # type: ignore[attr-defined] # there is no such method


def batches(client: Client) -> None:
    with client.batch(Path("campaign.db")) as batch:
        assert_type(batch, Batch)
        assert_type(batch.add([Launch("C", "demo", {})]), int)
        for item in batch.run():
            assert_type(item, Item)
            if item.state == "planned":
                assert_type(item.state, Literal["planned"])
            assert_type(item.run, Run | None)
        assert_type(batch.counts, dict[str, int])
        assert_type(batch.items[0], Item)
        assert_type(list(batch.items.in_state("failed")), list[Item])


def clients() -> None:
    assert_type(Client.from_env(), Client)
    with Client("https://st4sd.example", api_key=Path("key"), config=Config()) as client:
        assert_type(client.with_options(timeout=2), Client)
    client.close()
    Client("https://st4sd.example", "key")  # type: ignore[call-arg] # all but the url are named
