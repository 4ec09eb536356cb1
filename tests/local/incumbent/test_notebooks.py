"""
The example notebooks of ST4SD run through the incumbent, and give the same through our client.

`CALLS` has the calls that each notebook makes, in their order. The names of experiments, components, files and
properties are those of the example "demo".

Source:
    The notebooks of github.com/st4sd/st4sd-examples.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pandas
import pytest
from anyio import to_thread
from pandas.testing import assert_frame_equal

from st4sd_async import Client, Download, Unauthorized
from tests.local.helpers import MOLECULES, repository
from tests.local.incumbent.finished import INCUMBENT, Finished

pytestmark = [pytest.mark.anyio, *INCUMBENT, pytest.mark.slow]

NAME = "band-gap-toy"
PAYLOAD: dict[str, Any] = {
    "inputs": [MOLECULES],
    "data": [],
    "variables": {"scale": 2},
    "metadata": {"author": "somebody", "planet": "earth"},
    "additionalOptions": ["--useMemoization=y"],
    "orchestrator_resources": {"cpu": "1", "memory": "2Gi"},
}
STATUS_KEYS = [
    *("experiment-state", "stage-state", "stages", "current-stage", "exit-status", "meta"),
    *("total-progress", "stage-progress", "error-description"),
]
PLATFORMS = """
platforms: [default, openshift, openshift-kubeflux]
variables: {default: {global: {startIndex: 0, numberMolecules: 1}}}
components:
- {name: Compute, command: {executable: cat, arguments: molecules.csv}, references: ["input/molecules.csv:copy"]}
output:
  Energies: {data-in: "Compute/out.stdout:copy"}
interface:
  description: Toy energies
  inputSpec:
    namingScheme: SMILES
    inputExtractionMethod: {csvColumn: {source: {path: input/molecules.csv}, args: {column: smiles}}}
  propertiesSpec:
  - {name: energy, description: x, propertyExtractionMethod: {csvDataFrame: {source: {keyOutput: Energies}}}}
