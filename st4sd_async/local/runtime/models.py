"""
Pydantic models of parameterised packages, and the validation of all request bodies.

The service validates with pydantic and puts the message of the exception into its response. The message contains
class names, fields and rules, so the models here have the same ones.

Source:
    st4sd-runtime-service, ``apis/models/virtual_experiment.py``. Fields that its responses omit by default
    (graphs, connections...) accept any JSON.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

PYDANTIC_VERSION = "2.14"
"""Version of pydantic in the links of error messages; that of the recorded service."""
MAX_NAME_LENGTH = 57
"""Maximum length of an experiment's name: a label of 64 characters minus a suffix of 7."""
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
Text = StrictStr
TextOrNumber = Annotated[
    StrictStr, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)
]


_building = threading.Lock()


class Model(BaseModel):
    """Base of all models: unknown fields are errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)


class SchemaError(Exception):
    """JSON that does not match its model; the message is that of the service's responses."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__(_with_recorded_version(str(error)))
        self.json: str = _with_recorded_version(error.json(indent=2))
        """The problems as a JSON string, for some responses."""
        self.problems: list[dict[str, Any]] = [
            {key: problem[name] for key, name in _PROBLEM_KEYS.items()}
            for problem in map(dict, json.loads(error.json(include_url=False, include_context=False)))
        ]
        """The problems as a list, for other responses."""


_PROBLEM_KEYS = {"type": "type", "input": "input", "message": "msg", "location": "loc"}


def _with_recorded_version(text: str) -> str:
    return re.sub(r"(errors\.pydantic\.dev/)[\d.]+", rf"\g<1>{PYDANTIC_VERSION}", text)


def build(model: type[BaseModel]) -> None:
    """
    Build the validator of a model before its first use.

    Building all validators would take longer than the rest of the start of a server. Two threads must not build a
    model at the same time.
    """
    if not model.__pydantic_complete__:
        with _building:
            model.model_rebuild()


def validate(model: type[BaseModel], value: Any, *, nulls: bool = False) -> dict[str, Any]:
    """
    Return a value in the form of its model: with its fields in order, and with defaults.

    Raises:
        SchemaError: The value does not match the model.
    """
    build(model)
    try:
        return model.model_validate(value).model_dump(by_alias=True, exclude_none=not nulls)
    except ValidationError as error:
        raise SchemaError(error) from error


class OptionFromSecretKeyRef(Model):
    key: Text | None = None
    name: Text


class OptionValueFrom(Model):
    secretKeyRef: OptionFromSecretKeyRef | None = None
    datasetRef: Any = None
    usernamePassword: Any = None
    s3Ref: Any = None
    s3SecretKeyRef: Any = None
    volumeRef: Any = None


class Option(Model):
    name: Text | None = None
    value: TextOrNumber | None = None
    valueFrom: OptionValueFrom | None = None


class OptionValueFromMany(Model):
    value: Text | None = None
    secretKeyRef: OptionFromSecretKeyRef | None = None
    datasetRef: Any = None
    usernamePassword: Any = None
    s3Ref: Any = None
    s3SecretKeyRef: Any = None


class OptionMany(Model):
    name: Text | None = None
    value: Text | None = None
    valueFrom: list[OptionValueFromMany] | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if self.value and self.valueFrom:
            raise ValueError("Cannot provide both value and valueFrom")
        return self


class OrchestratorResources(Model):
    cpu: Text | None = None
    memory: Text | None = None


class ParameterisationRuntime(Model):
    resources: OrchestratorResources = OrchestratorResources()
    args: list[Text] = []


class SourceGitLocation(Model):
    url: Text
    branch: Text | None = None
    tag: Text | None = None
    commit: Text | None = None

    @model_validator(mode="after")
    def _check_one_revision(self) -> Self:
        if sum(revision is not None for revision in (self.branch, self.tag, self.commit)) > 1:
            raise ValueError("location must not contain more than 1 of branch, tag, or commit")
        return self


