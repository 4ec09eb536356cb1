"""
The components of a simulated run, as in the datastore's documents, and the output of ``echo`` and ``cat``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from st4sd_async.local.engine.flowir import Reference, parse_reference
from st4sd_async.local.examples.examples import Component

STDOUT = "out.stdout"
EXECUTED = ("echo", "cat")
"""The programs whose output is simulated."""


@dataclass(frozen=True, eq=False)
class RunComponent:
    """A component of a run."""

    stage: int
    """The index of its stage."""
    name: str
    """Its name; that of a replica ends with its number."""
    flowir: Mapping[str, Any]
    """Its definition, with inherited fields and with variables replaced by their values."""
    references: tuple[Reference, ...]
    """Its references to files."""
    producers: Mapping[str, list[str]]
    """Reference of each component that it depends on -> the files that it uses."""

    @classmethod
    def from_flowir(cls, flowir: Mapping[str, Any], folders: Iterable[str]) -> RunComponent:
        """Create a component from its FlowIR and the names of the package's folders."""
        stage = int(flowir["stage"])
        references = tuple(parse_reference(text, stage, folders) for text in flowir["references"])
        producers: dict[str, list[str]] = {}
        for reference in references:
            if reference.stage is not None:
                path = STDOUT if reference.method.endswith("output") else reference.path
                files = producers.setdefault(reference.target, [])
                files += [path] if path is not None and path not in files else []
        return cls(stage, str(flowir["name"]), flowir, references, producers)

    @classmethod
    def from_example(cls, component: Component, variables: Mapping[str, str]) -> RunComponent:
        """Create a component from one of an example, without inherited fields."""
        flowir = {
            "stage": component.stage,
            "name": component.name,
            "command": {"executable": "python3", "arguments": component.command_line(variables)},
            "references": component.references,
            "variables": dict(variables),
            "resourceManager": {"config": {"backend": "local", "walltime": 60.0}},
        }
        references = tuple(parse_reference(text) for text in component.references)
        return cls(component.stage, component.name, flowir, references, component.producers)

    @property
    def directory(self) -> str:
        """Its directory relative to the instance directory: ``stages/stage0/Compute``."""
        return f"stages/stage{self.stage}/{self.name}"

    @property
    def reference(self) -> str:
        """Its reference: ``stage0.Compute``."""
        return f"stage{self.stage}.{self.name}"


def standard_output(component: RunComponent, instance: Path) -> str | None:
    """
    Return the standard output of a component whose program is ``echo`` or ``cat``.

    None means that it has another program, which is not simulated, or that a file is missing.

    Args:
        component: The component.
        instance: The instance directory, which contains the files that the component uses.
    """
    program = PurePath(str(component.flowir["command"]["executable"])).name
    if program not in EXECUTED:
        return None
    try:
        words = shlex.split(_arguments(component, instance))
        texts = words if program == "echo" else [_read(component, instance, word) for word in words]
    except (OSError, ValueError):
        return None
    return " ".join(texts) + "\n" if program == "echo" else "".join(texts)


def _arguments(component: RunComponent, instance: Path) -> str:
    """Return the arguments, with each reference replaced by the path or the output that it refers to."""
    arguments = str(component.flowir["command"]["arguments"])
    for reference in component.references:
        path = reference.producer if reference.stage is None else f"stages/stage{reference.stage}/{reference.producer}"
        if reference.method == "output":
            text = (_inside(instance, f"{path}/{reference.path or STDOUT}")).read_text().rstrip("\n")
        elif reference.method == "ref":
            text = str(instance / path / (reference.path or ""))
        else:
            continue
        for spelling in (str(reference), str(reference).removeprefix(f"stage{reference.stage}.")):
            arguments = arguments.replace(spelling, text)
    return arguments


def _read(component: RunComponent, instance: Path, word: str) -> str:
    """Return the text of the file of the instance that an argument names."""
    return _inside(instance, str(instance / component.directory / word)).read_text()


def _inside(instance: Path, path: str) -> Path:
    """Return an absolute path; raise `ValueError` if it is outside of the instance directory."""
    found = (instance / path).resolve()
    if not found.is_relative_to(instance.resolve()):
        raise ValueError(f"{path!r} is not in the instance")
    return found
