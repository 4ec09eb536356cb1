"""
Everything this library raises on purpose.

    St4sdError
      ConfigError                 a setting is bad or missing
      TransportError              no usable reply came
        ConnectFailed             nothing was sent: refused, unknown host, certificate, connect timeout
        TimedOut                  the service was silent for too long
        ConnectionLost            the connection broke after the request may have been sent
        CredentialUnavailable     nothing was sent: the file or provider of the credential gave none; a ConfigError too
      APIError                    the service (or the proxy in front of it) refused
        Unauthorized              the sign-in page, 401, 403
        NotFound -> UnknownExperiment, UnknownRun, UnknownOutput, UnknownProperty, and in `_refusals`:
            UnknownRelationship, UnknownGraph, UnknownPullSecret, UnknownService, UnknownRuntimePolicy, NoProperties,
            NoToken
        Conflict -> AlreadyExists -> GraphExists; NameTaken
        BadRequest -> InvalidPackage, NotReady, InvalidPayload, and in `_refusals`: CannotUntagLatest,
            NotAFolder, OutsideOfFolder, Disabled, LocalDeployment, InvalidDefinition
          InvalidPackage -> InvalidName, MissingRequirements, DigestMismatch
          InvalidPayload -> MissingInputs, ExtraInputs, InputConflict, PayloadTooLarge, InvalidFlowIR,
            InaccessibleRegistries
          InvalidDefinition -> InvalidRelationship, InvalidDSL -> InvalidGraph; InvalidQuery
        RateLimited, ServerError
      DecodeError                 a good reply that is not what was promised
      DownloadError               what came is not whole, or cannot be stored
        UnsafeArchive             an archive that may do harm when it is unpacked
      S3Error                     a bucket refused, broke off or could not be reached
      OutcomeUnknown -> StartOutcomeUnknown: it may or may not have happened
      JournalError -> JournalLocked, JournalCorrupt, LaunchConflict, in `_journal_errors`: a journal cannot be used so
      NoCredentials               there too: a launch of a batch lacks what its journal does not keep
      RunFailed                   the run ended, not well
      RunDeleted                  the run was deleted while it was watched
      WaitTimeout                 the wait ended, the runs go on

Nothing here holds a credential, a request body or an exception of the HTTP engine.

Every error can be pickled and copied, with its text, notes and attributes; `St4sdError` sees to it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote

from ._util.printable import LAYOUT, one_line, printable
from ._util.problems import Problem as Problem  # whoever catches an error finds what it holds beside it
from ._util.problems import problems_in

if TYPE_CHECKING:
    from .models import Status

E = TypeVar("E", bound="St4sdError")

LONGEST_MESSAGE = 500  # characters; longer words of a server are cut in the middle


def shorten(text: str, limit: int = LONGEST_MESSAGE) -> str:
    """Return the text on one printable line; an ellipsis replaces its middle beyond ``limit`` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit * 2 // 3]} [...] {line[-(limit // 3 - 7) :]}"


class St4sdError(Exception):
    """
    Root of everything this library raises on purpose.

    Safe to pickle and to copy, so that an error raised in a worker process arrives as it was: class, text, notes and
    attributes. As with every exception, cause, context and traceback do not travel. An attribute that a program added
    and that cannot be pickled, such as a lock or a `Client`, arrives as its `repr`; a copy keeps it.

    Its text is one line without control characters, whatever a server said; the attributes have it as it came.
    """

    def __str__(self) -> str:
        return one_line(self._text())

    def add_note(self, note: str, /) -> None:
        """Add a text that a traceback shows below the message; control characters in it are escaped too."""
        super().add_note(printable(note, LAYOUT))

    def _text(self) -> str:
        """Return the message; a class that composes it overrides this and not ``__str__``."""
        return super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), {name: _portable(value) for name, value in vars(self).items()}

    def __copy__(self) -> Self:
        copied = _restored(type(self), self.args)
        notes = {name: list(value) for name, value in vars(self).items() if name == "__notes__"}
        vars(copied).update(vars(self) | notes)
        return copied


def _restored(cls: type[E], arguments: tuple[object, ...]) -> E:
    """An error without its attributes; `__init__` is not called, because it makes its text from other arguments."""
    error = cls.__new__(cls)
    error.args = arguments
    return error


