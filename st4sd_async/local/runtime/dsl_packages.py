"""
Experiments written as DSL 2.0: the package around a definition, the definition of a package, and their routes.

Source:
    st4sd-runtime-service, ``apis/utilities.py`` and ``apis/internal_experiments.py``. The service stores definitions
    in a bucket. Here they stay in memory, and only the simulator can run them.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from st4sd_async.local.engine.core_checks import complete_dsl, dsl_from_flowir
from st4sd_async.local.engine.dsl_to_flowir import flowir_from_dsl
from st4sd_async.local.engine.flowir import DEFAULT, fill_in, global_variables, images, input_names, with_defaults
from st4sd_async.local.engine.interface import PackageContent, PackageFacts, PackageProblem
from st4sd_async.local.engine.packages import allowed_platforms as chosen_platforms
from st4sd_async.local.engine.packages import check_variables
from st4sd_async.local.examples.examples import Component, load_examples
from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.cluster import INTERNAL_EXPERIMENTS_SECRET
from st4sd_async.local.runtime.dsl import Dsl, InvalidDsl, Problem, parse, parse_and_check, shown
from st4sd_async.local.runtime.models import ParameterisedPackage, SchemaError, validate
from st4sd_async.local.runtime.registry import Registry, allowed_platforms, default_variables, register
from st4sd_async.local.simulator.packages import COMPONENTS

BUCKET = {"bucket": "st4sd-internal-experiments", "endpoint": "https://s3.example"}
"""The location that stored definitions name, although they are in memory."""
KEYWORD = "internal-experiment"
"""Keyword of generated packages."""
_CREDENTIALS = {
    "valueFrom": {
        "secretName": INTERNAL_EXPERIMENTS_SECRET,
        "keyAccessKeyID": "S3_ACCESS_KEY_ID",
        "keySecretAccessKey": "S3_SECRET_ACCESS_KEY",
    }
}
_ADMINISTRATOR = "contact the administrator of this ST4SD deployment"
_NO_DSL = 'Expected a dictionary with key "dsl" that contains the DSL 2.0 definition of a workflow'
_NO_NAME = 'Missing "pvep.metadata.package.name"'
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class DslPackages:
    """The handlers of ``/utilities/`` and ``/internal-experiments/``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/utilities/dsl", TrailingSlash.REQUIRED, POST=self.validate),
            Route("/utilities/pvep", TrailingSlash.REQUIRED, POST=self.generate),
            Route("/internal-experiments", TrailingSlash.REQUIRED, POST=self.push),
        ]

    def validate(self, request: Request) -> Response:
        """Check a definition."""
        value = request.json()
        if not isinstance(value, dict):
            message = f"Internal error while validating DSL - {_ADMINISTRATOR}"
            problem = "the definition must be a mapping"
            raise HTTPError(500, message, problems=[{"problem": problem, "message": message}])
        _checked(value)
        return json_response({"problems": []})

    def generate(self, request: Request) -> Response:
        """Generate the package for a definition."""
        value = request.json()
        if not isinstance(value, dict) or "dsl" not in value:
            raise HTTPError(400, "Invalid payload", problems=[{"problem": _NO_DSL}])
        template = _package(value["pvep"], "Invalid payload field pvep") if "pvep" in value else None
        package, changes = generate_package(_checked(value["dsl"]), template)
        return json_response({"pvep": package, "changes": changes, "problems": []})

    def push(self, request: Request) -> Response:
        """Check and store a definition and the package around it."""
        value = request.json()
        dsl = _required(value, lambda body: body["workflow"]["dsl"])
        package = _package(
            _required(value, lambda body: body["pvep"]), "Invalid Parameterised Virtual Experiment Package"
        )
        name = package["metadata"]["package"].get("name")
        if not name:
            raise HTTPError(400, _NO_NAME, problems=[{"message": _NO_NAME}])
        complete = _checked(dsl)
        source = {"s3": {"security": {"credentials": _CREDENTIALS}, "location": BUCKET}}
        base = {"packages": [{"source": source, "config": {"path": f"experiments/{name}"}}]}
        definition = validate(ParameterisedPackage, {**package, "base": base})
        content = package_content(complete)
        facts = package_facts(content)
        _check_options(definition, facts)
        keywords = definition["metadata"]["package"]["keywords"]
        keywords += [] if KEYWORD in keywords else [KEYWORD]
        register(definition, facts)
        self._registry.push(definition, content)
        return json_response({"result": definition, "problems": []})


