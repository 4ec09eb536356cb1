"""
An asyncio client of ST4SD, the Simulation Toolkit for Scientific Discovery.

Push virtual experiments, start them, watch their runs and collect what they produced:

    async with Client("https://st4sd.example", api_key="...") as client:
        run = await client.start("demo:latest", {"variables": {"scale": 2}})
        async for status in client.watch(run):
            print(status)
"""

from typing import TYPE_CHECKING

from ._util.lazy import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
    from ._api.importer import GLOBAL_REGISTRY
    from ._batch.batch import Batch
    from ._batch.check import LaunchProblem
    from ._batch.item import Item
    from ._batch.launch import Launch
    from ._batch.memory import BucketMemory, FolderMemory, Memory
    from ._client import Client
    from ._config import Config, RetryPolicy, Transport
    from ._display.progress_bars import ProgressBars
    from ._errors import (
        AlreadyExists,
        APIError,
        BadRequest,
        CannotUntagLatest,
        ConfigError,
        Conflict,
        ConnectFailed,
        ConnectionLost,
        CredentialUnavailable,
        DecodeError,
        DigestMismatch,
        Disabled,
        DownloadError,
        ExtraInputs,
        GraphExists,
        InaccessibleRegistries,
        InputConflict,
        InvalidDefinition,
        InvalidDSL,
        InvalidFlowIR,
        InvalidGraph,
        InvalidName,
        InvalidPackage,
        InvalidPayload,
        InvalidQuery,
        InvalidRelationship,
        JournalCorrupt,
        JournalError,
        JournalLocked,
        LaunchConflict,
        LocalDeployment,
        MissingCredentials,
        MissingInputs,
        MissingRequirements,
        NameTaken,
        NoProperties,
        NotAFolder,
        NotFound,
        NoToken,
        NotReady,
        OutcomeUnknown,
        OutsideOfFolder,
        PayloadTooLarge,
        Problem,
        RateLimited,
        RequestTimeout,
        RunDeleted,
        RunFailed,
        S3Error,
        SchemaMismatch,
        ServerError,
        St4sdError,
        StartOutcomeUnknown,
        TransportError,
        Unauthorized,
        UnknownExperiment,
        UnknownGraph,
        UnknownOutput,
        UnknownProperty,
        UnknownPullSecret,
        UnknownRelationship,
        UnknownRun,
        UnknownRuntimePolicy,
        UnknownService,
        UnsafeArchive,
        WaitTimeout,
    )
    from ._package.check import PackageProblem, check
    from ._payload.draft import Draft
    from ._results.tables import Table
    from ._run import Run
    from ._util.outage import Outage
    from ._util.progress import Progress, ProgressUpdate
    from ._util.request_events import RequestEvent, ResponseEvent, RetryEvent
    from .models import (
        S3,
        ComponentDocument,
        ComponentFailure,
        ComponentReport,
        Download,
        DownloadFailed,
        ExitStatus,
        Experiment,
        ExperimentDocument,
        ExperimentState,
        Failure,
        FileContent,
        Hint,
        ImportedExperiment,
        Instance,
        Interface,
        KeyOutput,
        LambdaPayload,
        Output,
        Properties,
        Reason,
        Relationship,
        RelationshipPayload,
        Requirement,
        S3Store,
        Staged,
        StageState,
        StartPayload,
        Status,
        StatusReport,
        UserMetadata,
        Volume,
    )
