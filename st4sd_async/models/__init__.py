"""Typed responses and payloads of the service, with the pure rules on them; only `Output` writes files."""

from typing import TYPE_CHECKING

from .._util.lazy import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
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
    from .failures import ComponentFailure, Failure
    from .hints import Hint, Reason
    from .interface import InputSpec, Interface, PropertySpec
    from .outputs import Download, DownloadFailed, KeyOutput, Output
    from .packages import Experiment, ExperimentList, StartSkeleton
    from .payloads import (
        S3,
        FileContent,
        LambdaPayload,
        OrchestratorResources,
        RuntimePolicy,
        S3Store,
        Staged,
        StartOptions,
        StartPayload,
        Volume,
        VolumeType,
    )
    from .properties import Properties
    from .registry import Change, GeneratedPackage, History, LibraryGraphs, TaggedVersion, UntaggedVersion
    from .relationships import (
        Graph,
        GraphPayload,
        Inheritance,
        InheritedValue,
        InheritedVariable,
        Links,
        LinksPayload,
        MergePolicy,
        OverriddenValue,
        ParameterLink,
        ParameterLinkPayload,
        Relationship,
        RelationshipList,
        RelationshipPayload,
        ResultLink,
        ResultLinkPayload,
        Symbol,
        SymbolPayload,
        Synthesis,
        SynthesisPreview,
        Transform,
        TransformPayload,
    )
    from .reports import ComponentReport, StatusReport
    from .requirements import ImportedExperiment, Requirement
    from .runs import ExitStatus, ExperimentState, Instance, Meta, StageState, Status
else:
    __getattr__, __dir__ = _lazy_attributes(
        __name__,
        {
            ".hints": "Hint Reason",
            "._base": "Payload Reply Word",
            ".datastore": (
                "ComponentDocument ComponentState Document DocumentMeta DocumentOutput DocumentStatus "
                "ExperimentDocument UserMetadata"
            ),
            ".failures": "ComponentFailure Failure",
            ".interface": "InputSpec Interface PropertySpec",
            ".outputs": "Download DownloadFailed KeyOutput Output",
            ".packages": "Experiment ExperimentList StartSkeleton",
            ".payloads": (
                "FileContent LambdaPayload OrchestratorResources RuntimePolicy S3 S3Store Staged StartOptions "
                "StartPayload Volume VolumeType"
            ),
            ".properties": "Properties",
            ".registry": "Change GeneratedPackage History LibraryGraphs TaggedVersion UntaggedVersion",
            ".relationships": (
                "Graph GraphPayload Inheritance InheritedValue InheritedVariable Links LinksPayload MergePolicy "
                "OverriddenValue ParameterLink ParameterLinkPayload Relationship RelationshipList "
                "RelationshipPayload ResultLink ResultLinkPayload Symbol SymbolPayload Synthesis SynthesisPreview "
                "Transform TransformPayload"
            ),
            ".requirements": "ImportedExperiment Requirement",
            ".reports": "ComponentReport StatusReport",
            ".runs": "ExitStatus ExperimentState Instance Meta StageState Status",
        },
    )

__all__ = [
    "S3",
    "Change",
    "ComponentDocument",
    "ComponentFailure",
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
    "Failure",
    "FileContent",
    "GeneratedPackage",
    "Graph",
    "GraphPayload",
    "Hint",
    "History",
    "ImportedExperiment",
    "Inheritance",
    "InheritedValue",
    "InheritedVariable",
    "InputSpec",
    "Instance",
    "Interface",
    "KeyOutput",
    "LambdaPayload",
    "LibraryGraphs",
    "Links",
    "LinksPayload",
    "MergePolicy",
    "Meta",
    "OrchestratorResources",
    "Output",
    "OverriddenValue",
    "ParameterLink",
    "ParameterLinkPayload",
    "Payload",
    "Properties",
    "PropertySpec",
    "Reason",
    "Relationship",
    "RelationshipList",
    "RelationshipPayload",
    "Reply",
    "Requirement",
    "ResultLink",
    "ResultLinkPayload",
    "RuntimePolicy",
    "S3Store",
    "StageState",
    "Staged",
    "StartOptions",
    "StartPayload",
    "StartSkeleton",
    "Status",
    "StatusReport",
    "Symbol",
    "SymbolPayload",
    "Synthesis",
    "SynthesisPreview",
    "TaggedVersion",
    "Transform",
    "TransformPayload",
    "UntaggedVersion",
    "UserMetadata",
    "Volume",
    "VolumeType",
    "Word",
]