def _checked(value: Any) -> Dsl:
    try:
        return parse_and_check(value)
    except InvalidDsl as error:
        raise HTTPError(400, "Invalid DSL definition", problems=error.problems) from error


def _package(value: Any, message: str) -> dict[str, Any]:
    try:
        return validate(ParameterisedPackage, value)
    except SchemaError as error:
        raise HTTPError(400, message, problems=error.problems) from error


def _required(value: Any, get: Callable[[Any], Any]) -> Any:
    try:
        return get(value)
    except KeyError as error:
        problems = [{"message": f"Missing field {error}"}]
        raise HTTPError(400, "Invalid payload to endpoint", problems=problems) from error
    except TypeError as error:
        message = f"Internal error while registering internal-experiment - {_ADMINISTRATOR}"
        raise HTTPError(500, message, problems=[{"message": str(error)}]) from error


def package_content(dsl: Dsl) -> PackageContent:
    """Return the content of the package for a valid definition."""
    return PackageContent(with_defaults(flowir_from_dsl(shown(dsl, exclude_defaults=True))), dsl=dsl)


def package_facts(content: PackageContent) -> PackageFacts:
    """Return the facts that a push records for a valid definition. Arguments of its entrypoint are variables."""
    flowir = content.flowir
    variables = global_variables(flowir, DEFAULT)
    return PackageFacts(
        version=sha1(json.dumps(content.dsl, sort_keys=True).encode()).hexdigest(),
        inputs=tuple(input_names(flowir, DEFAULT)),
        outputs=tuple(flowir["output"]),
        platforms=tuple(flowir["platforms"]),
        variables={DEFAULT: {name: str(fill_in(str(value), variables)) for name, value in variables.items()}},
        interface=flowir["interface"] or {},
        images=tuple(images(flowir, DEFAULT)),
    )


def _check_options(definition: Mapping[str, Any], facts: PackageFacts) -> None:
    """Reject options for platforms, variables and data files that the package of a definition lacks."""
    options = definition["parameterisation"]["executionOptions"]
    known = {DEFAULT: {"errors": [], "inputs": facts.inputs, "variables": facts.variables[DEFAULT]}}
    try:
        check_variables(known, chosen_platforms({"platforms": known}, definition, "main"), definition)
    except PackageProblem as error:
        raise _invalid_package(str(error)) from error
    files = [
        f"The data file parameterisation.executionOptions.data[{index}].name={file['name']} is not part of "
        "metadata.registry.data"
        for index, file in enumerate(options["data"])
    ]
    if files:
        raise _invalid_package("Invalid parameterised package due to " + "\n".join(files))


def _invalid_package(problem: str) -> HTTPError:
    return HTTPError(400, "Invalid internal experiment payload", problems=[{"message": problem}])


def generate_package(dsl: Dsl, template: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[Problem]]:
    """Return the package for a valid definition, and the changes to the template."""
    package = validate(
        ParameterisedPackage,
        {"base": {"packages": [{"source": {}}]}, "metadata": {"package": {"name": "anonymous"}}},
    )
    register(package, package_facts(package_content(dsl)))
    registry = package["metadata"]["registry"]
    del registry["createdOn"]
    if template is None:
        return package, []
    package["metadata"]["package"] = dict(template["metadata"]["package"])
    keywords = package["metadata"]["package"]["keywords"]
    package["metadata"]["package"]["keywords"] = [*keywords, *([] if KEYWORD in keywords else [KEYWORD])]
    changes = [
        _change("Erased base.packages", "base", "packages"),
        _change("Updated metadata.registry", "metadata", "registry"),
        _change("Inherited metadata.package from template", "metadata", "package"),
    ]
    names = {
        "variables": {variable["name"] for variable in registry["executionOptionsDefaults"]["variables"]},
        "data": {file["name"] for file in registry["data"]},
    }
    for kind, known_names in names.items():
        for part in ("presets", "executionOptions"):
            changes += _inherit(package, template, part, kind, known_names)
    return package, changes


def _inherit(
    package: dict[str, Any], template: Mapping[str, Any], part: str, kind: str, known_names: set[str]
) -> list[Problem]:
    """Copy the known items of one part of the template's parameterisation; return one change per item."""
    changes = []
    for index, option in enumerate(template["parameterisation"][part][kind]):
        location = ("parameterisation", part, kind, index)
        item = f"{part} for {kind.rstrip('s')} {option.get('name')}"
        if option.get("name") in known_names:
            package["parameterisation"][part][kind].append(option)
            changes.append(_change(f"Inherited {item} from template", *location))
        else:
            changes.append(_change(f"Removed {item}", *location))
    return changes


