"""What to say of each thing that this package gives: its card."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import singledispatch
from typing import Any

from .._batch.batch import Batch
from .._batch.item import Item
from .._batch.state import BAD_ENDS, State
from .._errors import APIError
from .._run import Run
from .._util.printable import shorten
from ..models import Download, DownloadFailed, Experiment, KeyOutput, Properties, Status
from ..models.hints import Hint
from ..models.packages import ExecutionOptions
from .cards import (
    Badge,
    Card,
    Look,
    Table,
    Tone,
    badge_of,
    bar_of,
    counted,
    facts_of,
    left_out,
    listed,
    overview,
    parts_of,
    size_of,
    tone_of,
    why,
)

MOST_MEASURED = 20
"""Rows of a table of measured properties."""
MOST_PROBLEMS = 5
"""Reasons that are told beside such a table."""
LONGEST_PROBLEM = 240
"""Characters of one of them."""
LONGEST_WORDS = 4000
"""Characters of a text of the service that is shown whole."""


@singledispatch
def card(thing: object) -> Card:
    """What to say of a thing."""
    raise TypeError(f"nothing is known to say of {type(thing).__name__}")


@card.register
def _(status: Status) -> Card:
    stage = status.current_stage or ""
    if stage and status.stages and stage in status.stages:
        stage = f"{stage} ({status.stages.index(stage) + 1} of {len(status.stages)})"
    meta = status.meta
    given = meta.user_variables.get("global") if meta else None
    facts = {
        "state": listed([status.experiment_state, status.exit_status]),
        "stage": stage,
        "variables": _assigned(given),
        "platform": meta.platform if meta else None,
    }
    told = Card("", kind="status", badge=badge_of(status), bar=bar_of(status), facts=facts_of(facts))
    return told if status.hint is None else _warned(told, status.hint, tone_of(status))


def _warned(told: Card, hint: Hint, tone: Tone) -> Card:
    reason, words = hint.reason.replace("_", " "), (hint.text or "").strip()
    is_new = " ".join(words.split()) != hint.gist
    alert = f"{reason}: {hint.gist}" if hint.gist else reason
    return replace(told, alert=alert, advice=hint.advice, words=words[:LONGEST_WORDS] if is_new else "", tone=tone)


def of_run(rest_uid: str, status: Status) -> Card:
    """What to say of a run whose status is known."""
    return replace(card(status), title=rest_uid, kind="run")


@card.register
def _(run: Run) -> Card:
    ways = "run.show() follows it to its end, run.status() says how it is now, run.outputs() what is there"
    return Card(run.id, kind="run", facts=facts_of({"client": repr(run.client)}), notes=(ways,))


@card.register
def _(experiment: Experiment) -> Card:
    package, registry = experiment.metadata.package, experiment.metadata.registry
    options, presets = experiment.parameterisation.execution_options, experiment.parameterisation.presets
    facts = {
        "identifier": experiment.identifier,
        "tags": listed(experiment.tags),
        "description": package.description or registry.interface.description,
        "source": listed(_sources(experiment)),
        "inputs": listed(one.name for one in registry.inputs),
        "data": listed(one.name for one in registry.data),
        "variables": _settable(options),
        "fixed": listed(f"{one.name} = {one.value}" for one in presets.variables),
        "platforms": listed(options.platform or registry.platforms),
        "outputs": listed(one.name for one in registry.output),
        "measures": listed(registry.interface.property_names),
        "keywords": listed(package.keywords),
        "started": None if registry.times_executed is None else f"{registry.times_executed} times",
    }
    return Card(str(experiment.name), kind="experiment", facts=facts_of(facts))


def _sources(experiment: Experiment) -> list[str]:
    """Where the packages come from, without credentials in their addresses."""
    found = []
    for package in experiment.base.packages:
        place = package.source.git.location if package.source and package.source.git else None
        if place is not None and place.url:
            at = next((one for one in (place.tag, place.branch, place.commit) if one), None)
            found.append(re.sub(r"//[^/]*@", "//", place.url) + (f" at {at}" if at else ""))
    return found


def _settable(options: ExecutionOptions) -> str:
    told = []
    for one in options.variables:
        choices = [str(choice.get("value")) for choice in one.choices]
        told.append(f"{one.name} ({' or '.join(choices) if choices else f'usually {one.value}'})")
    return listed(name.removesuffix(" (usually None)") for name in told)


@card.register
def _(output: KeyOutput) -> Card:
    badge = None
    if output.final is not None:
        badge = Badge("final", Tone.GOOD) if output.final else Badge("may change", Tone.WAITING)
    facts = {
        "path": output.filepath,
        "description": output.description,
        "type": output.type,
        "version": output.version,
        "made": None if output.created is None else f"{output.created:%Y-%m-%d %H:%M:%S %Z}",
    }
    return Card(output.filename or "a file", kind="key-output", badge=badge, facts=facts_of(facts))


@card.register
def _(table: Properties) -> Card:
    numbers = {
        place for place, name in enumerate(table.columns) if all(isinstance(one, int | float) for one in table[name])
    }
    rows = tuple(tuple(_value(value) for value in row) for row in table.rows[:MOST_MEASURED])
    more = left_out(len(table) - len(rows), "row")
    problems = [f"{run}: {shorten(str(why), LONGEST_PROBLEM)}" for run, why in table.problems.items()]
    left = left_out(len(problems) - MOST_PROBLEMS, "run")
    return Card(
        counted(len(table), "measurement"),
        kind="properties",
        alert=f"nothing of {counted(len(problems), 'run')}" if problems else "",
        advice="; ".join([*problems[:MOST_PROBLEMS], *([left] if left else [])]),
        tone=Tone.WAITING,
        table=Table(table.columns, rows, more, frozenset(numbers if rows else ())),
    )


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@card.register
def _(file: Download) -> Card:
    facts = {"size": size_of(file.size), "source": file.source, "sha256": file.sha256}
    return Card(str(file.path), kind="download", badge=Badge("whole", Tone.GOOD), facts=facts_of(facts))


@card.register
def _(file: DownloadFailed) -> Card:
    badge, facts = Badge("failed", Tone.BAD), facts_of({"source": file.source})
    return _failed(Card(str(file.path), kind="download", badge=badge, facts=facts), file.error)


def _failed(told: Card, error: Exception) -> Card:
    return replace(told, alert=f"{type(error).__name__}: {shorten(_words(error))}", advice=str(error))


def _words(error: Exception) -> str:
    """What to say first of an error: where it is cut, the service's words are left, not where the request went."""
    return error.message if isinstance(error, APIError) else str(error)