"""
"""A package like that of the notebooks: several platforms, in a folder of the repository, with a manifest."""
CALLS = {
    "ST4SD Runtime API Example": [
        "GET experiments/ without credentials",
        "ExperimentRestAPI",
        "api_experiment_list",
        "api_experiment_push",
        "api_experiment_start",
        "api_rest_uid_status",
        "api_rest_uid_status",
        "api_rest_uid_output",
        "cdb_get_document_experiment_for_rest_uid",
        "cdb_get_detailed_status_report",
        "cdb_get_document_experiment_for_rest_uid",
        "cdb_get_document_experiment",
        "cdb_get_data",
    ],
    "ST4SD Runtime API Property Retrieval": [
        "GET oauth/sign_in without credentials",
        "ExperimentRestAPI",
        "api_experiment_list",
        "api_experiment_push",
        "api_experiment_start",
        "api_rest_uid_status",
        "api_rest_uid_status",
        "api_rest_uid_output",
        "api_request_get",
        "cdb_get_document_experiment_for_rest_uid",
        "cdb_get_document_experiment",
        "api_request_get",
        "cdb_get_document_experiment_for_rest_uid",
        "cdb_get_document_experiment",
        "cdb_get_document_experiment",
        "cdb_get_data",
    ],
    "ST4SD Datastore - Common Query Examples": [
        "GET oauth/sign_in without credentials",
        "ExperimentRestAPI",
        "cdb_get_user_metadata_document_for_rest_uid",
        "cdb_get_document",
        "cdb_get_document",
        "api_experiment_get",
        "cdb_get_document",
        "cdb_get_document",
        "api_rest_uid_status",
        "cdb_get_data",
        "cdb_get_file_from_instance_uri",
        "cdb_get_document_component",
        "cdb_get_components_raw_files",
        "cdb_get_file_from_instance_uri",
        "cdb_get_components_last_stdout",
        "cdb_get_document",
        "cdb_get_document",
        "cdb_get_document",
    ],
    "bites/api_experiment_get_start_skeleton": [
        "ExperimentRestAPI",
        "api_experiment_get",
        "api_experiment_get_start_skeleton",
    ],
}
"""notebook -> its calls."""


@dataclass
class Notebook:
    """A notebook that makes each call through the incumbent, and its equivalent through our client."""

    finished: Finished
    client: Client
    begun: dict[str, str]
    """The runs that the notebooks started: "theirs" and "ours"."""
    calls: list[str] = field(default_factory=list)
    """The calls so far."""
    api: Any = None
    """The incumbent, once it is connected."""

    async def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the incumbent."""
        self.calls.append(method)
        return await to_thread.run_sync(partial(getattr(self.api, method), *args, **options))

    async def connect(self, path: str | None = None) -> None:
        """Find out that credentials are needed, if a path is given, and connect with a token."""
        from experiment.service.db import ExperimentRestAPI

        server = self.finished.server
        if path is not None:
            self.calls.append(f"GET {path} without credentials")
            async with httpx.AsyncClient(base_url=f"{server.url}/rs/", verify=False) as web:
                assert (await web.get(path)).status_code == 403
            with pytest.raises(Unauthorized):
                await Client(server.url).__aenter__()
        self.calls.append("ExperimentRestAPI")
        connect = partial(ExperimentRestAPI, f"{server.url}/rs", None, None, max_retries=2, secs_between_retries=1)
        self.api = await to_thread.run_sync(partial(connect, cc_auth_token=server.auth_token))

    async def list_and_push(self) -> None:
        """List experiments, and push one."""
        package = self.finished.server.example("demo")
        package["metadata"]["package"] |= {"name": NAME, "tags": ["latest", "1.0.0"]}
        package["parameterisation"]["presets"] = {
            "runtime": {"args": ["--failSafeDelays=no", "--registerWorkflow=yes"]}
        }

        listed = await self.ask("api_experiment_list")
        assert listed.keys() == {one.identifier for one in await self.client.experiments.list()}

        pushed = await self.ask("api_experiment_push", package)
        ours = await self.client.push(package)
        assert (ours.name, ours.digest) == (NAME, pushed["metadata"]["registry"]["digest"])
        described = pushed["metadata"]["registry"]["interface"]["propertiesSpec"]
        assert [one["name"] for one in described] == ours.metadata.registry.interface.property_names

    async def start(self) -> str:
        """Start a run; the notebooks that do so share it, as their payloads are the same."""
        if not self.begun:
            self.begun["theirs"] = await self.ask("api_experiment_start", NAME, PAYLOAD)
            self.begun["ours"] = (await self.client.start(NAME, PAYLOAD)).id
        else:
            self.calls.append("api_experiment_start")
        return self.begun["theirs"]

    async def wait(self) -> None:
        """Get the status at once, and when there are results."""
        rest_uid = self.begun["theirs"]
        status = (await self.ask("api_rest_uid_status", rest_uid))["status"]
        assert status == {"warning": status.get("warning")} or status.keys() == set(STATUS_KEYS)

        if self.finished.engine == "simulator":
            self.finished.server.advance(100)
        for uid in self.begun.values():
            assert (await self.client.wait(uid)).is_success
        found = await self.ask("api_rest_uid_status", rest_uid)
        assert found["outputs"] == {name: one.raw for name, one in (await self.client.outputs(rest_uid)).items()}

    async def output(self) -> None:
        """Get a key-output."""
        name, content = await self.ask("api_rest_uid_output", self.begun["theirs"], "Energies")
        for uid in self.begun.values():
            ours = await self.client.output(uid, "Energies")
            assert (ours.filename, ours.content) == (name, content)

    async def documents_and_data(self) -> None:
        """Get all documents about experiments, and CSV files of all runs of experiments with a name."""
        documents = await self.ask("cdb_get_document_experiment", query={})
        assert uids(one.raw for one in await self.client.datastore.experiments()) == uids(documents)

        where: dict[str, Any] = {"stage": 0, "component": "Compute"}
        documents, matrices = await self.ask("cdb_get_data", instance="band-gap-.*", filename="energies.csv", **where)
        parts = await self.client.datastore.components(instance="band-gap-.*", filename="energies.csv", **where)
        tables = {part.instance: await self.client.csv(part.instance, "energies.csv", **where) for part in parts}
        assert len(documents) == len(tables) == 2
        for document, matrix in zip(documents, matrices, strict=True):
            (table,) = tables[document["instance"]]
            assert table.document.raw == document
            assert_frame_equal(table.dataframe(), frame_of(matrix))


def frame_of(matrix: Any) -> pandas.DataFrame:
    """Return a matrix of the incumbent as a DataFrame; its cells have a space in front."""
    return pandas.read_csv(io.StringIO(matrix.csvRepresentation()), skipinitialspace=True)


def uids(documents: Iterable[dict[str, Any]]) -> set[str]:
    """Return what identifies documents."""
    return {document["uid"] for document in documents}


def table_of(document: dict[str, Any]) -> pandas.DataFrame:
    """Return the properties in a document."""
    return pandas.DataFrame.from_dict(document["interface"]["propertyTable"])


