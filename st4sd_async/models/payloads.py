"""Start payloads, field by field as the service documents them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from .._util.field_docs import document_fields
from ._base import Payload


def _unboxed(value: Any) -> Any:
    """Return a NumPy scalar as a Python value."""
    return value.item() if hasattr(value, "item") else value


def is_scalar(value: Any) -> bool:
    """Return whether the service accepts a value as that of a variable: text, a number or a boolean."""
    return isinstance(_unboxed(value), bool | int | float | str)


def _scalar(value: Any) -> Any:
    scalar = _unboxed(value)
    if not is_scalar(scalar):
        raise ValueError(f"must be a string, a number or a boolean, not {type(value).__name__}")
    return scalar


Scalar = Annotated[Any, BeforeValidator(_scalar)]
"""A value of a variable, of metadata or of the environment, NumPy scalars included; the service converts it to text."""


def _definition(value: Any) -> Any:
    if not isinstance(value, Mapping | str | Path):
        raise ValueError(f"must be a mapping, YAML or a Path, not {type(value).__name__}")
    return value


Definition = Annotated[Mapping[str, Any] | str | Path, BeforeValidator(_definition)]
"""A definition: a mapping, YAML as text, or the `Path` of a YAML file."""


def _stripped(value: SecretStr) -> SecretStr:
    return SecretStr(value.get_secret_value().strip())


_Key = Annotated[SecretStr, AfterValidator(_stripped)]


class FileContent(Payload):
    """
    An input or data file: its content, or where the service finds it.

    Without ``content``, the file comes from the payload's ``s3`` bucket or dataset, or from a volume.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    filename: str | None = None
    """Name of the file; with S3, a dataset or a volume, its path there (``path:name`` renames it)."""
    content: Any = Field(default=None, repr=False)
    """Content: text, UTF-8 bytes, a `Path` that is read at the start, or a pandas DataFrame that is sent as CSV."""
    sourceFilename: str | None = None
    """Path in the bucket, dataset or volume; requires ``targetFilename``."""
    targetFilename: str | None = None
    """Name that the experiment sees; without directories."""
    volume: str | None = None
    """Identifier of one of the payload's volumes."""

    @property
    def name(self) -> str | None:
        """Name that the experiment sees."""
        if self.targetFilename:
            return self.targetFilename
        if self.filename is None or self.content is not None:
            return self.filename
        return Path(self.filename.split(":")[-1]).name


class S3(Payload):
    """
    A bucket to read from, or the Datashim dataset of a bucket.

        S3(bucket="mine", endpoint="https://s3.example", accessKeyID="...", secretAccessKey="...")
        S3(dataset="mine")     without any other field

    The keys never appear in a `repr` or a message.
    """

    accessKeyID: _Key | None = None
    """Access key id; whitespace around it, such as the line break at the end of a file, is removed."""
    secretAccessKey: _Key | None = None
    """Secret access key; whitespace around it is removed."""
    bucket: str | None = None
    """Name of the bucket."""
    endpoint: str | None = None
    """URL of the S3 service."""
    region: str | None = None
    """Region; None if the S3 service has no regions."""
    dataset: str | None = None
    """Name of a Datashim dataset, instead of all other fields."""


class S3Store(Payload):
    """
    A bucket to upload key-outputs to, at the end of each stage.

    A file is uploaded as ``<bucketPath>/<name>``, a folder as ``<bucketPath>/<name>/...``. Another run that uploads to
    the same folder replaces the files: give each run its own folder, or use ``%(instanceDir)s`` in the path. If an
    upload fails, only the log of the orchestrator reports it.

        S3Store(credentials=S3(bucket="mine", ...), bucketPath="campaign/%(instanceDir)s")
    """

    credentials: S3 | None = None
    """Bucket, with keys that may write to it."""
    bucketPath: str | None = None
    """Folder in the bucket; None means ``workflow_instances/``. ``%(instanceDir)s`` stands for the name of the run's
    directory."""


