"""The failure of a run: its failed components, with the last lines of their output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.printable import printable, shorten
from .hints import FAILED, Reason, with_hint

if TYPE_CHECKING:
    from .._render.cards import Card
    from .runs import Status

MAX_LINES = 20
"""Maximum number of lines of a log; the last lines are kept."""
MAX_LINE_LENGTH = 300
"""Maximum length of such a line."""
MAX_COMPONENTS = 5
"""Maximum number of failed components whose output is fetched and shown. The others are counted."""
MAX_NAMED = 1000
"""Maximum number of failed components in a `Failure`."""
MAX_REASON_LENGTH = 100
"""Maximum length of a reason."""
EXCERPT_LINES = 5
"""Number of lines of a log in an excerpt."""
MAX_GIST_LENGTH = 250
"""Maximum length of a gist."""
ADVICE = "the last lines are below; `await run.stderr()` and `await run.stdout()` return all of them"
"""Advice in a card that shows the output of components."""

_REFERENCE = re.compile(r"stage[0-9]{1,6}\.[!-~]{1,250}")
_JOB = re.compile(r"Job: (stage[0-9]{1,6}\.[!-~]{1,250})\. Returncode (-?[0-9]{1,9})\. Reason ([!-~]{1,100})")
"""Pattern of a failed component. Source: the error descriptions of the orchestrator."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def last_lines(text: str, count: int = MAX_LINES) -> str:
    """
    Return the last lines of a text, printable, without colours and without empty lines at the end.

    Of a line that overwrote itself, such as a progress bar, the last state is kept. Long lines are cut.
    """
    lines = [line.rstrip().rpartition("\r")[2] for line in _COLOUR.sub("", text).rstrip().split("\n")[-count:]]
    return "\n".join(_cut(printable(line.expandtabs(4))) for line in lines)


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[: MAX_LINE_LENGTH - 6]} [...]"


def has_failed(status: Status) -> bool:
    """Return whether the run failed or was stopped, according to its status; it may still be active."""
    hint = status.hint
    return not status.is_success and (status.is_final or (hint is not None and hint.reason in FAILED))


@document_fields
@dataclass(frozen=True)
class ComponentFailure:
    """A component that failed."""

    reference: str
    """Stage and name, such as ``stage0.Compute``."""
    reason: str = ""
    """Exit reason of its last task, as named by the orchestrator: ``KnownIssue``, ``Killed``... "" if unknown."""
    return_code: int | None = None
    """Return code of its last task. 1 if it comes from the error description. None if unknown."""
    stderr: str = ""
    """Last lines of its standard error; "" if it is empty or not served."""
    stdout: str = ""
    """Last lines of its standard output; "" if it is empty or not served. On Kubernetes it includes standard error."""

    def __str__(self) -> str:
        return shorten(f"{self.reference} failed{self._details}", MAX_LINE_LENGTH)

    @property
    def gist(self) -> str:
        """The component and its last line of output, on one line."""
        last = (self.stderr or self.stdout).rpartition("\n")[2].strip()
        if not last:
            return shorten(str(self), MAX_GIST_LENGTH)
        return shorten(f"{self.reference}: {shorten(last, MAX_GIST_LENGTH - 80)}{self._details}", MAX_GIST_LENGTH)

    @property
    def _details(self) -> str:
        code = "" if self.return_code is None else f"return code {self.return_code}"
        known = ", ".join(filter(None, (code, self.reason)))
        return f" ({known})" if known else ""