@pytest.fixture(scope="module")
def begun(finished: Finished) -> dict[str, str]:
    """Hold the rest-uids of the runs that the notebooks started."""
    return {}


@pytest.fixture
async def notebook(finished: Finished, begun: dict[str, str]) -> AsyncIterator[Notebook]:
    """Return a notebook whose client has a token."""
    async with Client(finished.server.url, auth_token=finished.server.auth_token) as client:
        yield Notebook(finished, client, begun)


async def test_submission_and_control(notebook: Notebook) -> None:
    """The first notebook: push, start, poll, output, report and properties."""
    await notebook.connect("experiments/")
    await notebook.list_and_push()
    rest_uid = await notebook.start()
    await notebook.wait()
    await notebook.output()
    client = notebook.client

    late = {"status.experiment-state": "finished"}
    ours = await client.run(rest_uid).document()
    document = await notebook.ask("cdb_get_document_experiment_for_rest_uid", rest_uid, query=late)
    assert ours.raw == document

    text = await notebook.ask("cdb_get_detailed_status_report", document["instance"])
    report = await client.status_report(document["instance"])
    assert all(f"{row.reference}, {row.raw['state']}, {row.backend}" in text for row in report.rows)
    assert [row.reference for row in report.rows] == ["stage0.Compute", "stage1.Report"]

    measured = await notebook.ask("cdb_get_document_experiment_for_rest_uid", rest_uid, include_properties=["*"])
    assert_frame_equal((await client.properties(rest_uid)).dataframe(), table_of(measured))

    await notebook.documents_and_data()
    assert notebook.calls == CALLS["ST4SD Runtime API Example"]


async def test_property_retrieval(notebook: Notebook) -> None:
    """The second notebook: properties from both services, all of them and some."""
    await notebook.connect("oauth/sign_in")
    await notebook.list_and_push()
    rest_uid = await notebook.start()
    await notebook.wait()
    await notebook.output()
    client = notebook.client
    instance = (await client.run(rest_uid).document()).instance

    for names, query in (("*", ""), ("energy,weight", "?includeProperties=energy,weight")):
        wanted = None if names == "*" else names.split(",")
        ours = (await client.properties(rest_uid, wanted)).dataframe()
        reply = await notebook.ask("api_request_get", f"/instances/{rest_uid}/properties{query}")
        assert_frame_equal(ours, pandas.DataFrame.from_dict(reply)[list(ours.columns)])

        by_uid = await notebook.ask("cdb_get_document_experiment_for_rest_uid", rest_uid, include_properties=[names])
        by_instance = await notebook.ask("cdb_get_document_experiment", instance=instance, include_properties=[names])
        for document in (by_uid, *by_instance):
            assert_frame_equal(ours, table_of(document)[list(ours.columns)])

    await notebook.documents_and_data()
    assert notebook.calls == CALLS["ST4SD Runtime API Property Retrieval"]


async def test_a_package_like_that_of_the_notebooks(notebook: Notebook, tmp_path: Path) -> None:
    """Its definition names a path, a manifest and platforms; its entry has no interface, unlike in the notebook."""
    files = {"semi-empirical/flow.yaml": PLATFORMS, "semi-empirical/manifest.yaml": "bin: ../bin\n", "bin/x.py": ""}
    location = {"url": repository(tmp_path, files).as_uri(), "branch": "main"}
    config = {"path": "semi-empirical/flow.yaml", "manifestPath": "semi-empirical/manifest.yaml"}
    options = {
        "variables": [{"name": "numberMolecules"}, {"name": "startIndex"}],
        "platform": ["openshift", "openshift-kubeflux"],
    }
    package = {
        "base": {"packages": [{"source": {"git": {"location": location}}, "config": config}]},
        "metadata": {"package": {"name": "platforms", "tags": ["latest", "1.0.0"]}},
        "parameterisation": {"presets": {}, "executionOptions": options},
    }
    await notebook.connect()

    pushed = await notebook.ask("api_experiment_push", package)
    ours = await notebook.client.push(package)

    registry = pushed["metadata"]["registry"]
    assert ours.digest == registry["digest"]
    assert (registry["interface"], ours.metadata.registry.interface.property_names) == ({}, [])
    assert registry["platforms"] == ["default", "openshift", "openshift-kubeflux"]
    assert [one.name for one in ours.metadata.registry.inputs] == ["molecules.csv"]


