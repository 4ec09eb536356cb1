"""How the public API is typed: checked by mypy, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

from pydantic import SecretStr

from st4sd_async import (
    GLOBAL_REGISTRY,
    S3,
    Client,
    ComponentDocument,
    ComponentReport,
    Config,
    Download,
    DownloadFailed,
    Draft,
    ExitStatus,
    Experiment,
    ExperimentDocument,
    ExperimentState,
    Failure,
    FileContent,
    ImportedExperiment,
    Instance,
    Interface,
    KeyOutput,
    Launch,
    Output,
    Problem,
    Properties,
    Relationship,
    Requirement,
    Run,
    S3Store,
    St4sdError,
    Staged,
    StartPayload,
    Status,
    StatusReport,
    Table,
    UserMetadata,
)
from st4sd_async.models import (
    ComponentState,
    DocumentStatus,
    ExperimentList,
    GeneratedPackage,
    History,
    Inheritance,
    LibraryGraphs,
    Meta,
    RelationshipList,
    StartSkeleton,
    Synthesis,
    SynthesisPreview,
)


async def token() -> str:
    return "token"


async def verbs(client: Client) -> None:
    assert_type(await client.push({}), Experiment)
    run = assert_type(await client.start("demo", {"variables": {"scale": 2}}), Run)
    file = FileContent(filename="c.csv")
    run = await client.start("demo", inputs={"a.csv": Path("a.csv"), "b.csv": "a,b\n", "c.csv": file}, platform="hpc")
    assert_type(run, Run)
    await client.start("demo", {}, variables={"scale": 2})  # type: ignore[call-overload]
    await client.start("demo", inputs=["a.csv"])  # type: ignore[call-overload]
    Launch("a", "demo", inputs={"a.csv": b"", "c.csv": file}, variables={"scale": 2}, metadata={"campaign": 7})
    Launch("a", "demo", {}, variables={"scale": 2})  # type: ignore[call-overload]
    draft = await client.draft("demo")
    assert_type(await client.start(draft), Run)
    assert_type(await client.start("demo", draft), Run)
    status = assert_type(await client.status(run), Status)
    assert_type(status.experiment_state, ExperimentState | None)
    assert_type(status.exit_status, ExitStatus | None)
    assert_type(status.meta, Meta | None)
    assert_type(await client.wait(run), Status)
    assert_type(await client.wait("demo-1"), Status)
    assert_type(await client.wait([run, "demo-1"]), list[Status])
    async for seen in client.watch(run, timeout=5):
        assert_type(seen, Status)
    several: list[Run | str] = [run, "demo-1"]
    async for one, seen in client.watch_many(iter(several), timeout=5, interval=1):
        assert_type(one, Run)
        assert_type(seen, Status)
    assert_type(await client.outputs(run), dict[str, KeyOutput])
    output = assert_type(await client.output(run, "Energies"), Output)
    assert_type(output.save("folder"), Path)
    assert_type(client.run("demo-1"), Run)
    assert_type(await run.wait(check=True), Status)
    await client.delete(run)


async def elsewhere(client: Client, other: Client) -> None:
    assert_type(Client.from_context("name", config=Config()), Client)
    found = assert_type(await client.fetch_experiment(GLOBAL_REGISTRY, "demo"), ImportedExperiment)
    assert_type(found.missing, tuple[Requirement, ...])
    assert_type(found.requirements[0].is_met, bool | None)
    assert_type(await client.import_experiment(other, "demo", allow_missing=True), Experiment)
    await client.import_experiment(other.experiments, "demo")  # type: ignore[arg-type] # a group is no source


async def groups(client: Client) -> None:
    assert_type(await client.experiments.list(), ExperimentList)
    assert_type(await client.experiments.start_skeleton("demo"), StartSkeleton)
    assert_type(await client.experiments.query(relationship="r", side="output"), ExperimentList)
    assert_type(await client.experiments.history("demo"), History)
    assert_type(await client.experiments.inheritance("demo"), Inheritance)
    assert_type(await client.experiments.dsl("demo"), dict[str, Any])
    assert_type(await client.instances.list(), list[Instance])
    instance = assert_type(await client.instances.get("demo-1", include_properties=["energy"]), Instance)
    assert_type(instance.property_table, dict[str, list[Any]] | None)
    assert_type(await client.instances.output("demo-1", "Energies"), Output)
    draft = assert_type(await client.draft("demo"), Draft)
    assert_type(draft.filled({"metadata": {"campaign": "x"}}), StartPayload)
    assert_type(await client.start_lambda({"lambdaFlowIR": {}}), Run)
    assert_type(await client.start_lambda(Path("flow.yaml"), {"data": []}, validate=True), Run)
    assert_type(await client.gateways.is_healthy("a"), bool)
    assert_type(client.url, str)


async def more_groups(client: Client) -> None:
    found = assert_type(await client.relationships.list(), RelationshipList)
    assert_type(found.problems, tuple[Problem, ...])
    assert_type(await client.relationships.push(found[0]), Relationship)
    synthesis = assert_type(await client.relationships.synthesize("r", "new"), Synthesis)
    assert_type(synthesis.experiment, Experiment)
    assert_type(await client.relationships.preview("r", dsl_version="1"), SynthesisPreview)
    await client.relationships.preview("r", dsl_version="2")  # type: ignore[arg-type] # there are two versions
    assert_type(await client.relationships.query(identifier="r"), RelationshipList)
    assert_type(await client.library.list(), LibraryGraphs)
    assert_type(await client.library.get("main"), dict[str, Any])
    assert_type(await client.utilities.package_for_dsl({}), GeneratedPackage)
    assert_type(await client.internal_experiments.push({}, {}), Experiment)
    assert_type(await client.datasets.list(), list[str])
    assert_type(await client.image_pull_secrets.list(), dict[str, list[str]])
    assert_type(await client.image_pull_secrets.get("quay"), list[str])
    assert_type(await client.deployment.services(), dict[str, str])
    assert_type(await client.deployment.token(), SecretStr)


async def documents(client: Client, run: Run) -> None:
    document = assert_type(await run.document(timeout=5), ExperimentDocument)
    assert_type(document.status, DocumentStatus)
    assert_type(document.property_table, dict[str, list[Any]] | None)
    assert_type(document.interface, Interface)
    assert_type(document.interface.properties_by_output, dict[str, list[str]])
    for component in assert_type(await run.components(), list[ComponentDocument]):
        assert_type(component.state, ComponentState | None)
    assert_type(await client.datastore.query({}, include_properties=["*"]), list[dict[str, Any]])
    assert_type(await client.datastore.experiments(rest_uid=run.id), list[ExperimentDocument])
    metadata = assert_type(await client.datastore.user_metadata(query={"campaign": "x"}), list[UserMetadata])
    assert_type(await client.datastore.tag(metadata, {"campaign": "y"}), list[UserMetadata])
    await client.datastore.tag([*metadata, *await run.components()], {"campaign": "y"})
    await client.datastore.tag([document, {"instance": "file://gateway/path"}], {"campaign": "y"})
    assert_type(await client.datastore.is_healthy(), bool)


async def properties(client: Client, run: Run) -> None:
    table = assert_type(await run.properties(["energy"]), Properties)
    assert_type(await client.properties("demo-1"), Properties)
    assert_type(await client.properties([run, "demo-1"], ["energy"], strict=True), Properties)
    assert_type(await client.instances.properties(run.id, include_properties=["*"]), dict[str, list[Any]])
    assert_type(table["energy"], list[Any])
    assert_type(list(table), list[dict[str, Any]])
    assert_type(table.problems, Mapping[str, St4sdError])


async def tables(client: Client, run: Run) -> None:
    for table in assert_type(await run.csv("energies", component="^Compute$", stage=0), list[Table]):
        assert_type(table.document, ComponentDocument)
        assert_type(table.problem, St4sdError | None)
    assert_type(await client.csv("demo-1"), list[Table])
    assert_type(await run.stdout("stage0.Compute"), dict[str, str])
    assert_type(await run.stderr("stage0.Compute"), dict[str, str])
    assert_type(await run.failure(), Failure | None)
    assert_type(await run.log(), str)
    report = assert_type(await run.status_report(), StatusReport)
    assert_type(report.failed, tuple[ComponentReport, ...])
    assert_type(report.rows[0].task_exit_code, int | None)
    assert_type(report.rows[0].task_run_time, timedelta | None)
    assert_type(report.rows[0].state, ComponentState | None)
    assert_type(report.table(), str)


async def buckets(client: Client, run: Run, draft: Draft) -> None:
    bucket = S3(bucket="mine")
    staged = assert_type(await client.stage_inputs(["a.csv", Path("b.csv")], bucket), Staged)
    assert_type(await client.stage_inputs({"a.csv": Path("b.csv")}, bucket, prefix="p"), Staged)
    assert_type(draft.use(staged), None)
    await client.start("demo", {**staged.as_inputs(), "variables": {"a": 1}})
    store = S3Store(credentials=bucket, bucketPath="out")
    assert_type(await client.fetch_s3_outputs("demo-1", "to", store=store), list[Download | DownloadFailed])
    assert_type(await run.fetch_s3_outputs(Path("to"), store=store, names="Energies"), list[Download | DownloadFailed])


def clients() -> None:
    assert_type(Client.from_env(), Client)
    assert_type(Client("https://st4sd.example", api_key=Path("key")).with_options(timeout=2), Client)
    Client("https://st4sd.example", auth_token=token, config=Config(verify=Path("ca.pem")))
    Client("https://st4sd.example", api_key=lambda: "key")
    Client("https://st4sd.example", "key")  # type: ignore[call-arg] # all but the url are named
