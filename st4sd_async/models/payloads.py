"""The start payload, field by field as the service documents it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from .._util.field_docs import document_fields
from ._base import Payload


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def is_scalar(value: Any) -> bool:
    """Whether a value is one of those that the service turns into text."""
    return isinstance(_plain(value), bool | int | float | str)


def _scalar(value: Any) -> Any:
    plain = _plain(value)
    if not is_scalar(plain):
        raise ValueError(f"must be text, a number or a boolean, not {type(value).__name__}")
    return plain


Scalar = Annotated[Any, BeforeValidator(_scalar)]
"""A value of a variable, of metadata or of the environment (NumPy's too); the service turns it into text."""


def _definition(value: Any) -> Any:
    if not isinstance(value, Mapping | str | Path):
        raise ValueError(f"must be a mapping, YAML or a Path, not {type(value).__name__}")
    return value


Definition = Annotated[Mapping[str, Any] | str | Path, BeforeValidator(_definition)]
"""A definition: a mapping, YAML as a text, or the `Path` of a file of it."""


def _stripped(value: SecretStr) -> SecretStr:
    return SecretStr(value.get_secret_value().strip())


_Key = Annotated[SecretStr, AfterValidator(_stripped)]


class FileContent(Payload):
    """
    An input or data file: its contents here, or where the service finds them.

    Without ``content`` the file comes from the payload's ``s3`` bucket or dataset, or from a volume.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    filename: str | None = None
    """Name of the file; with S3, a dataset or a volume the path there (``path:name`` renames it)."""
    content: Any = Field(default=None, repr=False)
    """Text, UTF-8 bytes, a `Path` that is read at the start, or a pandas DataFrame that becomes CSV."""
    sourceFilename: str | None = None
    """Path in the bucket, dataset or volume; goes with ``targetFilename``."""
    targetFilename: str | None = None
    """Name the file gets; no directories."""
    volume: str | None = None
    """Identifier of one of the payload's volumes."""

    @property
    def name(self) -> str | None:
        """The name that the experiment will see."""
        if self.targetFilename:
            return self.targetFilename
        if self.filename is None or self.content is not None:
            return self.filename
        return Path(self.filename.split(":")[-1]).name


class S3(Payload):
    """
    A bucket to read from, or a Datashim dataset that stands for one.

        S3(bucket="mine", endpoint="https://s3.example", accessKeyID="...", secretAccessKey="...")
        S3(dataset="mine")     and nothing beside it

    The keys are in no repr and no message; ``endpoint`` is the URL of the S3 service, ``region`` None if it has none.
    """

    accessKeyID: _Key | None = None
    """Access key id; blanks around it, as the line break at the end of a file, are no part of it."""
    secretAccessKey: _Key | None = None
    """Secret access key; likewise."""
    bucket: str | None = None
    """Name of the bucket."""
    endpoint: str | None = None
    """URL of the S3 service."""
    region: str | None = None
    """Region, if the service has any."""
    dataset: str | None = None
    """Name of a Datashim dataset, in place of all the others."""


class S3Store(Payload):
    """
    A bucket to upload key-outputs to, at the end of each stage.

    A file becomes ``<bucketPath>/<its own name>``, a folder ``<bucketPath>/<its own name>/...``. So another run that
    uploads to the same folder replaces what the first one did: give each its own, or use ``%(instanceDir)s`` in it.
    What cannot be uploaded is left out, and only the log of the orchestrator says so.

        S3Store(credentials=S3(bucket="mine", ...), bucketPath="campaign/%(instanceDir)s")
    """

    credentials: S3 | None = None
    """The bucket and how to write to it."""
    bucketPath: str | None = None
    """Folder in the bucket, which the orchestrator needs; absent: ``workflow_instances/``. ``%(instanceDir)s`` in it
    stands for the name of the run's directory."""


@document_fields
@dataclass(frozen=True)
class Staged:
    """
    Local files that were uploaded to a bucket, and how a payload names them.

    draft.use(staged)                                            into a `Draft`, as inputs and data
    client.start("demo", {**staged.as_inputs(), "platform": ...})   into a payload, all as inputs
    """

    s3: S3
    """The bucket, for the field ``s3`` of a payload."""
    files: Mapping[str, FileContent]
    """Name that the experiment sees -> the file in the bucket, without contents."""

    def as_inputs(self) -> dict[str, Any]:
        """The part of a payload in which all files are input files."""
        return {"s3": self.s3, "inputs": list(self.files.values())}

    def as_data(self) -> dict[str, Any]:
        """The part of a payload in which all files are data files."""
        return {"s3": self.s3, "data": list(self.files.values())}


class VolumeType(Payload):
    """What a volume is made of: exactly one of the four."""

    persistentVolumeClaim: str | None = None
    """Name of a PersistentVolumeClaim."""
    configMap: str | None = None
    """Name of a ConfigMap."""
    dataset: str | None = None
    """Name of a Datashim dataset."""
    secret: str | None = None
    """Name of a Kubernetes Secret."""


class Volume(Payload):
    """A volume to mount while the instance runs."""

    type: VolumeType
    """What it is made of."""
    identifier: str | None = None
    """The name by which ``inputs`` and ``data`` refer to it."""
    applicationDependency: str | None = None
    """Application dependency that it stands for."""
    subPath: str | None = None
    """Path inside the volume."""
    readOnly: bool | None = None
    """Absent: True."""


class OrchestratorResources(Payload):
    """Limits of the container that hosts the orchestrator, in Kubernetes' units."""

    cpu: str | float | None = None
    """For example ``"1"`` or ``"500m"``."""
    memory: str | None = None
    """For example ``"500Mi"``."""


class RuntimePolicy(Payload):
    """A policy that may rewrite the experiment at its start."""

    name: str | None = None
    """Name of the policy."""
    config: Mapping[str, Any] | None = None
    """Its options."""


class StartOptions(Payload):
    """What all starts have in common."""

    data: list[FileContent] | None = None
    """Data files: those of a package to override, where it allows that; of a lambda experiment all it has."""
    variables: Mapping[str, Scalar] | None = None
    """Variables to set, where the package allows that."""
    environmentVariables: Mapping[str, Scalar] | None = Field(default=None, repr=False)
    """Environment of the orchestrator; treated as secret in messages."""
    additionalOptions: list[str] | None = None
    """Command line options of the orchestrator."""
    orchestrator_resources: OrchestratorResources | None = None
    """Limits of the orchestrator's container."""
    volumes: list[Volume] | None = None
    """Volumes to mount."""
    s3: S3 | None = None
    """Where input and data files without contents come from."""
    s3Store: S3Store | None = None
    """Where key-outputs are uploaded to; not together with ``datasetStoreURI``."""
    datasetStoreURI: str | None = None
    """``dataset://name/path`` to upload key-outputs to. As its source says, the service does so for lambda experiments;
    for others it takes this and uploads nothing."""
    metadata: Mapping[str, Scalar] | None = None
    """Names and values kept with the instance and found again in ``status.meta.user_metadata``; names hold no colon."""


class StartPayload(StartOptions):
    """
    What a start says. All of it is optional as far as the package allows.

    Field names are those of the service. What you do not set is not sent.

    Source: ``POST experiments/{identifier}/start`` of the runtime service.
    """

    inputs: list[FileContent] | None = None
    """Input files; a package names those that every start must bring."""
    platform: str | None = None
    """Platform to execute on, where the package leaves the choice."""
    runtimePolicy: RuntimePolicy | None = None
    """Policy that may rewrite the experiment."""


class LambdaPayload(StartOptions):
    """
    An experiment that is in no registry, and what its start says.

    Field names are those of the service. What you do not set is not sent.

    Source: ``POST experiments/lambda/start`` of the runtime service.
    """

    lambdaFlowIR: Definition
    """The definition, in FlowIR or DSL 2.0: a mapping, YAML as a text, or the `Path` of a file of it."""
    scripts: list[FileContent] | None = None
    """Programs to place into the ``bin`` folder of the experiment, with their contents."""
    validate_flowir: bool | None = None
    """Whether the service checks the definition first; absent: True."""