def _portable(value: object) -> object:
    """The value, or its `repr` if it cannot be pickled."""
    try:
        pickle.dumps(value)
    except Exception:  # each type refuses in its own way
        return repr(value)
    return value


class ConfigError(St4sdError, ValueError):
    """A setting is bad or missing; the message names it."""


class TransportError(St4sdError):
    """No usable reply came."""

    situation = "got no usable reply"
    permanent = False
    """Whether another attempt must end alike, as with a refused certificate."""

    def __init__(self, method: str, url: str, reason: str, *, sent: bool | None = None) -> None:
        self.method, self.url = method, url
        """HTTP method of the request, and where it was sent."""
        self.reason = reason
        """What the network said."""
        self.sent = sent
        """False: proven never sent. None: it may have arrived."""
        self.attempts = 1
        """How many attempts were made in all."""
        super().__init__(method, url, reason)

    @property
    def request(self) -> str:
        """Method and address of the request."""
        return f"{self.method} {self.url}"

    def _text(self) -> str:
        tries = f" (attempt {self.attempts})" if self.attempts > 1 else ""
        return shorten(f"{self.request} {self.situation}{tries}: {self.reason}")


class ConnectFailed(TransportError):
    """Nothing was sent: the connection was refused, or the host, its name or its certificate would not do."""

    situation = "could not connect (is the url right, can this machine reach it?)"

    is_unresolved = False
    """Whether the name of the host does not resolve."""
    is_silent = False
    """Whether there was neither a connection nor a refusal: the host may not be there, or a firewall in between."""

    def __init__(self, method: str, url: str, reason: str, *, permanent: bool = False) -> None:
        super().__init__(method, url, reason, sent=False)
        self.permanent = permanent


class CredentialUnavailable(TransportError, ConfigError):
    """
    Nothing was sent: the credential's file cannot be read, or its provider failed or gave none.

    Tried again for as long as a service that cannot be reached, because a file may be about to be rewritten, and a
    vault be restarting. A file or provider that never gave a credential fails at once: it is more likely wrong.
    ``__cause__`` is what the provider raised, unless that quotes a credential.
    """

    situation = "was not sent, for lack of a credential"

    def __init__(self, method: str, url: str, reason: str, *, permanent: bool = False) -> None:
        super().__init__(method, url, reason, sent=False)
        self.permanent = permanent


class TimedOut(TransportError):
    """The service was silent for longer than ``Config.timeout``; the request may have arrived."""

    situation = "got no answer in time"


class ConnectionLost(TransportError):
    """The connection broke after the request may have arrived, or the reply was cut short."""

    situation = "lost the connection"
    is_cut = False
    """Whether the reply had begun, and was cut short."""


class APIError(St4sdError):
    """The service, or the proxy in front of it, refused."""

    situation = "was refused with {}"
    """What became of the request, with room for the HTTP status."""
    advice = ""
    """What to do next, where the situation tells."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        method: str = "",
        url: str = "",
        detail: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        """The service's words."""
        self.status = status
        """HTTP status; None if the request was refused here, before it was sent."""
        self.method, self.url = method, url
        """HTTP method, and where it was sent."""
        self.detail = dict(detail or {})
        """The JSON body of the refusal, {} if there was none."""
        self.retry_after = retry_after
        """Seconds the service asked to wait, None if it did not."""
        self.attempts = 1
        """How many attempts were made in all."""
        super().__init__(message)

    def _text(self) -> str:
        tried = f"{self.method} {self.url} {self.situation.format(self.status)}: " if self.status else ""
        return "; ".join(part for part in (shorten(f"{tried}{self.message}").rstrip("."), self.advice) if part)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Unauthorized(APIError):
    """The credentials were refused: the sign-in page, 401 or 403."""

    token_page = ""
    """Address of the page where a new token is to be had."""
    last_statuses: Mapping[str, Status | None] = {}
    """If this ended a wait: rest-uid -> the last status seen."""


class NotFound(APIError):
    """The service does not know what was asked for."""

    in_place_of_words = "the service does not know it"
    """What to say where the service says nothing of use."""


class UnknownExperiment(NotFound):
    """No experiment has this identifier."""

    advice = "list what there is with client.experiments.list()"

    @property
    def identifier(self) -> str:
        """The identifier, "" if the service does not repeat it."""
        keys = ("unknownExperiment", "packageNotFound", "parameterisedPackageNotFound")
        return next((str(self.detail[key]) for key in keys if key in self.detail), "")


