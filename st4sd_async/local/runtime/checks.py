"""
Checks the payload of a start against its experiment, in the service's order and words, and makes a `AcceptedStart`.

Source:
    st4sd-runtime-service, ``PayloadExecutionOptions.from_old_payload`` and ``NamedPackage.__init__``.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import Abort
from st4sd_async.local.runtime.buckets import bucket, missing
from st4sd_async.local.runtime.definitions import PAYLOAD
from st4sd_async.local.runtime.places import (
    DATASET,
    STORE_KEYS,
    Elsewhere,
    Named,
    Store,
    dataset_store,
    split_path,
    volumes,
)
from st4sd_async.local.runtime.schema import Invalid, read
from st4sd_async.local.runtime.store import preset_value

POLICIES = ("prefer-surrogate", "random-canary-surrogate")
"""Runtime policies that the service knows; without relationships they run the experiment itself."""
_ALPHABET = string.digits + string.ascii_lowercase
_SUFFIX = 8
_DASHED = str.maketrans(" _", "--")
_DIGEST_DIGITS = 6


def launch(definition: Mapping[str, Any], value: Any) -> AcceptedStart:
    """
    What to execute for a payload.

    Raises:
        Abort: The payload is refused; the reply says why.
    """
    payload = _read(value)
    places = volumes(payload["volumes"])
    store = _store(payload)
    inputs, data = (_contents(payload[kind], kind, payload.get("s3"), places) for kind in ("inputs", "data"))
    _check_policy(payload.get("runtimePolicy"))
    parameterisation = definition["parameterisation"]
    variables = _variables(parameterisation, _strings(payload["variables"]))
    _check_data(parameterisation, inputs, data)
    platform = _platform(parameterisation, payload.get("platform"))
    environment = _environment(parameterisation["presets"], _strings(payload["environmentVariables"]))
    _check_buckets(payload, environment)
    _check_resources(parameterisation, payload["orchestrator_resources"])
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
        metadata=_strings(payload["metadata"]),
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
    Return a new id of an instance: the name, six digits of the digest, eight random characters.

    Source: the runtime service, which puts dashes in place of spaces and underscores.
    """
    digits = digest.partition("x")[2][:_DIGEST_DIGITS]
    return f"{name.translate(_DASHED)}-{digits}-{''.join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX))}"


def _read(value: Any) -> dict[str, Any]:
    try:
        return read(PAYLOAD, value)
    except Invalid as error:
        raise Abort(400, "Invalid start payload", invalidStartPayload=str(error)) from error


def _contents(
    files: Iterable[Mapping[str, Any]], kind: str, s3: Mapping[str, Any] | None, places: Mapping[str, Named]
) -> dict[str, Content]:
    contents: dict[str, Content] = {}
    for file in files:
        wrong = f"payload configuration for {kind} file {dict(file)} is invalid"
        if not file.get("content"):  # an empty file counts as one without content
            name, contents[name] = _elsewhere(file, kind, wrong, s3, places)
        elif not file.get("filename"):
            raise _invalid(f"{wrong} because .filename is empty")
        else:
            contents[file["filename"]] = file["content"]
    return contents


def _elsewhere(
    file: Mapping[str, Any], kind: str, wrong: str, s3: Mapping[str, Any] | None, places: Mapping[str, Named]
) -> tuple[str, Elsewhere]:
    """A file that a payload only names, and its name in the experiment."""
    source, target = split_path(file.get("filename") or "")
    if not source:
        source, target = file.get("sourceFilename") or "", file.get("targetFilename")
    name = target or source.rpartition("/")[2]
    if not name:
        raise _invalid(f"{wrong}. Could not determine the name of the {kind} file in the experiment scope")
    if file.get("volume"):
        if file["volume"] not in places:
            raise _invalid(f"There is no volume {file['volume']} definition for {kind} file {dict(file)}")
        return name, Elsewhere(places[file["volume"]], source)
    if not s3:
        raise _invalid(f"{wrong} because there is no S3/Dataset security configuration")
    if s3.get("dataset"):
        return name, Elsewhere(Named(DATASET, s3["dataset"]), source)
    # What the bucket lacks is only told when everything else has been looked at.
    return name, Elsewhere(bucket(s3) if not missing(s3) else Named(DATASET, ""), source.lstrip("/"))


def _store(payload: Mapping[str, Any]) -> Store | None:
    """Where key-outputs go; the service takes the address of a dataset too, and then does nothing with it."""
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
    if credentials.get("dataset") is not None:
        text = "1 validation error for OptionFromS3Values\ndataset\n  Extra inputs are not permitted"
        raise Abort(400, "Invalid start payload", invalidStartPayload=text)
    if missing(credentials):
        return None  # which is told later
    return Store(bucket(credentials), (payload["s3Store"].get("bucketPath") or "").removeprefix("/"))


