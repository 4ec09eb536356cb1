"""
The payload of a start: its models, its skeleton, and the checks that turn it into an `AcceptedStart`.

The checks have the order and the messages of the service.

Source:
    st4sd-runtime-service, ``apis/models/common.py``, ``PayloadExecutionOptions.from_old_payload`` and
    ``NamedPackage.__init__``.
"""

from __future__ import annotations

import secrets
import string
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import StrictBool, model_validator

from st4sd_async.local.engine.buckets import DATASET, S3_VARIABLES, VOLUME_KINDS, OutputStore, RemoteFile, Volume
from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import HTTPError, InternalServerError
from st4sd_async.local.runtime.models import Model, OrchestratorResources, SchemaError, Text, validate
from st4sd_async.local.runtime.registry import preset_value
from st4sd_async.local.runtime.storage import bucket_from, dataset_store, missing_fields, split_path

POLICIES = ("prefer-surrogate", "random-canary-surrogate")
"""Runtime policies of the service. Without relationships, they run the experiment itself."""
_ALPHABET = string.digits + string.ascii_lowercase
_SUFFIX_LENGTH = 8
_DIGEST_DIGITS = 6
_MOUNT_PREFIXES = {"persistentVolumeClaim": "pvc", "configMap": "cm", DATASET: "pvc", "secret": "sc"}
"""Kind of a volume -> prefix of the name of its mount. A dataset has a claim of the same name."""
_SPACES_TO_DASHES = str.maketrans(" _", "--")
_S3 = "{{OptionalS3ForDownload}}"
_DATASET = "{{OptionalDatasetForDownload}}"
_DOWNLOAD = "{{OptionalS3OrDatasetDownload}}"
_ADVICE = (
    "Read the skeleton payload in .payload and consult the .magicValues for instructions on how to construct "
    "the payload that you will submit to start the experiment."
)


class OldFileContent(Model):
    filename: Text | None = None
    content: Text | None = None
    sourceFilename: Text | None = None
    targetFilename: Text | None = None
    volume: Text | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        source, target = self.sourceFilename, self.targetFilename
        if self.filename is not None and (source is not None or target is not None):
            raise ValueError("filename is mutually exclusive with sourceFilename/targetFilename")
        if target is not None and "/" in target:
            raise ValueError("Cannot contain / character")
        if self.volume is not None and self.content is not None:
            raise ValueError("volume and content are mutually exclusive")
        if (source is None) != (target is None):
            raise ValueError("If either targetFilename and sourceFilename is set, then both must be set")
        return self


class OldVolumeType(Model):
    persistentVolumeClaim: Text | None = None
    configMap: Text | None = None
    dataset: Text | None = None
    secret: Text | None = None


class OldVolume(Model):
    type: OldVolumeType
    applicationDependency: Text | None = None
    subPath: Text | None = None
    readOnly: StrictBool = True
    identifier: Text | None = None


class VolumePersistentVolumeClaim(Model):
    claimName: Text
    readOnly: StrictBool = True
    subPath: Text | None = None


class VolumeConfigMap(Model):
    name: Text
    readOnly: StrictBool = True


class VolumeSecret(VolumeConfigMap):
    pass


class VolumeDataset(Model):
    name: Text
    readOnly: StrictBool = True
    subPath: Text | None = None


class PayloadVolumeType(Model):
    persistentVolumeClaim: VolumePersistentVolumeClaim | None = None
    configMap: VolumeConfigMap | None = None
    dataset: VolumeDataset | None = None
    secret: VolumeSecret | None = None


class PayloadVolume(Model):
    type: PayloadVolumeType
    applicationDependency: Text | None = None
    identifier: Text | None = None


class OptionFromS3Values(Model):
    accessKeyID: Text | None = None
    secretAccessKey: Text | None = None
    bucket: Text | None = None
    endpoint: Text | None = None
    region: Text | None = None