@document_fields
@dataclass(frozen=True)
class Staged:
    """
    Local files that were uploaded to a bucket, to use in a payload.

        draft.use(staged)                                               # in a `Draft`, as inputs and data
        client.start("demo", {**staged.as_inputs(), "platform": ...})   # in a payload, all as inputs
    """

    s3: S3
    """Bucket, for the field ``s3`` of a payload."""
    files: Mapping[str, FileContent]
    """Name that the experiment sees -> file in the bucket, without content."""

    def as_inputs(self) -> dict[str, Any]:
        """Return the fields of a payload in which all files are input files."""
        return {"s3": self.s3, "inputs": list(self.files.values())}

    def as_data(self) -> dict[str, Any]:
        """Return the fields of a payload in which all files are data files."""
        return {"s3": self.s3, "data": list(self.files.values())}


class VolumeType(Payload):
    """The source of a volume: set exactly one field."""

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
    """Source of the volume."""
    identifier: str | None = None
    """Name by which ``inputs`` and ``data`` refer to the volume."""
    applicationDependency: str | None = None
    """Application dependency that the volume provides."""
    subPath: str | None = None
    """Path inside the volume; only for a claim or a dataset."""
    readOnly: bool | None = None
    """Whether the volume is mounted read-only; None means True."""


class OrchestratorResources(Payload):
    """Limits of the orchestrator's container, in Kubernetes units."""

    cpu: str | float | None = None
    """CPU, such as ``"1"`` or ``"500m"``."""
    memory: str | None = None
    """Memory, such as ``"500Mi"``."""


class RuntimePolicy(Payload):
    """A policy of the service that may change the experiment when it starts."""

    name: str | None = None
    """Name of the policy."""
    config: Mapping[str, Any] | None = None
    """Options of the policy."""


class StartOptions(Payload):
    """Fields that all starts have in common."""

    data: list[FileContent] | None = None
    """Data files: those that replace files of the package, if it allows that; of a lambda experiment, all."""
    variables: Mapping[str, Scalar] | None = None
    """Variables to set, if the package allows that: name -> value."""
    environmentVariables: Mapping[str, Scalar] | None = Field(default=None, repr=False)
    """Environment of the orchestrator: name -> value; treated as secret in messages."""
    additionalOptions: list[str] | None = None
    """Command-line options of the orchestrator."""
    orchestrator_resources: OrchestratorResources | None = None
    """Limits of the orchestrator's container."""
    volumes: list[Volume] | None = None
    """Volumes to mount."""
    s3: S3 | None = None
    """Bucket or dataset of the input and data files without content."""
    s3Store: S3Store | None = None
    """Bucket to upload key-outputs to; not together with ``datasetStoreURI``."""
    datasetStoreURI: str | None = None
    """Dataset to upload key-outputs to, as ``dataset://name/path``. By its source code, the service accepts this for
    all experiments, but uploads the key-outputs of lambda experiments only."""
    metadata: Mapping[str, Scalar] | None = None
    """Metadata to keep with the instance, as in ``status.meta.user_metadata``: name -> value; no colons in names."""


class StartPayload(StartOptions):
    """
    Options of a start; which ones are required depends on the package.

    Fields are named as the service names them. Fields that are not set are not sent.

    Source: ``POST experiments/{identifier}/start`` of the runtime service.
    """

    inputs: list[FileContent] | None = None
    """Input files; every start must provide all that the package names."""
    platform: str | None = None
    """Platform to execute on, if the package does not fix it; None means the default."""
    runtimePolicy: RuntimePolicy | None = None
    """Policy of the service that may change the experiment."""


class LambdaPayload(StartOptions):
    """
    An experiment that is in no registry, and the options of its start.

    Fields are named as the service names them. Fields that are not set are not sent.

    Source: ``POST experiments/lambda/start`` of the runtime service.
    """

    lambdaFlowIR: Definition
    """Definition in FlowIR or DSL 2.0: a mapping, YAML as text, or the `Path` of a YAML file."""
    scripts: list[FileContent] | None = None
    """Programs to put into the ``bin`` folder of the experiment, with their content."""
    validate_flowir: bool | None = None
    """Whether the service checks the definition first; None means True."""