else:
    # Nothing is imported before its first use, so that pytest's import of the plugin costs other projects nothing.
    __getattr__, __dir__ = _lazy_attributes(
        __name__,
        {
            "._batch.batch": "Batch",
            "._batch.check": "LaunchProblem",
            "._batch.item": "Item",
            "._batch.launch": "Launch",
            "._batch.memory": "BucketMemory FolderMemory Memory",
            "._client": "Client",
            "._config": "Config RetryPolicy Transport",
            "._display.progress_bars": "ProgressBars",
            "._errors": (
                "APIError AlreadyExists BadRequest CannotUntagLatest ConfigError Conflict ConnectFailed "
                "ConnectionLost CredentialUnavailable DecodeError DigestMismatch Disabled DownloadError "
                "ExtraInputs GraphExists InaccessibleRegistries InputConflict InvalidDSL InvalidDefinition "
                "InvalidFlowIR InvalidGraph InvalidName InvalidPackage InvalidPayload InvalidQuery "
                "InvalidRelationship JournalCorrupt JournalError JournalLocked LaunchConflict LocalDeployment "
                "MissingCredentials MissingInputs MissingRequirements NameTaken NoProperties NoToken NotAFolder "
                "NotFound NotReady OutcomeUnknown OutsideOfFolder PayloadTooLarge Problem RateLimited "
                "RequestTimeout RunDeleted RunFailed S3Error SchemaMismatch ServerError St4sdError "
                "StartOutcomeUnknown TransportError Unauthorized UnknownExperiment UnknownGraph UnknownOutput "
                "UnknownProperty UnknownPullSecret UnknownRelationship UnknownRun UnknownRuntimePolicy UnknownService "
                "UnsafeArchive WaitTimeout"
            ),
            "._api.importer": "GLOBAL_REGISTRY",
            "._package.check": "PackageProblem check",
            "._payload.draft": "Draft",
            "._results.tables": "Table",
            "._run": "Run",
            "._util.outage": "Outage",
            "._util.progress": "Progress ProgressUpdate",
            "._util.request_events": "RequestEvent ResponseEvent RetryEvent",
            ".models": (
                "ComponentDocument ComponentFailure ComponentReport Download DownloadFailed ExitStatus Experiment "
                "ExperimentDocument ExperimentState Failure FileContent Hint ImportedExperiment Instance Interface "
                "KeyOutput LambdaPayload Output Properties Reason Relationship RelationshipPayload Requirement S3 "
                "S3Store StageState Staged StartPayload Status StatusReport UserMetadata Volume"
            ),
        },
        submodules=("models",),
    )

__all__ = [
    "GLOBAL_REGISTRY",
    "S3",
    "APIError",
    "AlreadyExists",
    "BadRequest",
    "Batch",
    "BucketMemory",
    "CannotUntagLatest",
    "Client",
    "ComponentDocument",
    "ComponentFailure",
    "ComponentReport",
    "Config",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "CredentialUnavailable",
    "DecodeError",
    "DigestMismatch",
    "Disabled",
    "Download",
    "DownloadError",
    "DownloadFailed",
    "Draft",
    "ExitStatus",
    "Experiment",
    "ExperimentDocument",
    "ExperimentState",
    "ExtraInputs",
    "Failure",
    "FileContent",
    "FolderMemory",
    "GraphExists",
    "Hint",
    "ImportedExperiment",
    "InaccessibleRegistries",
    "InputConflict",
    "Instance",
    "Interface",
    "InvalidDSL",
    "InvalidDefinition",
    "InvalidFlowIR",
    "InvalidGraph",
    "InvalidName",
    "InvalidPackage",
    "InvalidPayload",
    "InvalidQuery",
    "InvalidRelationship",
    "Item",
    "JournalCorrupt",
    "JournalError",
    "JournalLocked",
    "KeyOutput",
    "LambdaPayload",
    "Launch",
    "LaunchConflict",
    "LaunchProblem",
    "LocalDeployment",
    "Memory",
    "MissingCredentials",
    "MissingInputs",
    "MissingRequirements",
    "NameTaken",
    "NoProperties",
    "NoToken",
    "NotAFolder",
    "NotFound",
    "NotReady",
    "Outage",
    "OutcomeUnknown",
    "Output",
    "OutsideOfFolder",
    "PackageProblem",
    "PayloadTooLarge",
    "Problem",
    "Progress",
    "ProgressBars",
    "ProgressUpdate",
    "Properties",
    "RateLimited",
    "Reason",
    "Relationship",
    "RelationshipPayload",
    "RequestEvent",
    "RequestTimeout",
    "Requirement",
    "ResponseEvent",
    "RetryEvent",
    "RetryPolicy",
    "Run",
    "RunDeleted",
    "RunFailed",
    "S3Error",
    "S3Store",
    "SchemaMismatch",
    "ServerError",
    "St4sdError",
    "StageState",
    "Staged",
    "StartOutcomeUnknown",
    "StartPayload",
    "Status",
    "StatusReport",
    "Table",
    "Transport",
    "TransportError",
    "Unauthorized",
    "UnknownExperiment",
    "UnknownGraph",
    "UnknownOutput",
    "UnknownProperty",
    "UnknownPullSecret",
    "UnknownRelationship",
    "UnknownRun",
    "UnknownRuntimePolicy",
    "UnknownService",
    "UnsafeArchive",
    "UserMetadata",
    "Volume",
    "WaitTimeout",
    "check",
]