class OldS3Credentials(OptionFromS3Values):
    dataset: Text | None = None


class OldS3Store(Model):
    credentials: OldS3Credentials | None = None
    bucketPath: Text = "workflow_instances/"


class PayloadExecutionRuntimePolicy(Model):
    name: Text | None = None
    config: dict[str, Any] = {}


class DeprecatedExperimentStartPayload(Model):
    """The body of a start. The service calls it deprecated, but has no other."""

    inputs: list[OldFileContent] = []
    data: list[OldFileContent] = []
    volumes: list[OldVolume] = []
    variables: dict[str, Any] = {}
    additionalOptions: list[Text] = []
    environmentVariables: dict[str, Any] = {}
    orchestrator_resources: OrchestratorResources = OrchestratorResources(cpu="1", memory="500Mi")
    metadata: dict[str, Any] = {}
    s3: OldS3Credentials | None = None
    s3Store: OldS3Store | None = None
    datasetStoreURI: Text | None = None
    platform: Text | None = None
    runtimePolicy: PayloadExecutionRuntimePolicy | None = None


def accepted_start(definition: Mapping[str, Any], value: Any, *, any_inputs: bool = False) -> AcceptedStart:
    """
    Return the start for a payload.

    Args:
        definition: The stored definition of the experiment.
        value: The payload.
        any_inputs: Whether any inputs are accepted, because those of the package are unknown.

    Raises:
        HTTPError: The payload is rejected; the response says why.
    """
    payload = _validated(DeprecatedExperimentStartPayload, value)
    volumes = _volumes(payload["volumes"])
    store = _output_store(payload)
    inputs, data = (_files(payload[kind], kind, payload.get("s3"), volumes) for kind in ("inputs", "data"))
    _check_policy(payload.get("runtimePolicy"))
    parameterisation = definition["parameterisation"]
    variables = _variables(parameterisation, as_strings(payload["variables"]))
    _check_data(parameterisation, inputs, data)
    platform = _platform(parameterisation, payload.get("platform"))
    environment = _environment(parameterisation["presets"], as_strings(payload["environmentVariables"]))
    _check_buckets(payload, environment)
    _check_resources(parameterisation, payload["orchestrator_resources"])
    if not any_inputs:
        _check_inputs(definition["metadata"]["registry"]["inputs"], inputs)
    name, digest = definition["metadata"]["package"]["name"], definition["metadata"]["registry"]["digest"]
    return AcceptedStart(
        rest_uid=new_rest_uid(name, digest),
        identifier=f"{name}@{digest}",
        package=definition,
        platform=platform,
        inputs=inputs,
        data=data,
        variables=variables,
        metadata=as_strings(payload["metadata"]),
        environment=environment,
        options=(
            *parameterisation["presets"]["runtime"]["args"],
            *parameterisation["executionOptions"]["runtime"]["args"],
            *payload["additionalOptions"],
            *(store.options if store else ()),
        ),
        store=store,
    )


def new_rest_uid(name: str, digest: str) -> str:
    """
    Return a new rest-uid: the name, six digits of the digest, eight random characters.

    Source: the runtime service, which replaces spaces and underscores with dashes.
    """
    digits = digest.partition("x")[2][:_DIGEST_DIGITS]
    return f"{name.translate(_SPACES_TO_DASHES)}-{digits}-{random_suffix(_SUFFIX_LENGTH)}"


def random_suffix(length: int) -> str:
    """Return random lower-case letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def as_strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Convert names and values to strings."""
    return {str(key): str(value) for key, value in values.items()}


def _validated(model: type[Model], value: Any) -> dict[str, Any]:
    try:
        return validate(model, value)
    except SchemaError as error:
        raise HTTPError(400, "Invalid start payload", invalidStartPayload=str(error)) from error