class BasePackageSourceGitSecurity(Model):
    oauth: Option | None = None


class BasePackageSourceGit(Model):
    security: BasePackageSourceGitSecurity | None = None
    location: SourceGitLocation
    version: Text | None = None


class DatasetInfo(Model):
    dataset: Text


class BasePackageSourceDataset(Model):
    location: DatasetInfo
    version: Text | None = None
    security: DatasetInfo | None = None


class BaseSource(Model):
    git: BasePackageSourceGit | None = None
    dataset: BasePackageSourceDataset | None = None
    s3: Any = None


class DependencyImageRegistry(Model):
    serverUrl: Text
    security: Option | None = None


class BasePackageDependencies(Model):
    imageRegistries: list[DependencyImageRegistry] = []


class BasePackageConfig(Model):
    path: Text | None = None
    manifestPath: Text | None = None


class BasePackage(Model):
    name: Text = "main"
    source: BaseSource = BaseSource()
    dependencies: BasePackageDependencies = BasePackageDependencies()
    config: BasePackageConfig = BasePackageConfig()
    graphs: list[Any] = []


class VirtualExperimentBase(Model):
    packages: list[BasePackage] = []
    connections: list[Any] = []
    includePaths: list[Any] = []
    output: list[Any] = []
    interface: Any = None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [package.name for package in self.packages]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise ValueError(f"Multiple definitions of base package {duplicate}")
        return self


class ApplicationDependency(Model):
    name: Text


class ValueInPlatform(Model):
    value: TextOrNumber
    platform: Text | None = None


class VariableWithDefaultValues(Model):
    name: Text
    valueFrom: list[ValueInPlatform] = []


class ExecutionOptionDefaults(Model):
    variables: list[VariableWithDefaultValues] = []


class MetadataRegistry(Model):
    class Option(Model):
        name: Text | None = None

    createdOn: Text | None = None
    digest: Text | None = None
    tags: list[Text] = []
    timesExecuted: StrictInt = 0
    interface: dict[str, Any] = {}
    inputs: list[Option] = []
    data: list[Option] = []
    containerImages: list[Option] = []
    executionOptionsDefaults: ExecutionOptionDefaults = ExecutionOptionDefaults()
    platforms: list[Text] = []
    output: list[Option] = []
    applicationDependencies: dict[str, list[ApplicationDependency]] = {}


class MetadataPackage(Model):
    name: Text | None = None
    tags: list[Text] = []
    keywords: list[Text] = []
    license: Text | None = None
    maintainer: Text | None = None
    description: Text | None = None

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if self.name is not None and (len(self.name) > MAX_NAME_LENGTH or not NAME_PATTERN.fullmatch(self.name)):
            raise ValueError(
                f"Invalid metadata.package.name {self.name}. Names consist of lower-case letters, digits and dashes, "
                f"begin and end with a letter or digit, and have at most {MAX_NAME_LENGTH} characters"
            )
        return self


class Metadata(Model):
    package: MetadataPackage = MetadataPackage()
    registry: MetadataRegistry = MetadataRegistry()


class ParameterisationPresets(Model):
    variables: list[Option] = []
    runtime: ParameterisationRuntime = ParameterisationRuntime()
    data: list[Option] = []
    environmentVariables: list[Option] = []
    platform: Text | None = None


class ParameterisationExecutionOptions(Model):
    variables: list[OptionMany] = []
    data: list[OptionMany] = []
    runtime: ParameterisationRuntime = ParameterisationRuntime()
    platform: list[Text] = []


class Parameterisation(Model):
    presets: ParameterisationPresets = ParameterisationPresets()
    executionOptions: ParameterisationExecutionOptions = ParameterisationExecutionOptions()


class ParameterisedPackage(Model):
    """The definition of an experiment, as pushed and as stored in the registry."""

    base: VirtualExperimentBase = VirtualExperimentBase()
    metadata: Metadata = Metadata()
    parameterisation: Parameterisation = Parameterisation()