async def test_common_queries(notebook: Notebook, tmp_path: Path) -> None:
    """The third notebook: documents by queries, and files of the runs that were found."""
    if not notebook.begun:
        await notebook.connect()
        await notebook.list_and_push()
        await notebook.start()
        await notebook.wait()
        notebook.calls.clear()
    client, rest_uid = notebook.client, notebook.begun["theirs"]
    for uid in notebook.begun.values():
        await client.run(uid).document()
    await notebook.connect("oauth/sign_in")

    async def query(wanted: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await notebook.ask("cdb_get_document", wanted)
        assert sorted(found, key=str) == sorted(await client.datastore.query(wanted), key=str)
        return found

    metadata = await notebook.ask("cdb_get_user_metadata_document_for_rest_uid", rest_uid)
    assert metadata == (await client.datastore.user_metadata(rest_uid=rest_uid))[0].raw
    success = {"status.exit-status": "Success"}
    both = await query({"metadata.userMetadata.st4sd-package-name": {"$regex": "band-gap-.*"}, **success})
    assert {one["metadata"]["userMetadata"]["rest-uid"] for one in both} == set(notebook.begun.values())
    assert {one["name"] for one in both} == {"demo"}  # the name of the repository
    identifier = metadata["experiment-id"]
    by_variable = {"metadata.variables.global.scale": "2", "metadata.userMetadata.experiment-id": identifier}
    assert uids(await query({**by_variable, **success})) == uids(both)

    tagged = await notebook.ask("api_experiment_get", f"{NAME}:latest")
    assert (await client.experiments.get(f"{NAME}:latest")).digest == tagged["metadata"]["registry"]["digest"]
    digest = f"{NAME}@{tagged['metadata']['registry']['digest']}"
    successful = [
        one
        for one in await query({"metadata.userMetadata.experiment-id": digest})
        if one["status"]["exit-status"] == "Success"
    ]
    assert uids(successful) == uids(both)
    annotated = await query({"metadata.userMetadata.planet": {"$exists": True}, "type": "experiment"})
    assert uids(annotated) == uids(both)

    status = await notebook.ask("api_rest_uid_status", rest_uid)
    assert status["status"]["meta"] == (await client.status(rest_uid)).raw["meta"]

    (document,) = [one for one in successful if one["instance"] == metadata["instance"]]
    instance = document["instance"]
    _, (matrix,) = await notebook.ask("cdb_get_data", instance=instance, component="Compute", filename="energies.csv")
    given = await notebook.ask("cdb_get_file_from_instance_uri", instance, "input/molecules.csv")
    (table,) = await client.csv(instance, "energies.csv", component="Compute")
    ours = table.dataframe().merge(pandas.read_csv(io.BytesIO(await client.read_file(instance, "input/molecules.csv"))))
    assert_frame_equal(ours, frame_of(matrix).merge(pandas.read_csv(io.BytesIO(given)), on="smiles"))

    components = await notebook.ask("cdb_get_document_component", component=".*te", instance=instance)
    assert [one.raw for one in await client.datastore.components(instance=instance, component=".*te")] == components
    raw = await notebook.ask(
        "cdb_get_components_raw_files", instance=instance, filename=".*out.stdout", component="Compute"
    )
    downloads = await client.download_files(rest_uid, tmp_path, filename=".*out.stdout", component="Compute")
    assert {one.source: one.path.read_bytes() for one in downloads if isinstance(one, Download)} == {
        uri: content for uri, (_, content) in raw.items()
    }
    log = await notebook.ask("cdb_get_file_from_instance_uri", instance, "output/experiment.log")
    assert await client.log(rest_uid) == log.decode()
    printed = await notebook.ask("cdb_get_components_last_stdout", instance=instance, component=components[0])
    assert printed == {}  # the notebook gives a document where a name is expected

    assert await query({"rest-uid": rest_uid, "type": "user-metadata"}) == [metadata]
    assert await query({"instance": instance, "type": "experiment"}) == [document]
    assert await query({"instance": instance, "type": "component", "name": "Compute"}) == components
    assert notebook.calls == CALLS["ST4SD Datastore - Common Query Examples"]


async def test_a_skeleton(notebook: Notebook) -> None:
    """The small notebook: an experiment, and the skeleton of its payload."""
    await notebook.connect()

    entry = await notebook.ask("api_experiment_get", "demo")
    skeleton = await notebook.ask("api_experiment_get_start_skeleton", "demo")

    assert (await notebook.client.experiments.get("demo")).digest == entry["metadata"]["registry"]["digest"]
    ours = await notebook.client.experiments.start_skeleton("demo")
    assert ours.raw == skeleton
    assert skeleton["magicValues"]["{{RequiredInputs_molecules.csv}}"]["message"]
    assert skeleton["payload"]["s3"]["bucket"] in skeleton["magicValues"]
    assert notebook.calls == CALLS["bites/api_experiment_get_start_skeleton"]