_TONES = {
    State.SUCCEEDED: Tone.GOOD,
    State.COLLECTED: Tone.GOOD,
    State.STARTED: Tone.BUSY,
    State.SENDING: Tone.BUSY,
    State.UNKNOWN: Tone.WAITING,
    State.PLANNED: Tone.QUIET,
    **dict.fromkeys(BAD_ENDS, Tone.BAD),
}


def state_badge(state: str) -> Badge:
    """The word for a launch."""
    return Badge(state, _TONES[State(state)])


@card.register
def _(item: Item) -> Card:
    facts = {
        "experiment": item.experiment,
        "run": item.run,
        "attempt": item.attempt if item.attempt > 1 else None,
        "files": listed(map(str, item.files)),
    }
    told = Card(item.key, kind="launch", badge=state_badge(item.state), facts=facts_of(facts))
    hint = item.status.hint if item.status else None
    if hint is not None and item.state in BAD_ENDS:
        return _warned(told, hint, Tone.BAD)
    return told if item.error is None else _failed(told, item.error)


@card.register
def _(batch: Batch) -> Card:
    states = [State.COLLECTED, State.SUCCEEDED, State.STARTED, State.SENDING, State.UNKNOWN, State.PLANNED]
    counts = {state_badge(state): batch.counts[state] for state in [*states, *sorted(BAD_ENDS)]}
    rows = batch._book.rows  # of thousands only those that are shown are worth being read whole

    def look(key: str) -> Look:
        badge = state_badge(rows[key].state)
        is_fine = badge.tone in (Tone.GOOD, Tone.BUSY, Tone.QUIET) and rows[key].error is None
        return Look(badge, why="" if is_fine else _trouble(batch._item(rows[key])))

    looks = {key: look(key) for key in rows}
    title = counted(len(rows), "launch")
    return Card(title, kind=f"batch in {batch._journal.name}", parts=parts_of(counts), table=overview("launch", looks))


def _trouble(item: Item) -> str:
    found = why(item.status) if item.status and item.state in BAD_ENDS else ""
    return found or ("" if item.error is None else _words(item.error))


def _assigned(values: Any) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items()) if isinstance(values, dict) else ""
