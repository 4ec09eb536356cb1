"""
The skeleton of a start payload: what an experiment needs and allows, with placeholders to replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from st4sd_async.local.runtime.store import preset_value

_S3 = "{{OptionalS3ForDownload}}"
_DATASET = "{{OptionalDatasetForDownload}}"
_ELSEWHERE = "{{OptionalS3OrDatasetDownload}}"
_ADVICE = (
    "Read the skeleton payload in .payload and consult the .magicValues for instructions on how to construct "
    "the payload that you will submit to start the experiment."
)


def skeleton(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request for a start payload: the payload, and what its magic values stand for."""
    payload: dict[str, Any] = {}
    magic: dict[str, Any] = {}
    options = definition["parameterisation"]["executionOptions"]
    _files(payload, magic, "inputs", "Required", definition["metadata"]["registry"]["inputs"])
    _files(payload, magic, "data", "Optional", options["data"])
    if payload:
        _sources(payload, magic)
    if options["variables"]:
        payload["variables"] = {}
    platforms = _platforms(definition["parameterisation"], payload, magic)
    for option in options["variables"]:
        payload["variables"][option["name"]] = _variable(magic, option, definition, platforms)
    return {"payload": payload, "magicValues": magic, "problems": [], "message": _ADVICE}


def _files(
    payload: dict[str, Any], magic: dict[str, Any], kind: str, need: str, files: list[Mapping[str, Any]]
) -> None:
    for index, name in enumerate(sorted(file["name"] for file in files)):
        value = f"{{{{{need}{kind.capitalize()}_{name}}}}}"
        verb = "must" if need == "Required" else "may"
        magic[value] = {
            "message": f"You **{verb}** give the content of {name} in {kind}[{index}].content, or leave out "
            f"the content and name a place to download it from, see {_ELSEWHERE}."
        }
        payload.setdefault(kind, []).append({"filename": name, "content": value})


def _sources(payload: dict[str, Any], magic: dict[str, Any]) -> None:
    keys = ("accessKeyID", "secretAccessKey", "bucket", "endpoint", "region")
    payload["s3"] = {"dataset": _DATASET, **dict.fromkeys(keys, _S3)}
    magic[_S3] = {"message": f"You **may** name a bucket for files without content; then remove {_DATASET}."}
    magic[_DATASET] = {"message": f"You **may** name a Dataset for files without content; then remove {_S3}."}
    magic[_ELSEWHERE] = {
        "message": "Each file has either a content, or a filename relative to the bucket or Dataset in s3. "
        "Remove the field s3 if all files have a content."
    }


def _platforms(parameterisation: Mapping[str, Any], payload: dict[str, Any], magic: dict[str, Any]) -> list[str]:
    preset = parameterisation["presets"].get("platform")
    platforms = [preset] if preset else list(parameterisation["executionOptions"]["platform"])
    if len(platforms) > 1:
        payload["platform"] = "{{OptionalPlatform}}"
        magic[payload["platform"]] = {
            "message": f"You **may** select one of the platforms {platforms}",
            "choices": platforms,
        }
    return platforms or ["default"]


def _variable(
    magic: dict[str, Any], option: Mapping[str, Any], definition: Mapping[str, Any], platforms: list[str]
) -> str:
    name = option["name"]
    value = f"{{{{OptionalVariable_{name}}}}}"
    choices = None
    if option.get("value") is None and option.get("valueFrom"):
        choices = [choice.get("value") for choice in option["valueFrom"]]
    known = definition["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    entries: list[Mapping[str, str]] = next((entry["valueFrom"] for entry in known if entry["name"] == name), [])
    rule = f"to one of {choices}" if choices else "to any string"
    entry: dict[str, Any] = {
        "message": f"You **may** set variables.{name} {rule}.",
        "choices": choices,
        "defaultFromPlatform": {item["platform"]: item["value"] for item in entries if item["platform"] in platforms},
    }
    default = preset_value(option)
    if default is not None:
        entry["default"] = default
    magic[value] = entry
    return value