def _change(message: str, *location: str | int) -> Problem:
    return {"message": message, "location": list(location)}


def experiment_dsl(definition: Mapping[str, Any], content: PackageContent | None) -> Dsl:
    """
    Return the DSL of a stored experiment: that of its author or, if it is missing, one converted from its FlowIR.

    Args:
        definition: The definition of the experiment.
        content: The content of its package. None means that the content is unknown.
    """
    dsl = None
    if content is not None and content.dsl is not None:
        dsl = complete_dsl(content.dsl) or parse(content.dsl)
    elif content is not None:
        platforms = allowed_platforms(definition["parameterisation"])
        dsl = dsl_from_flowir(content.flowir, content.folders, platforms[0] if platforms else None)
    return dsl or _made_up_dsl(definition)


def yaml_text(value: Any) -> str:
    """Return a value as YAML text. The keys of dictionaries are sorted, except those of an `OrderedDict`."""
    import yaml

    dumper: Any = type("OrderedDumper", (yaml.SafeDumper,), {})
    dumper.add_representer(OrderedDict, lambda writer, mapping: writer.represent_dict(mapping.items()))
    return str(yaml.dump(value, Dumper=dumper))


def _made_up_dsl(definition: Mapping[str, Any]) -> Dsl:
    """
    Return a made-up DSL of an experiment whose workflow is unknown, in the form that the service generates from FlowIR.

    The components of the example experiments are known. Any other package gets two made-up components.
    """
    registry = definition["metadata"]["registry"]
    variables = default_variables(definition)
    inputs = [entry["name"] for entry in registry["inputs"]]
    data = {f"data.{entry['name']}": f"data/{entry['name']}" for entry in registry["data"]}
    defaults = [{"name": name, "default": value} for name, value in {**data, **variables}.items()]
    components = _components(definition)
    steps = [_step(component, variables, {f"input.{name}" for name in inputs} | set(data)) for component in components]
    signature = {"name": "main", "parameters": [*({"name": f"input.{name}"} for name in inputs), *defaults]}
    arguments = {**variables, **{f"input.{name}": f"input/{name}" for name in inputs}, **data}
    return parse(
        {
            "entrypoint": {
                "entry-instance": "main",
                "execute": [{"target": "<entry-instance>", "args": arguments}],
            },
            "workflows": [
                {
                    "signature": signature,
                    "steps": {component.reference: component.reference for component in components},
                    "execute": [call for call, _ in steps],
                }
            ],
            "components": [template for _, template in steps],
        }
    )


def _components(definition: Mapping[str, Any]) -> Sequence[Component]:
    source = definition["base"]["packages"][0]["source"]
    url = urlsplit((source.get("git") or {}).get("location", {}).get("url", ""))
    name = PurePosixPath(unquote(url.path)).name
    example = load_examples().get(name) if url.scheme == "file" else None
    return example.components if example else COMPONENTS


def _step(component: Component, variables: Mapping[str, str], files: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call of a component and its template. Everything that the component refers to becomes a parameter."""
    arguments: dict[str, str] = {}
    words: list[str] = []
    for word in component.arguments:
        name = _PLACEHOLDER.fullmatch(word)
        if name and name[1] in variables:
            arguments[name[1]] = f"%({name[1]})s"
            words.append(f"%({name[1]})s")
        elif word.startswith("{instance}/"):
            key = f"param{len(arguments)}"
            arguments[key] = _reference(word.removeprefix("{instance}/"), files, "ref")
            words.append(f"%({key})s")
        else:
            words.append(word)
    for path in component.copies:
        arguments[f"param{len(arguments)}"] = _reference(path, files, "copy")
    call = {"target": f"<{component.reference}>", "args": arguments}
    signature = {"name": component.reference, "parameters": [{"name": name} for name in arguments]}
    command = {"executable": component.script, "arguments": " ".join(words)}
    return call, {"signature": signature, "command": command}


def _reference(path: str, files: set[str], method: str) -> str:
    """Return a reference to a file of the instance directory, in the form used in workflows."""
    step = re.fullmatch(r"stages/(stage\d+)/([^/]+)/(.+)", path)
    if step:
        return f"<{step[1]}.{step[2]}>/{step[3]}:{method}"
    parameter = path.replace("/", ".", 1)
    return f"%({parameter})s:{method}" if parameter in files else f"{path}:{method}"