def _check_buckets(payload: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """What the service finds out about credentials after all the rest."""
    store, given = payload.get("s3Store"), payload.get("s3")
    if store:
        if payload.get("datasetStoreURI"):
            told = "PayloadExecutionOptions.s3Store stores output to S3 but does not contain"
            raise _refused(f"{told} PayloadExecutionOptions.security.s3Output.s3Ref")
        if lack := missing(store["credentials"]):
            raise _refused(f"PayloadExecutionOptions.security.s3Output.s3Ref is missing {', '.join(lack)}")
        if any(name in environment for name in STORE_KEYS):
            told = f"PayloadExecutionOptions.security.s3Output.s3Ref injects env vars {', '.join(STORE_KEYS)}"
            raise _refused(f"{told} but they would override existing environment variables")
    if given and not given.get("dataset") and (lack := missing(given)):
        raise _refused(f"PayloadExecutionOptions.security.s3Input.s3Ref is missing {', '.join(lack)}")


def _invalid(reason: str) -> Abort:
    return Abort(400, f"Invalid payload: {reason}", reason=reason)


def _refused(reason: str) -> Abort:
    return Abort(400, f"{reason} - experiment start payload is invalid", reason=reason)


def _forbidden(text: str) -> Abort:
    return Abort(400, f"Invalid request. {text}")


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _values(options: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {option["name"]: str(option.get("value")) for option in options}


def _check_policy(policy: Mapping[str, Any] | None) -> None:
    if policy is not None and policy.get("name") not in POLICIES:
        # The service means to answer 404, but cannot write down the policy it refuses.
        raise Abort(500, "Internal Server Error")


def _variables(parameterisation: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    presets = _values(parameterisation["presets"]["variables"])
    double = [name for name in presets if name in given]
    if double:
        raise _refused(f"Payload overrides workflow variables of parameterisation.presets: {', '.join(double)}")
    options = {option["name"]: option for option in parameterisation["executionOptions"]["variables"]}
    for name, value in given.items():
        _check_variable(options.get(name), name, value)
    defaults = {name: preset_value(option) for name, option in options.items()}
    return {
        **presets,
        **given,
        **{name: value for name, value in defaults.items() if value is not None and name not in given},
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
        raise _refused(f"Input and Data files with conflicting names: {both}")
    preset = [option["name"] for option in parameterisation["presets"]["data"] if option["name"] in data]
    if preset:
        text = "Payload overrides data files specified in parameterisation.presets.data"
        raise _forbidden(f"{text}. Filenames are {preset}")
    allowed = [option["name"] for option in parameterisation["executionOptions"]["data"]]
    other = [name for name in data if name not in allowed]
    if other:
        text = "Payload overrides data files which are not specified in"
        raise _forbidden(f"{text} parameterisation.executionOptions.data. Filenames are {other}")


def _platform(parameterisation: Mapping[str, Any], given: str | None) -> str | None:
    preset: str | None = parameterisation["presets"].get("platform")
    allowed: list[str] = parameterisation["executionOptions"]["platform"]
    if preset is not None:
        if given not in (None, preset):
            raise _forbidden(f"Payload overrides parameterisation.presets.platform={preset}")
        return preset
    if given is None:
        return allowed[0] if allowed else None
    if allowed and given not in allowed:
        raise _forbidden(f"Payload overrides parameterisation.executionOptions.platform={allowed}")
    return given


def _environment(presets: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    preset = _values(presets["environmentVariables"])
    double = [name for name in given if name in preset]
    if double:
        raise _refused(f"Payload overrides environment variables of parameterisation.presets: {', '.join(double)}")
    return {**preset, **given}


def _check_resources(parameterisation: Mapping[str, Any], given: Mapping[str, str]) -> None:
    # The payload has values of its own if it names none, so that a preset alone is already a conflict.
    for part in ("presets", "executionOptions"):
        fixed = parameterisation[part]["runtime"]["resources"]
        for key in ("cpu", "memory"):
            if fixed.get(key) is not None and given.get(key) is not None and fixed[key] != given[key]:
                where = f"parameterisation.{part}.runtime.resources.{key}"
                raise _forbidden(f"payload.orchestrator_resources.{key} overrides {where}")


def _check_inputs(expected: Iterable[Mapping[str, str]], given: Collection[str]) -> None:
    names = {entry["name"] for entry in expected}
    missing, extra = sorted(names - set(given)), sorted(set(given) - names)
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
    raise Abort(400, text, **keys)