def _volumes(entries: Sequence[Mapping[str, Any]]) -> dict[str, Volume]:
    """
    Return the volumes of a payload by their identifiers.

    A volume that is repeated with another identifier has both identifiers. A volume that is repeated with the same
    identifier is lost. Source: the runtime service.
    """
    contents = [{key: value for key, value in entry.items() if key != "identifier"} for entry in entries]
    first_ids: dict[Any, Any] = {}
    for index, entry in enumerate(entries):
        for content, other in zip(contents[index + 1 :], entries[index + 1 :], strict=True):
            if content == contents[index]:
                first_ids.setdefault(other.get("identifier"), entry.get("identifier"))
    kept = [_volume(entry) for entry in entries if entry.get("identifier") not in first_ids]
    _check_volumes(kept)
    by_id = {identifier: volume for identifier, volume in kept if identifier is not None}
    return {**by_id, **{other: by_id[first] for other, first in first_ids.items() if first in by_id}}


def _volume(entry: Mapping[str, Any]) -> tuple[str | None, Volume]:
    """Return a volume and its identifier; if an entry has several kinds of volumes, the last one counts."""
    value = {key: entry[key] for key in ("applicationDependency", "identifier") if key in entry}
    details = {key: entry[key] for key in ("subPath", "readOnly") if key in entry}
    kind = next((kind for kind in reversed(VOLUME_KINDS) if entry["type"].get(kind)), None)
    if kind is not None:
        name = "claimName" if kind == "persistentVolumeClaim" else "name"
        value["type"] = {kind: {**details, name: entry["type"][kind]}}
    _validated(PayloadVolume, value)
    return entry.get("identifier"), Volume(str(kind), entry["type"][kind], entry.get("subPath") or "")


def _check_volumes(volumes: Collection[tuple[str | None, Volume]]) -> None:
    mounts = Counter(f"{_MOUNT_PREFIXES[volume.kind]}-{volume.name}" for _, volume in volumes)
    if repeated := sorted(name for name, number in mounts.items() if number > 1):
        raise _invalid(f"The following volumes are mounted multiple times: {', '.join(repeated)}")
    identifiers = Counter(identifier for identifier, _ in volumes if identifier is not None)
    if repeated := sorted(identifier for identifier, number in identifiers.items() if number > 1):
        raise _invalid(f"The following volumes have been defined multiple times {repeated}")


def _files(
    files: Iterable[Mapping[str, Any]], kind: str, s3: Mapping[str, Any] | None, volumes: Mapping[str, Volume]
) -> dict[str, Content]:
    contents: dict[str, Content] = {}
    for file in files:
        error = f"payload configuration for {kind} file {dict(file)} is invalid"
        if not file.get("content"):  # an empty file counts as a file without content
            name, contents[name] = _remote_file(file, kind, error, s3, volumes)
        elif not file.get("filename"):
            raise _invalid(f"{error} because .filename is empty")
        else:
            contents[file["filename"]] = file["content"]
    return contents


def _remote_file(
    file: Mapping[str, Any], kind: str, error: str, s3: Mapping[str, Any] | None, volumes: Mapping[str, Volume]
) -> tuple[str, RemoteFile]:
    """Return the name that a file without content has in the experiment, and its location."""
    source, target = split_path(file.get("filename") or "")
    if not source:
        source, target = file.get("sourceFilename") or "", file.get("targetFilename")
    name = target or source.rpartition("/")[2]
    if not name:
        raise _invalid(f"{error}. Could not determine the name of the {kind} file in the experiment scope")
    if file.get("volume"):
        if file["volume"] not in volumes:
            raise _invalid(f"There is no volume {file['volume']} definition for {kind} file {dict(file)}")
        return name, RemoteFile(volumes[file["volume"]], source)
    if not s3:
        raise _invalid(f"{error} because there is no S3/Dataset security configuration")
    if s3.get("dataset"):
        return name, RemoteFile(Volume(DATASET, s3["dataset"]), source)
    # Missing fields of the bucket are reported by _check_buckets, after all other checks.
    return name, RemoteFile(Volume(DATASET, "") if missing_fields(s3) else bucket_from(s3), source.lstrip("/"))


