"""The shapes of what is sent to the service and what it replies."""

from .._hints import Hint, Reason
from ._base import Payload, Reply, Word
from .datastore import (
    ComponentDocument,
    ComponentState,
    Document,
    DocumentMeta,
    DocumentOutput,
    DocumentStatus,
    ExperimentDocument,
    UserMetadata,
)
from .outputs import KeyOutput, Output
from .packages import Experiment, ExperimentList, StartSkeleton
from .payloads import (
    S3,
    FileContent,
    OrchestratorResources,
    RuntimePolicy,
    S3Store,
    StartPayload,
    Volume,
    VolumeType,
)
from .runs import ExitStatus, ExperimentState, Instance, Meta, StageState, Status

__all__ = [
    "S3",
    "ComponentDocument",
    "ComponentState",
    "Document",
    "DocumentMeta",
    "DocumentOutput",
    "DocumentStatus",
    "ExitStatus",
    "Experiment",
    "ExperimentDocument",
    "ExperimentList",
    "ExperimentState",
    "FileContent",
    "Hint",
    "Instance",
    "KeyOutput",
    "Meta",
    "OrchestratorResources",
    "Output",
    "Payload",
    "Reason",
    "Reply",
    "RuntimePolicy",
    "S3Store",
    "StageState",
    "StartPayload",
    "StartSkeleton",
    "Status",
    "UserMetadata",
    "Volume",
    "VolumeType",
    "Word",
]