@document_fields
@dataclass(frozen=True)
class Failure(Displayable):
    """
    Why a run failed, as far as the services show.

        failure = await run.failure()
        print(failure)                                   # all of it
        for component in failure.components:
            print(component.reference, component.return_code, component.stderr)

    All strings are printable. Logs have at most 20 lines of at most 300 characters. `Client.stderr`, `Client.stdout`
    and `Client.log` return all lines.
    """

    rest_uid: str
    """The rest-uid of the run."""
    status: Status
    """The status of the run."""
    components: tuple[ComponentFailure, ...] = ()
    """Failed components; the first 5 have their output. () if none failed, for example if the set-up failed."""
    log: str = ""
    """Last lines of the orchestrator's log; "" if a component failed, or if the log is not served."""
    note: str = ""
    """Why logs are missing; "" if all are there."""

    @property
    def gist(self) -> str:
        """The reason on one line."""
        if self.components:
            others = len(self.components) - 1
            more = f", and {others:,} more component{'s' if others > 1 else ''}" if others else ""
            return f"{self.components[0].gist}{more}"
        hint = self.status.hint
        return shorten((hint.gist or hint.advice) if hint else str(self.status), MAX_GIST_LENGTH)

    def excerpt(self, lines: int = EXCERPT_LINES) -> str:
        """
        Return each failed component with its last lines or, if none failed, the error description and the log.

        Args:
            lines: Number of lines of each log. Standard output is omitted if a component has standard error.
        """
        return self._text(lines, is_short=True)

    def __str__(self) -> str:
        return self._text(MAX_LINES, is_short=False)

    def _text(self, lines: int, *, is_short: bool) -> str:
        hint = self.status.hint
        what = hint.reason.replace("_", " ") if hint else str(self.status.exit_status or "not over")
        pieces = [f"{printable(self.rest_uid)}: {what}", *self._description(lines)]
        for component in self.components[:MAX_COMPONENTS]:
            texts = {"standard error": component.stderr, "standard output": component.stdout}
            pieces += [f"  {component}", *_indented(texts, lines, is_short=is_short)]
        if (others := len(self.components) - MAX_COMPONENTS) > 0:
            pieces.append(f"  and {others} more components")
        pieces += _indented({"log of the orchestrator": self.log}, lines, is_short=False)
        return "\n".join([*pieces, *([f"  {self.note}"] if self.note else [])])

    def _description(self, lines: int) -> list[str]:
        """Return the lines of the error description; [] if components failed, which say more."""
        hint = self.status.hint
        if self.components or hint is None:
            return []
        text = last_lines(hint.text or hint.advice, lines)
        return [f"  {line}" for line in text.split("\n")]

    def _card(self) -> Card:
        from .._render.cards import Card, Tone
        from .runs import status_summary

        hint, badge = self.status.hint, status_summary(self.status).badge
        card = Card(self.rest_uid, kind="failure", badge=badge)
        if hint is not None:
            card = with_hint(card, hint, Tone.BAD)
        return with_failure(card, self)


def with_failure(card: Card, failure: Failure) -> Card:
    """Return a card with the reason of a failure as its alert, and with the last lines of logs."""
    logs = tuple(
        (f"{name} of {component.reference}", text)
        for component in failure.components[:MAX_COMPONENTS]
        for name, text in (("standard error", component.stderr), ("standard output", component.stdout))
        if text
    )
    if failure.log:
        logs = (("log of the orchestrator", failure.log),)
    card = replace(card, logs=logs, notes=(*card.notes, failure.note) if failure.note else card.notes)
    if not failure.components:
        return card
    hint = failure.status.hint
    reason = (hint.reason if hint else Reason.COMPONENT_FAILED).replace("_", " ")
    return replace(card, alert=f"{reason}: {failure.gist}", words="", advice=ADVICE if logs else "")


def _indented(texts: dict[str, str], lines: int, *, is_short: bool) -> Iterator[str]:
    """Yield the last lines of logs below their names; if ``is_short``, only those of the first non-empty log."""
    for name, text in texts.items():
        if not text:
            continue
        kept = text.split("\n")
        if is_short:
            yield from (f"    {line}".rstrip() for line in kept[-lines:])
            return
        yield f"    {name}:"
        yield from (f"      {line}".rstrip() for line in kept[-lines:])


def is_reference(text: str) -> bool:
    """Return whether a string is printable and has the form of a component's reference, ``stage0.Compute``."""
    return _REFERENCE.fullmatch(text) is not None


def described_components(status: Status) -> dict[str, ComponentFailure]:
    """Return reference -> failed component, from the error description of a status."""
    found = _JOB.findall(status.error_description or "")[:MAX_NAMED]
    return {name: ComponentFailure(name, reason, int(code)) for name, code, reason in found}