def _output_store(payload: Mapping[str, Any]) -> OutputStore | None:
    """Return the store for key-outputs; None if they are not uploaded. The URI of a dataset is checked but ignored."""
    if payload.get("datasetStoreURI"):
        try:
            dataset_store(payload["datasetStoreURI"])
        except ValueError as error:
            raise _invalid(str(error)) from error
    if not payload.get("s3Store"):
        return None
    credentials = payload["s3Store"].get("credentials")
    if credentials is None:
        raise _invalid("'NoneType' object has no attribute 'model_dump'")
    _validated(OptionFromS3Values, credentials)
    if missing_fields(credentials):
        return None  # reported by _check_buckets
    return OutputStore(bucket_from(credentials), payload["s3Store"]["bucketPath"].removeprefix("/"))


def _check_buckets(payload: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Check the credentials of buckets; the service does this after all other checks."""
    store, s3 = payload.get("s3Store"), payload.get("s3")
    output = "PayloadExecutionOptions.security.s3Output.s3Ref"
    if store:
        if payload.get("datasetStoreURI"):
            text = f"PayloadExecutionOptions.s3Store stores output to S3 but does not contain {output}"
            raise _rejected(f"{text} instead it has <class 'apis.models.common.OptionFromDatasetRef'>")
        if missing := missing_fields(store["credentials"]):
            raise _rejected(f"{output} is missing {', '.join(missing)}")
        if any(name in environment for name in S3_VARIABLES):
            variables = ", ".join(S3_VARIABLES)
            raise _rejected(
                f"{output} injects env vars {variables} but they would override existing environment variables"
            )
    if s3 and not s3.get("dataset") and (missing := missing_fields(s3)):
        raise _rejected(f"PayloadExecutionOptions.security.s3Input.s3Ref is missing {', '.join(missing)}")


def _invalid(reason: str) -> HTTPError:
    return HTTPError(400, f"Invalid payload: {reason}", reason=reason)


def _rejected(reason: str) -> HTTPError:
    return HTTPError(400, f"{reason} - experiment start payload is invalid", reason=reason)


def _forbidden(text: str) -> HTTPError:
    return HTTPError(400, f"Invalid request. {text}")


def _values(options: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {option["name"]: str(option.get("value")) for option in options}


def _check_policy(policy: Mapping[str, Any] | None) -> None:
    if policy is not None and policy.get("name") not in POLICIES:
        raise InternalServerError  # the service intends 404, but fails to serialise the rejected policy


def _variables(parameterisation: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a run: presets, variables of the payload, and defaults of options."""
    presets = _values(parameterisation["presets"]["variables"])
    overridden = [name for name in presets if name in variables]
    if overridden:
        names = ", ".join(overridden)
        raise _rejected(f"Payload overrides workflow variables of parameterisation.presets: {names}")
    options = {option["name"]: option for option in parameterisation["executionOptions"]["variables"]}
    for name, value in variables.items():
        _check_variable(options.get(name), name, value)
    defaults = {name: preset_value(option) for name, option in options.items()}
    return {
        **presets,
        **variables,
        **{name: value for name, value in defaults.items() if value is not None and name not in variables},
    }


def _check_variable(option: Mapping[str, Any] | None, name: str, value: str) -> None:
    if option is None:
        raise _forbidden(
            f"Payload sets variable {name} = {value} for which parameterisation.executionOptions.variables has no rule."
        )
    choices = option.get("valueFrom")
    if option.get("value") is None and choices and value not in [choice.get("value") for choice in choices]:
        raise _forbidden(
            f"Payload variable {name} = {value} does not have an allowed value. Valid choices are {choices}"
        )


def _check_data(parameterisation: Mapping[str, Any], inputs: Collection[str], data: Collection[str]) -> None:
    both = [name for name in data if name in inputs]
    if both:
        raise _rejected(f"Input and Data files with conflicting names: {both}")
    preset = [option["name"] for option in parameterisation["presets"]["data"] if option["name"] in data]
    if preset:
        text = "Payload overrides data files specified in parameterisation.presets.data"
        raise _forbidden(f"{text}. Filenames are {preset}")
    allowed = [option["name"] for option in parameterisation["executionOptions"]["data"]]
    other = [name for name in data if name not in allowed]
    if other:
        text = "Payload overrides data files which are not specified in"
        raise _forbidden(f"{text} parameterisation.executionOptions.data. Filenames are {other}")


def _platform(parameterisation: Mapping[str, Any], platform: str | None) -> str | None:
    preset: str | None = parameterisation["presets"].get("platform")
    allowed: list[str] = parameterisation["executionOptions"]["platform"]
    if preset is not None:
        if platform not in (None, preset):
            raise _forbidden(f"Payload overrides parameterisation.presets.platform={preset}")
        return preset
    if platform is None:
        return allowed[0] if allowed else None
    if allowed and platform not in allowed:
        raise _forbidden(f"Payload overrides parameterisation.executionOptions.platform={allowed}")
    return platform


def _environment(presets: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    preset = _values(presets["environmentVariables"])
    overridden = [name for name in environment if name in preset]
    if overridden:
        names = ", ".join(overridden)
        raise _rejected(f"Payload overrides environment variables of parameterisation.presets: {names}")
    return {**preset, **environment}


def _check_resources(parameterisation: Mapping[str, Any], resources: Mapping[str, str]) -> None:
    # A payload without resources has default values, so a preset alone is a conflict.
    for part in ("presets", "executionOptions"):
        fixed = parameterisation[part]["runtime"]["resources"]
        for key in ("cpu", "memory"):
            if fixed.get(key) is not None and resources.get(key) is not None and fixed[key] != resources[key]:
                where = f"parameterisation.{part}.runtime.resources.{key}"
                raise _forbidden(f"payload.orchestrator_resources.{key} overrides {where}")


def _check_inputs(expected: Iterable[Mapping[str, str]], inputs: Collection[str]) -> None:
    names = {entry["name"] for entry in expected}
    missing, extra = sorted(names - set(inputs)), sorted(set(inputs) - names)
    if not missing and not extra:
        return
    text = "Invalid experiment start payload."
    keys: dict[str, list[str]] = {}
    if missing:
        text += f" Missing inputs: {missing}."
        keys["missingInputs"] = missing
    if extra:
        text += f" Extra inputs: {extra}"
        keys["extraInputs"] = extra
    raise HTTPError(400, text, **keys)


def skeleton(definition: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a start payload with placeholders ("magic values"), and the explanation of each placeholder.

    Source: the runtime service, ``generate_experiment_start_skeleton_payload``, including the texts.
    """
    payload: dict[str, Any] = {}
    magic: dict[str, Any] = {}
    options = definition["parameterisation"]["executionOptions"]
    _add_files(payload, magic, "inputs", definition["metadata"]["registry"]["inputs"])
    _add_files(payload, magic, "data", options["data"])
    if payload:
        _add_sources(payload, magic)
    if options["variables"]:
        payload["variables"] = {}
    platforms = _add_platforms(definition["parameterisation"], payload, magic)
    for option in options["variables"]:
        payload["variables"][option["name"]] = _add_variable(magic, option, definition, platforms)
    return {"payload": payload, "magicValues": magic, "problems": [], "message": _ADVICE}


def _add_files(
    payload: dict[str, Any], magic: dict[str, Any], kind: Literal["inputs", "data"], files: list[Mapping[str, Any]]
) -> None:
    need, verb, noun = ("Required", "must", "input") if kind == "inputs" else ("Optional", "may", "data")
    for index, name in enumerate(sorted(file["name"] for file in files)):
        value = f"{{{{{need}{kind.capitalize()}_{name}}}}}"
        text = (
            f"You **{verb}** set the content of the {noun} file {name} either directly, via {kind}[{index}].content or "
            f"by omitting the content dictionary and configuring the payload to find the {noun} file in a S3 bucket. "
            f"For the latter consult the magicValue {_DOWNLOAD}"
        )
        if kind == "data":
            text += (
                f". If you remove the field data[{index}] then the experiment will use the file that is in the "
                "workflow package of the experiment."
            )
        magic[value] = {"message": text}
        payload.setdefault(kind, []).append({"filename": name, "content": value})


def _add_sources(payload: dict[str, Any], magic: dict[str, Any]) -> None:
    keys = ("accessKeyID", "secretAccessKey", "bucket", "endpoint", "region")
    payload["s3"] = {"dataset": _DATASET, **dict.fromkeys(keys, _S3)}
    magic[_S3] = {"message": _source_text("S3", _S3, _DATASET)}
    magic[_DATASET] = {"message": _source_text("an existing Datashim Dataset,", _DATASET, _S3)}
    if "inputs" not in payload:
        prologue = "You **may** fill in the inputs field."
    elif "data" not in payload:
        prologue = "You **must** fill in the inputs field."
    else:
        prologue = "You **must** fill in the inputs field and **may** fill in the data field."
    magic[_DOWNLOAD] = {
        "message": f"{prologue} "
        "You **may** use the respective [$index].content field to provide the value of the filename OR you may ask "
        "the runtime to retrieve the contents of the files from S3/Dataset. The .content field is mutually exclusive "
        "with the S3/Dataset settings. When you use S3/Dataset then the .filename field is used as the relative path "
        "to the file inside the S3 bucket/Dataset."
    }


def _source_text(source: str, own: str, other: str) -> str:
    """Return the explanation of a source of files; `own` and `other` are the placeholders of both sources."""
    return (
        f"You **may** ask the runtime to download files from {source} if you do not use the .content field of entries "
        f"in the inputs and data array. If you pick to set {own} fields then you must not set {other} fields. If you "
        f"decide not to set {own} fields then simply remove the fields from your payload. See also {_DOWNLOAD}."
    )


def _add_platforms(parameterisation: Mapping[str, Any], payload: dict[str, Any], magic: dict[str, Any]) -> list[str]:
    preset = parameterisation["presets"].get("platform")
    platforms = [preset] if preset else list(parameterisation["executionOptions"]["platform"])
    if len(platforms) > 1:
        payload["platform"] = "{{OptionalPlatform}}"
        magic[payload["platform"]] = {
            "message": f"You **may** configure the experiment platform using one of the values {platforms}",
            "choices": platforms,
        }
    return platforms or ["default"]


def _add_variable(
    magic: dict[str, Any], option: Mapping[str, Any], definition: Mapping[str, Any], platforms: list[str]
) -> str:
    name = option["name"]
    value = f"{{{{OptionalVariable_{name}}}}}"
    choices = None
    if option.get("value") is None and option.get("valueFrom"):
        choices = [choice.get("value") for choice in option["valueFrom"]]
    variables = definition["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    entries: list[Mapping[str, str]] = next((entry["valueFrom"] for entry in variables if entry["name"] == name), [])
    from_platform = {item["platform"]: item["value"] for item in entries if item["platform"] in platforms}
    text = f"You **may** set the field variables.{name} to override its default value. "
    if choices:
        text += f"You **must** set the value of the field to one of {choices}."
    else:
        text += "You **may** set the value of the field to any string."
    default = preset_value(option)
    if default is not None:
        text += f" The default value of this variable is {default}"
    elif len(from_platform) > 1:
        text += f" The default value of this variable depends on experiment platform you select: {from_platform}"
    entry = {"message": text, "choices": choices, "defaultFromPlatform": from_platform}
    magic[value] = entry if default is None else {**entry, "default": default}
    return value