class UnknownRun(NotFound):
    """No instance has this rest-uid; it never had, or was deleted."""

    situation = "found no such run ({})"
    in_place_of_words = "it was deleted already, or never was"
    advice = "list what there is with client.instances.list()"

    @property
    def rest_uid(self) -> str:
        """The rest-uid: the service's word, or the one that was asked for; "" if neither is there."""
        asked = unquote(self.url.partition("/instances/")[2].partition("/")[0].partition("?")[0])
        return str(self.detail.get("unknownRestUID") or self.detail.get("unknownInstanceId") or asked)


class UnknownOutput(NotFound):
    """The instance has no key-output of this name, or not yet, or no such file in it."""

    name: str = ""
    """The key-output asked for."""
    known: tuple[str, ...] = ()
    """The key-outputs it has by now."""


class UnknownProperty(NotFound):
    """The instance measured properties, but none of this name."""

    names: tuple[str, ...] = ()
    """The columns that were asked for and are not there, in lower case."""
    known: tuple[str, ...] = ()
    """The columns it has; () if nobody could be asked."""


class Conflict(APIError):
    """It contradicts what is there."""


class AlreadyExists(Conflict):
    """Something of this name exists already."""


class BadRequest(APIError):
    """The request makes no sense to the service."""


class InvalidPackage(BadRequest):
    """The definition of the experiment, or the package it points to, will not do."""

    @property
    def reason(self) -> str:
        """The service's account of what is wrong, with line breaks; "" if it is in `message`."""
        return str(self.detail.get("invalidVirtualExperimentDefinition") or self.detail.get("problem") or "")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, entry by entry; () if the service did not tell it so."""
        return problems_in(self.detail.get("problems") or self.detail.get("invalidVirtualExperimentDefinition"))


class InvalidPayload(BadRequest):
    """The start payload will not do; nothing was started."""

    advice = "client.payload(experiment) gives one to fill in, which knows what the experiment takes"
    remedy = ""
    """What to do about a file, where the service only names it."""
    problems: tuple[Problem, ...] = ()
    """What is wrong, entry by entry; () if the service only said so in `message`."""
    names: tuple[str, ...] = ()
    """The files concerned."""

    @classmethod
    def before_sending(
        cls, problems: Iterable[Problem], names: Iterable[str] = (), outcome: str = "the start payload was not sent"
    ) -> InvalidPayload:
        """The error for a payload that was checked here, and for which nothing was sent."""
        found = tuple(problems)
        error = cls(f"{outcome}: " + "; ".join(f"{where}: {what}" for where, what in found))
        error.problems, error.names = found, tuple(names)
        error.advice = cls.advice if cls is PayloadTooLarge else ""
        return error


class MissingInputs(InvalidPayload):
    """The experiment needs input files that the payload does not have."""

    remedy = "add the file {!r}, which the experiment needs"


class ExtraInputs(InvalidPayload):
    """The payload has input files that the experiment does not take."""

    remedy = "leave out the file {!r}, which the experiment does not take"


class InputConflict(InvalidPayload):
    """A file name is used both in ``inputs`` and in ``data``."""

    remedy = "give the file {!r} once, in inputs or in data"


class PayloadTooLarge(InvalidPayload):
    """The request is over the 1 MiB that the proxy lets through."""

    advice = "client.stage_inputs brings big files through a bucket; a dataset or a volume will do too"


class NotReady(BadRequest):
    """It is not there yet: ask again later."""


class RateLimited(APIError):
    """Too many requests."""


class ServerError(APIError):
    """The service, or the proxy in front of it, failed."""


class DecodeError(St4sdError):
    """A good reply that is not what was promised."""

    def __init__(self, method: str, url: str, problem: str, *, path: str = "", body: str = "") -> None:
        self.method, self.url = method, url
        """HTTP method, and where it was sent."""
        self.path, self.body = path, shorten(body)
        """First field that is wrong, "" if it is the whole, and what came, at most 500 characters of it."""
        where, shown = f" at {path!r}" if path else "", f": {self.body!r}" if self.body else ""
        super().__init__(shorten(f"{method} {url} was answered with {problem}{where}{shown}"))


class DownloadError(St4sdError):
    """A file did not come whole, or could not be stored; nothing half of it was left under its name."""

    advice = "make sure there is room and nothing else of that name, and download it again"

    def __init__(self, path: str, problem: str, *, received: int = 0, advice: str | None = None) -> None:
        self.advice = advice or self.advice
        """What to do next."""
        self.problem = problem
        """What is wrong."""
        self.path, self.received = path, received
        """The file that came or should have come, and how many bytes of it there were."""
        super().__init__(f"{shorten(f'{path!r}: {problem}', LONGEST_MESSAGE - 150)}; {self.advice}")


class UnsafeArchive(DownloadError):
    """An archive that may do harm when it is unpacked, so nothing of it was."""

    advice = "nothing of it was unpacked: look into it with care, or fetch what you need file by file"


class S3Error(St4sdError):
    """A bucket refused, broke off or could not be reached; nothing half of a file is in it or on disk."""

    def __init__(self, name: str, bucket: str, problem: str, *, status: int | None = None, code: str = "") -> None:
        self.name, self.bucket, self.problem = name, bucket, problem
        """The file or key concerned, the bucket, and what is wrong."""
        self.status, self.code = status, code
        """HTTP status, None if nothing was answered; and the service's word for it, as ``NoSuchBucket``, or ""."""
        super().__init__(shorten(f"{name!r} and the bucket {bucket!r}: {problem}"))


