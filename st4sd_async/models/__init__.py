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
from .downloads import Download, DownloadFailed
from .interface import InputSpec, Interface, PropertySpec
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
from .properties import Properties
from .reports import ComponentReport, StatusReport
from .runs import ExitStatus, ExperimentState, Instance, Meta, StageState, Status

__all__ = [
    "S3",
    "ComponentDocument",
    "ComponentReport",
    "ComponentState",
    "Document",
    "DocumentMeta",
    "DocumentOutput",
    "DocumentStatus",
    "Download",
    "DownloadFailed",
    "ExitStatus",
    "Experiment",
    "ExperimentDocument",
    "ExperimentList",
    "ExperimentState",
    "FileContent",
    "Hint",
    "InputSpec",
    "Instance",
    "Interface",
    "KeyOutput",
    "Meta",
    "OrchestratorResources",
    "Output",
    "Payload",
    "Properties",
    "PropertySpec",
    "Reason",
    "Reply",
    "RuntimePolicy",
    "S3Store",
    "StageState",
    "StartPayload",
    "StartSkeleton",
    "Status",
    "StatusReport",
    "UserMetadata",
    "Volume",
    "VolumeType",
    "Word",
]
