"""
An asyncio client of ST4SD, the Simulation Toolkit for Scientific Discovery.

Push virtual experiments, start them, watch their runs and collect what they produced:

    async with Client("https://st4sd.example", api_key="...") as client:
        run = await client.start("demo:latest", {"variables": {"scale": 2}})
        async for status in client.watch(run):
            print(status)
"""

from ._client import Client
from ._config import Config
from ._errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    ConfigError,
    Conflict,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    ExtraInputs,
    InputConflict,
    InvalidPackage,
    InvalidPayload,
    MissingInputs,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    Problem,
    RateLimited,
    RunDeleted,
    RunFailed,
    ServerError,
    St4sdError,
    StartOutcomeUnknown,
    TimedOut,
    TransportError,
    Unauthorized,
    UnknownExperiment,
    UnknownOutput,
    UnknownRun,
    WaitTimeout,
)
from ._retry import RetryPolicy
from ._run import Run
from .models import (
    S3,
    ExitStatus,
    Experiment,
    ExperimentState,
    FileContent,
    Instance,
    KeyOutput,
    Output,
    S3Store,
    StageState,
    StartPayload,
    Status,
    Volume,
)

__all__ = [
    "S3",
    "APIError",
    "AlreadyExists",
    "BadRequest",
    "Client",
    "Config",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "DecodeError",
    "ExitStatus",
    "Experiment",
    "ExperimentState",
    "ExtraInputs",
    "FileContent",
    "InputConflict",
    "Instance",
    "InvalidPackage",
    "InvalidPayload",
    "KeyOutput",
    "MissingInputs",
    "NotFound",
    "NotReady",
    "OutcomeUnknown",
    "Output",
    "PayloadTooLarge",
    "Problem",
    "RateLimited",
    "RetryPolicy",
    "Run",
    "RunDeleted",
    "RunFailed",
    "S3Store",
    "ServerError",
    "St4sdError",
    "StageState",
    "StartOutcomeUnknown",
    "StartPayload",
    "Status",
    "TimedOut",
    "TransportError",
    "Unauthorized",
    "UnknownExperiment",
    "UnknownOutput",
    "UnknownRun",
    "Volume",
    "WaitTimeout",
]