class OutcomeUnknown(St4sdError):
    """The request may have been carried out or not; it was not repeated, because that could do it twice."""

    advice = "look whether it is there before you try again"

    def __init__(self, what: str, reason: str) -> None:
        self.reason = reason
        """What happened to the request."""
        super().__init__(shorten(f"whether {what} is unknown: {reason}", LONGEST_MESSAGE - 250) + f"; {self.advice}")


class StartOutcomeUnknown(OutcomeUnknown):
    """An instance may or may not have been started; it was not tried again."""

    advice = (
        "look for it in client.instances.list() before you start it again; "
        "once it runs, its status.meta.user_metadata there is the metadata you gave it"
    )
    key: str | None = None
    """Key of the launch in its batch; None outside of a batch."""
    candidates: tuple[str, ...] = ()
    """rest-uids of instances that may be the one, where they were looked for."""

    def __init__(self, what: str, reason: str, *, key: str | None = None, candidates: Iterable[str] = ()) -> None:
        if key is not None:
            self.key, self.candidates = key, tuple(candidates)
            named, own = shorten(" or ".join(map(repr, self.candidates)), 100), repr(key[:40])
            idle = f"it may be {named}: delete those that executed nothing and run again; " if named else ""
            yours = "you know whose one is" if named else "you know its run"
            self.advice = f"{idle}if {yours}: batch.adopt({own}, rest_uid); if there is none: batch.forget({own})"
        super().__init__(what, reason)


class RunFailed(St4sdError):
    """A run ended, and not with Success. The requests were fine."""

    def __init__(self, failures: Mapping[str, Status]) -> None:
        self.failures = dict(failures)
        """rest-uid -> final status, of each run that did not succeed."""
        self.status = next(iter(self.failures.values()))
        """Final status of the first of them."""
        told = "; ".join(f"{run}: {status}" for run, status in self.failures.items())
        super().__init__(shorten(f"{len(self.failures)} run(s) did not succeed: {told}"))


class RunDeleted(St4sdError):
    """A run was deleted, before or while it was watched."""

    def __init__(self, rest_uid: str, last_status: Status | None) -> None:
        self.rest_uid = rest_uid
        """Id of the run."""
        self.last_status = last_status
        """The datastore's last word, or the last status seen; None if there never was one."""
        super().__init__(f"run {rest_uid!r} was deleted; last status: {last_status}")


class WaitTimeout(St4sdError, TimeoutError):
    """The time for waiting is over; the runs go on."""

    def __init__(self, timeout: float, last_statuses: Mapping[str, Status]) -> None:
        self.timeout, self.last_statuses = timeout, dict(last_statuses)
        """Seconds waited, and rest-uid -> last status of each run that is not over."""
        told = ", ".join(f"{run} ({status})" for run, status in list(self.last_statuses.items())[:3])
        more = f" and {len(self.last_statuses) - 3} more" if len(self.last_statuses) > 3 else ""
        text = shorten(f"not over after {timeout:g} s: {told}{more}", LONGEST_MESSAGE - 120)
        super().__init__(f"{text}; the runs go on: return to one with client.run(rest_uid).wait()")
