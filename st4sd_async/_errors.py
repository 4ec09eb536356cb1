"""
All exceptions of this library, in one tree.

    St4sdError
      ConfigError                     a setting is invalid or missing
      TransportError                  no usable response arrived
        ConnectFailed                 nothing was sent: refused, unknown host, certificate, connect timeout
        RequestTimeout                the service was silent for too long
        ConnectionLost                the connection broke after the request may have been sent
        CredentialUnavailable         nothing was sent: no credential from its file or provider; a ConfigError too
      APIError                        the service, or the proxy in front of it, refused the request
        Unauthorized                  sign-in page, 401 or 403
        NotFound
          UnknownExperiment, UnknownRun, UnknownOutput, UnknownProperty, NoProperties, UnknownRuntimePolicy,
          UnknownRelationship, UnknownGraph, UnknownPullSecret, UnknownService, NoToken
        Conflict
          AlreadyExists
            GraphExists
          NameTaken
        BadRequest
          InvalidPackage
            InvalidName, MissingRequirements, DigestMismatch
          InvalidPayload
            MissingInputs, ExtraInputs, InputConflict, PayloadTooLarge, InvalidFlowIR, InaccessibleRegistries
          InvalidDefinition
            InvalidRelationship, InvalidQuery
            InvalidDSL
              InvalidGraph
          NotReady, NotAFolder, OutsideOfFolder, CannotUntagLatest, Disabled, LocalDeployment
        RateLimited
        ServerError
      DecodeError                     a successful response with unexpected content
      DownloadError                   a file is incomplete, or could not be stored
        UnsafeArchive                 an archive that is unsafe to unpack
      S3Error                         a bucket refused, broke off or was unreachable
      OutcomeUnknown                  the request may or may not have been carried out
        StartOutcomeUnknown
      JournalError                    the journal of a batch is unusable, or contradicts the call
        JournalLocked, JournalCorrupt, LaunchConflict
      SchemaMismatch                  a value does not fit into a table whose columns are fixed
      MissingCredentials              a launch of a batch needs credentials that its journal does not keep
      RunFailed                       the run ended without success
      RunDeleted                      the run was deleted before or while it was watched
      WaitTimeout                     the wait timed out; the runs continue

No error holds a credential, a request body or an exception of the HTTP engine. Every error can be pickled and copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import unquote

from pydantic_core import from_json

from ._util.field_docs import document_fields
from ._util.printable import LAYOUT, MAX_MESSAGE_LENGTH, one_line, printable, shorten

if TYPE_CHECKING:
    from .models import Failure, Status
    from .models.requirements import Requirement

E = TypeVar("E", bound="St4sdError")


@document_fields
class Problem(NamedTuple):
    """One problem of a request."""

    where: str
    """The entry, such as ``inputs[0].content``."""
    what: str
    """The problem, and how to fix it."""


MAX_REQUEST_LENGTH = 200
"""Characters of the request at the end of a message."""

NOT_ACCEPTED = "the experiment does not accept it"
"""Problem of an entry that the experiment does not have."""
VALUE_NOT_ACCEPTED = "the experiment does not accept this value"
"""Problem of an entry whose value the experiment does not allow."""

_PYDANTIC_ERROR = re.compile(r"^(?:\d+ validation errors? for .*|(\S.*))\n  (\S.*?)(?: \[type=.*)?$", re.MULTILINE)
"""Location and message in the text of a pydantic `ValidationError`, which the services copy into their responses."""

_GIT_WORDS = re.compile(r"git-stderr: (?:Cloning into '[^'\n]*'\.\.\.\n)?((?s:.+?))\s*(?:git-stdout:|$)")
"""What git printed, in the runtime service's message about a package that cannot be cloned."""

# Messages of the runtime service that name the refused entry in prose only: (entry, pattern, problem).
# The atomic groups keep matching linear in the length of the message.
_REFUSED_ENTRIES = tuple(
    (entry, re.compile(rf"(?>(?s:.*?){pattern}"), problem)
    for entry, pattern, problem in (
        ("variables.{}", r"Payload sets variable )(?s:(?>(.+?) = ).* has no rule)", NOT_ACCEPTED),
        ("variables.{}", r"Payload variable )(?s:(?>(.+?) = ).* does not have an allowed value\.)", VALUE_NOT_ACCEPTED),
        ("variables.{}", r"Payload overrides workflow variables of )\S+: (.+?)(?: - |$)", NOT_ACCEPTED),
        ("data.{}", r"Payload overrides data files )(?>.*\. Filenames are \[)(.+)\]", NOT_ACCEPTED),
        ("platform", r"Payload overrides parameterisation\.)\w+\.platform=(.+)", "only {} is allowed"),
    )
)


def parse_problems(value: Any) -> tuple[Problem, ...]:
    """
    Return the problems in a value of a response, in any of the shapes that the services use.

    A list has one problem per item: a text, or a mapping with ``message`` or ``problem`` and perhaps ``location``. An
    item with ``problems`` of its own has them under its ``identifier``. A text is the output of pydantic, or one
    problem.
    """
    if isinstance(value, str):
        found = tuple(Problem(*groups) for groups in _PYDANTIC_ERROR.findall(value))
        return found or ((Problem("", value),) if value else ())
    return tuple(problem for item in (value if isinstance(value, list) else []) for problem in _problems_of(item))


def _problems_of(item: Any) -> Iterable[Problem]:
    if not isinstance(item, Mapping):
        return [Problem("", str(item))]
    identifier = str(item.get("identifier") or "")
    if isinstance(item.get("problems"), list):
        nested = parse_problems(item["problems"])
        return [Problem(": ".join(filter(None, (identifier, where))), what) for where, what in nested]
    location = item.get("location", item.get("loc"))
    where = ".".join(str(part) for part in location) if isinstance(location, list | tuple) else str(location or "")
    return [Problem(where or identifier, _first(item, "message", "msg", "problem"))]


def parse_quoted_problems(message: str) -> tuple[Problem, ...]:
    """Return the problems in a message that ends with a JSON list of them, else ()."""
    try:
        return parse_problems(from_json(message[message.find("[") :]))
    except ValueError:
        return ()


def parse_refused_entries(message: str) -> tuple[Problem, ...]:
    """Return the payload entries that a message of the runtime service refuses. Empty if it names no known entry."""
    for entry, pattern, problem in _REFUSED_ENTRIES:
        if found := pattern.match(message):
            names = [name.strip(" '\"") for name in found[1].split(", ")] if "{}" in entry else [found[1]]
            return tuple(Problem(entry.format(name), problem.format(name)) for name in names)
    return ()


def join_problems(problems: Iterable[Problem]) -> str:
    """Return the problems as one line."""
    return "; ".join(": ".join(filter(None, problem)) for problem in problems)


def _message_with_request(explanation: str, request: str, advice: str = "") -> str:
    """
    Return a message about a request.

    Args:
        explanation: What failed, and why. It is shortened.
        request: The method and the URL. They come last. "" means that nothing was sent.
        advice: What to do next. It is not shortened. "" means that it is unknown.
    """
    request = f" ({shorten(request, MAX_REQUEST_LENGTH)})" if request else ""
    explanation = shorten(explanation, MAX_MESSAGE_LENGTH - len(request)).rstrip(".")
    return "; ".join(filter(None, (explanation, advice))) + request


_REQUEST = re.compile(r" \([A-Z]+ https?://[^()]*\)$")
"""The request at the end of a message."""


def plain_message(error: Exception) -> str:
    """Return the message of an error without the advice of its class and the request, for readers of a report."""
    text = _REQUEST.sub("", str(error))
    for cls in type(error).__mro__:
        if advice := cls.__dict__.get("advice"):
            text = text.replace(f"; {advice}", "")
    return text


def _first(detail: Mapping[str, Any], *keys: str) -> str:
    return next((str(detail[key]) for key in keys if detail.get(key)), "")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


class St4sdError(Exception):
    """
    Base class of all errors of this library.

    Safe to pickle and to copy: an error raised in a worker process keeps its class, message, notes and attributes.
    Cause, context and traceback are not pickled, as with any exception. If you add an attribute that cannot be pickled,
    such as a lock or a `Client`, pickling replaces it by its `repr`.

    The message is one line without control characters. The attributes hold the server's text unchanged.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        document_fields(cls)

    def __str__(self) -> str:
        return one_line(self._text())

    def add_note(self, note: str, /) -> None:
        """Add a note that a traceback shows below the message. Control characters in it are escaped."""
        super().add_note(printable(note, LAYOUT))

    def _text(self) -> str:
        """Return the message; subclasses override this and not ``__str__``."""
        return super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), {name: _picklable(value) for name, value in vars(self).items()}

    def __copy__(self) -> Self:
        copied = _restored(type(self), self.args)
        notes = {name: list(value) for name, value in vars(self).items() if name == "__notes__"}
        vars(copied).update(vars(self) | notes)
        return copied


def _restored(cls: type[E], arguments: tuple[object, ...]) -> E:
    """Return an error without attributes, bypassing ``__init__``, which takes other arguments."""
    error = cls.__new__(cls)
    error.args = arguments
    return error


def _picklable(value: object) -> object:
    """Return the value, or its `repr` if it cannot be pickled."""
    import pickle  # lazily: only errors that are pickled need it

    try:
        pickle.dumps(value)
    except Exception:  # each type raises its own
        return repr(value)
    return value


class ConfigError(St4sdError, ValueError):
    """A setting is invalid or missing; the message names it."""


class TransportError(St4sdError):
    """No usable response arrived."""

    situation = "got no usable response"
    permanent = False
    """Whether any further attempt would fail in the same way, as with an untrusted certificate."""

    def __init__(self, method: str, url: str, reason: str, *, sent: bool | None = None) -> None:
        self.method: str = method
        """HTTP method of the request."""
        self.url: str = url
        """URL of the request."""
        self.reason = reason
        """The cause, as reported by the network."""
        self.sent = sent
        """False if the request was certainly not sent. None means that it may have arrived."""
        self.attempts = 1
        """How many attempts were made in all."""
        super().__init__(method, url, reason)

    @property
    def request(self) -> str:
        """Method and URL of the request."""
        return f"{self.method} {self.url}"

    def _text(self) -> str:
        tries = f", attempt {self.attempts}" if self.attempts > 1 else ""
        return _message_with_request(f"{self.situation}: {self.reason}", f"{self.request}{tries}")


class ConnectFailed(TransportError):
    """
    No connection was made, so nothing was sent: refused, unknown host, invalid certificate or connect timeout.
    """

    situation = "could not connect (is the url right, can this machine reach it?)"

    is_unresolved = False
    """Whether the host name could not be resolved."""
    is_silent = False
    """Whether the host neither accepted nor refused the connection: it may be down, or behind a firewall."""

    def __init__(self, method: str, url: str, reason: str, *, permanent: bool = False) -> None:
        super().__init__(method, url, reason, sent=False)
        self.permanent = permanent


class CredentialUnavailable(TransportError, ConfigError):
    """
    Nothing was sent, because the file of the credential is unreadable or its provider failed.

    The request is retried for as long as for an unreachable service, because a file may be about to be rewritten, or a
    vault may be restarting. If the source has never returned a credential, there is no retry: it is probably wrong.
    ``__cause__`` is the provider's exception, unless that quotes a credential.
    """

    situation = "the request was not sent because a credential is unavailable"

    def __init__(self, method: str, url: str, reason: str, *, permanent: bool = False) -> None:
        super().__init__(method, url, reason, sent=False)
        self.permanent = permanent


class RequestTimeout(TransportError):
    """The service was silent for longer than ``Config.timeout``; the request may have arrived."""

    situation = "got no response in time"


class ConnectionLost(TransportError):
    """The connection broke after the request may have arrived, or the response was cut short."""

    situation = "lost the connection"
    is_cut = False
    """Whether the response had begun and was cut short."""


class APIError(St4sdError):
    """The service, or the proxy in front of it, refused the request."""

    advice: str = ""
    """What to do next, "" if unknown."""

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
        """The server's message."""
        self.status = status
        """HTTP status. None means that this library refused the request and sent nothing."""
        self.method: str = method
        """HTTP method of the request."""
        self.url: str = url
        """URL of the request."""
        self.detail: dict[str, Any] = dict(detail or {})
        """The JSON body of the response. Empty if it had none."""
        self.retry_after = retry_after
        """Seconds that the server asked to wait. None means that it did not ask."""
        self.attempts = 1
        """How many attempts were made in all."""
        super().__init__(message)

    def _text(self) -> str:
        request = f"{self.method} {self.url} was refused with {self.status}" if self.status else ""
        return _message_with_request(self._explanation(), request, self.advice)

    def _explanation(self) -> str:
        """Return what failed, and why."""
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Unauthorized(APIError):
    """The credentials were refused: the sign-in page, 401 or 403."""

    token_page = ""
    """URL of the page that issues new tokens."""
    last_statuses: Mapping[str, Status | None] = {}
    """If this ended a wait: rest-uid -> last status seen, or None."""


class NotFound(APIError):
    """The service does not know the requested object."""

    default_message = "the service has no such object"
    """Message to use if that of the server is missing or misleading."""


class UnknownExperiment(NotFound):
    """No experiment has this identifier."""

    advice = "list the existing ones with client.experiments.list()"

    @property
    def identifier(self) -> str:
        """The identifier; "" if the response does not contain it."""
        keys = ("unknownExperiment", "packageNotFound", "parameterisedPackageNotFound")
        return next((str(self.detail[key]) for key in keys if key in self.detail), "")


class UnknownRun(NotFound):
    """No instance has this rest-uid: it never existed, or was deleted."""

    default_message = "there is no such run: it was deleted, or never existed"
    advice = "list the existing ones with client.instances.list()"

    @property
    def rest_uid(self) -> str:
        """The rest-uid in the response, else that of the request; "" if neither has one."""
        requested = unquote(self.url.partition("/instances/")[2].partition("/")[0].partition("?")[0])
        return str(self.detail.get("unknownRestUID") or self.detail.get("unknownInstanceId") or requested)


class UnknownOutput(NotFound):
    """The instance has no key-output of this name, or not yet, or no such file in it."""

    name: str = ""
    """The requested key-output."""
    known: tuple[str, ...] = ()
    """The key-outputs that the instance has so far."""


class UnknownProperty(NotFound):
    """The instance measured properties, but none of this name."""

    names: tuple[str, ...] = ()
    """The requested columns that do not exist, in lower case."""
    known: tuple[str, ...] = ()
    """The existing columns. Empty if they could not be read."""


class NoProperties(NotFound):
    """The run has ended and measured no properties. The message has the reason, if known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The requested columns, ``("*",)`` for all."""
        return _texts(self.detail.get("unknownProperties"))


class UnknownRuntimePolicy(NotFound):
    """
    The service has no runtime policy of this name; nothing was started.

    Current services respond with 500 instead, which leaves the outcome of the start open: `StartOutcomeUnknown`.
    """

    @property
    def name(self) -> str:
        """The name of the policy."""
        return _first(self.detail, "unknownRuntimePolicyName")


class UnknownRelationship(NotFound):
    """No relationship has this identifier."""

    advice = "list the existing ones with client.relationships.list()"

    @property
    def identifier(self) -> str:
        """The identifier, if the service repeats it."""
        return _first(self.detail, "unknownRelationship", "relationshipNotFound", "problem")


class UnknownGraph(NotFound):
    """The library has no graph of this name."""

    advice = "list the existing ones with client.library.list()"

    @property
    def name(self) -> str:
        """The name, if the service repeats it."""
        return _first(self.detail, "graphName")


class UnknownPullSecret(NotFound):
    """The service has no image pull secret of this name, or not yet: a new one takes up to two minutes."""

    advice = "list the existing ones with client.image_pull_secrets.list()"


class UnknownService(NotFound):
    """The deployment has no service of this name."""

    advice = "list the existing ones with client.deployment.services()"


class NoToken(NotFound):
    """There is no token to return, because this client uses an API key."""

    advice = "open the page in a browser to get a token"


class Conflict(APIError):
    """The request contradicts the current state of the service."""


class AlreadyExists(Conflict):
    """An object of this name exists already."""


class GraphExists(AlreadyExists):
    """The library has a graph of this name already."""

    advice = "delete that one first: a graph cannot be changed"

    @property
    def name(self) -> str:
        """The name of the graph."""
        return _first(self.detail, "graphName")


class NameTaken(Conflict):
    """A Secret of this name exists that is not an image pull secret of the service; it was left unchanged."""

    advice = "choose another name"


class BadRequest(APIError):
    """The service considers the request invalid."""


class InvalidPackage(BadRequest):
    """The definition of the experiment, or the package that it points to, is invalid."""

    def _explanation(self) -> str:
        words = _GIT_WORDS.search(self.message)
        return self.message if words is None else f"{' '.join(words[1].split())}: {self.message}"

    @property
    def reason(self) -> str:
        """The service's explanation, with line breaks; "" if it is in `message`."""
        return str(self.detail.get("invalidVirtualExperimentDefinition") or self.detail.get("problem") or "")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, one per entry; () if the service did not list them."""
        return parse_problems(self.detail.get("problems") or self.detail.get("invalidVirtualExperimentDefinition"))


class InvalidName(InvalidPackage):
    """The experiment's name is not allowed."""

    @property
    def name(self) -> str:
        """The refused name."""
        return _first(self.detail, "invalidExperimentID")

    @property
    def rule(self) -> str:
        """The rule that names must follow."""
        return _first(self.detail, "experimentNamingRule")


class MissingRequirements(InvalidPackage):
    """The experiment needs something that this deployment lacks; nothing was pushed."""

    advice = "meet its .requirements, as the .advice of each says, or push it anyway with allow_missing=True"
    requirements: tuple[Requirement, ...] = ()
    """What is missing."""

    @classmethod
    def before_pushing(cls, identifier: str, missing: Iterable[Requirement]) -> Self:
        """Return the error for an experiment that was not pushed."""
        found = tuple(missing)
        error = cls(f"{identifier} was not pushed: this deployment lacks the {', '.join(map(str, found))}")
        error.requirements = found
        return error


class DigestMismatch(InvalidPackage):
    """The content of an imported experiment does not have the requested digest. The import was undone."""

    advice: str = (
        "its branch may have moved, or the registry is not trustworthy: inspect it with client.fetch_experiment(...)"
    )
    expected: str = ""
    """The requested digest."""
    found: str = ""
    """The digest of the content; "" if the deployment did not report one."""

    @classmethod
    def of(cls, requested: str, found: str | None) -> Self:
        """Return the error for an experiment that was requested as ``name@digest``."""
        error = cls(f"{requested} was not kept: the digest of its content is {found}")
        error.expected, error.found = requested.partition("@")[2], found or ""
        return error


class InvalidPayload(BadRequest):
    """The start payload is invalid; nothing was started."""

    advice = "client.draft(experiment) returns a payload to fill in, checked against the experiment"
    remedy = ""
    """How to fix the files in ``names``, if the service does not explain it."""
    problems: tuple[Problem, ...] = ()
    """The problems, one per entry; empty if the service only explained them in `message`."""
    names: tuple[str, ...] = ()
    """The files concerned."""

    @classmethod
    def before_sending(
        cls, problems: Iterable[Problem], names: Iterable[str] = (), outcome: str = "the start payload was not sent"
    ) -> InvalidPayload:
        """Return the error for a payload that failed a check of this library and was not sent."""
        found = tuple(problems)
        error = cls(f"{outcome}: " + "; ".join(f"{where}: {what}" for where, what in found))
        error.problems, error.names = found, tuple(names)
        error.advice = cls.advice if cls is PayloadTooLarge else ""
        return error


class MissingInputs(InvalidPayload):
    """The payload lacks input files that the experiment needs."""

    remedy = "add the file {!r}, which the experiment needs"


class ExtraInputs(InvalidPayload):
    """The payload has input files that the experiment does not accept."""

    remedy = "leave out the file {!r}, which the experiment does not accept"


class InputConflict(InvalidPayload):
    """A file name is used both in ``inputs`` and in ``data``."""

    remedy = "give the file {!r} once, in inputs or in data"


class PayloadTooLarge(InvalidPayload):
    """The request exceeds the 1 MiB that the proxy accepts."""

    advice = "client.stage_inputs uploads big files to a bucket; a dataset or a volume works too"


class InvalidFlowIR(InvalidPayload):
    """The definition of a lambda experiment is invalid; nothing was started."""

    advice: str = ""

    def _explanation(self) -> str:
        return ": ".join(filter(None, (self.message.rstrip("."), _first(self.detail, "flowirErrors"))))

    @property
    def errors(self) -> str:
        """What is wrong, with line breaks: the service's explanation, or `problems` if nothing was sent."""
        found = "\n".join(": ".join(filter(None, problem)) for problem in self.problems)
        return _first(self.detail, "flowirErrors") or found


class InaccessibleRegistries(InvalidPayload):
    """No image pull secret of the service gives access to the registries of the images; nothing was started."""

    advice = "add one with client.image_pull_secrets.create(...)"

    @property
    def registries(self) -> tuple[str, ...]:
        """The container registries."""
        return _texts(self.detail.get("inaccessibleContainerRegistries"))


class InvalidDefinition(BadRequest):
    """A definition that was sent is invalid."""

    def _explanation(self) -> str:
        more = join_problems(problem for problem in self.problems if problem.what not in self.message)
        return ": ".join(filter(None, (self.message.rstrip("."), more)))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, one per entry; empty if the service only explained them in `message`."""
        problem = self.detail.get("problem")
        return parse_problems(self.detail.get("problems") or ([problem] if problem else []))

    @classmethod
    def before_sending(cls, what: str, problems: Iterable[Problem]) -> Self:
        """Return the error for a definition that failed a check of this library and was not sent."""
        found = [{"location": [where] if where else [], "message": text} for where, text in problems]
        return cls(f"the {what} was not sent: {join_problems(parse_problems(found))}", detail={"problems": found})


class InvalidRelationship(InvalidDefinition):
    """The relationship, or what would result from it, is invalid."""


class InvalidQuery(InvalidDefinition):
    """The service does not understand the query."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, one per entry; () if the service did not list them."""
        return super().problems or parse_quoted_problems(self.message)


class InvalidDSL(InvalidDefinition):
    """The DSL of the experiment, or the package for it, is invalid."""


class InvalidGraph(InvalidDSL):
    """The library does not accept the graph."""


class NotReady(BadRequest):
    """The requested object does not exist yet: try again later."""


class NotAFolder(BadRequest):
    """A path inside a key-output was requested, but the key-output is a file."""


class OutsideOfFolder(BadRequest):
    """The path leads out of the folder of the key-output."""


class CannotUntagLatest(BadRequest):
    """The new tags would leave the latest version of an experiment without ``latest``; nothing was changed."""

    advice = "keep 'latest' among the tags, or push the version that is to be the latest"

    @property
    def identifier(self) -> str:
        """The experiment."""
        return _first(self.detail, "cannotUntagLatestFrom")


class Disabled(BadRequest):
    """This part of the service is not set up in this deployment."""

    advice = "ask the administrator of the deployment to set it up"


class LocalDeployment(BadRequest):
    """The service runs without a cluster, so it does not know the addresses of other services."""


class RateLimited(APIError):
    """The service received too many requests."""


class ServerError(APIError):
    """The service, or the proxy in front of it, failed."""


class DecodeError(St4sdError):
    """A successful response has unexpected content."""

    def __init__(self, method: str, url: str, problem: str, *, path: str = "", body: str = "") -> None:
        self.method: str = method
        """HTTP method of the request."""
        self.url: str = url
        """URL of the request."""
        self.path = path
        """The first invalid field, "" if the whole body is invalid."""
        self.body: str = shorten(body)
        """The beginning of the body, at most 500 characters."""
        where, shown = f" at {path!r}" if path else "", f": {self.body!r}" if self.body else ""
        super().__init__(_message_with_request(f"got {problem}{where}{shown}", f"{method} {url}"))


class DownloadError(St4sdError):
    """A file is incomplete, or could not be stored; no partial file was left under its name."""

    advice: str = "check that there is enough space and no other file of this name, then download it again"
    """What to do next."""

    def __init__(self, path: str, problem: str, *, received: int = 0, advice: str | None = None) -> None:
        self.advice = advice or self.advice
        self.problem = problem
        """What is wrong."""
        self.path = path
        """The file concerned."""
        self.received = received
        """How many bytes arrived."""
        super().__init__(f"{shorten(f'{path!r}: {problem}', MAX_MESSAGE_LENGTH - 150)}; {self.advice}")


class UnsafeArchive(DownloadError):
    """An archive that is unsafe to unpack; nothing was unpacked."""

    advice = "nothing was unpacked: inspect it with care, or download the files you need one by one"


class S3Error(St4sdError):
    """A bucket refused, broke off or was unreachable; no partial file is in it or on disk."""

    def __init__(self, name: str, bucket: str, problem: str, *, status: int | None = None, code: str = "") -> None:
        self.name = name
        """The file or key concerned."""
        self.bucket = bucket
        """The bucket."""
        self.problem = problem
        """What is wrong."""
        self.status = status
        """HTTP status, None if there was no response."""
        self.code = code
        """The error code of S3, such as ``NoSuchBucket``, or ""."""
        super().__init__(shorten(f"{name!r} and the bucket {bucket!r}: {problem}"))


class OutcomeUnknown(St4sdError):
    """The request may or may not have been carried out; it was not retried, because that could do it twice."""

    advice: str = "check whether it exists before you try again"
    """What to do next."""

    def __init__(self, what: str, reason: str) -> None:
        self.reason = reason
        """What happened to the request."""
        summary = shorten(f"it is unknown whether {what}: {reason}", MAX_MESSAGE_LENGTH - 250)
        super().__init__(f"{summary}; {self.advice}")


class StartOutcomeUnknown(OutcomeUnknown):
    """An instance may or may not have been started; the start was not retried."""

    advice: str = (
        "search for it in client.instances.list() before you start it again; "
        "once it runs, its status.meta.user_metadata there is the metadata you gave it"
    )
    key: str | None = None
    """Key of the launch in its batch, or of the start. None means that it had none."""
    candidates: tuple[str, ...] = ()
    """rest-uids of instances that may be the one that was started, if they were searched for."""

    def __init__(
        self, what: str, reason: str, *, key: str | None = None, candidates: Iterable[str] = (), advice: str = ""
    ) -> None:
        if key is not None:
            self.key, self.candidates = key, tuple(candidates)
        if advice:
            self.advice = advice
        elif key is not None:
            named, quoted_key = shorten(" or ".join(map(repr, self.candidates)), 100), repr(key[:40])
            idle = f"it may be {named}: delete those that executed nothing and run again; " if named else ""
            yours = "you know which one is its run" if named else "you know its run"
            adopt, forget = f"batch.adopt({quoted_key}, rest_uid)", f"batch.forget({quoted_key})"
            self.advice = f"{idle}if {yours}: {adopt}; if there is none: {forget}"
        super().__init__(what, reason)


class JournalError(St4sdError):
    """The journal of a batch is unusable, or contradicts the call; so nothing was sent."""

    advice: str = ""
    """What to do next, "" if unknown."""

    def __init__(self, problem: str, advice: str = "") -> None:
        if advice:
            self.advice = advice
        summary = shorten(problem, MAX_MESSAGE_LENGTH - 150)  # the advice is never cut: it may be a command to type
        super().__init__("; ".join(part for part in (summary, self.advice) if part))


class JournalLocked(JournalError):
    """Another batch has the journal open, in this process or another, or a tool reads it."""

    advice = "close the other batch, or the tool that reads it; a dead process holds no lock"


class JournalCorrupt(JournalError):
    """The journal is damaged."""

    advice = "restore a copy; before you use a new journal, search for the runs of this one in client.instances.list()"


class LaunchConflict(JournalError):
    """The journal has this key with another experiment or payload; that launch was not changed."""

    advice = "use another key, or correct that launch with retry_failed(corrected=...) if it failed or was not sent"


class SchemaMismatch(St4sdError):
    """A value does not fit into a table whose columns are fixed. The part of the table with it is not written."""

    advice: str = "write another table, and declare its columns with names or schema"
    """What to do next."""

    def __init__(self, column: str, problem: str, *, rest_uid: str | None = None, advice: str | None = None) -> None:
        self.advice = advice or self.advice
        self.column = column
        """The column concerned."""
        self.rest_uid = rest_uid
        """The run concerned. None means that it is unknown, or that no run is concerned."""
        run = "" if rest_uid is None else f" of run {rest_uid!r}"
        super().__init__(f"{shorten(f'the column {column!r}{run} {problem}', MAX_MESSAGE_LENGTH - 150)}; {self.advice}")


class MissingCredentials(St4sdError):
    """A launch of a batch needs credentials, which a journal does not keep. It was not sent and stays planned."""

    def __init__(self, key: str) -> None:
        self.key = key
        """Key of the launch."""
        super().__init__(
            f"{key!r} was not sent: a journal keeps no credentials and no environmentVariables: "
            "add the launch again, then run()"
        )


class RunFailed(St4sdError):
    """A run ended without success."""

    advice: str = "`await client.failure(rest_uid)` has the last lines of its logs"
    """What to do next."""

    def __init__(self, failures: Mapping[str, Status], reasons: Mapping[str, Failure] | None = None) -> None:
        self.failures: dict[str, Status] = dict(failures)
        """rest-uid -> final status, of each run that did not succeed."""
        self.status: Status = next(iter(self.failures.values()))
        """Final status of the first of them."""
        self.reasons: dict[str, Failure] = dict(reasons or {})
        """rest-uid -> why it failed, of the first five runs; those whose reason was not fetched are missing."""
        from ._render.cards import counted

        runs = "; ".join(f"{run}: {self._reason(run)}" for run in self.failures)
        count = counted(len(self.failures), "run")
        summary = shorten(f"{count} did not succeed: {runs}", MAX_MESSAGE_LENGTH - 100)
        super().__init__(f"{summary}; {self.advice}")

    def _reason(self, run: str) -> str:
        return self.reasons[run].gist if run in self.reasons else str(self.failures[run])


class RunDeleted(St4sdError):
    """A run was deleted, before or while it was watched."""

    def __init__(self, rest_uid: str, last_status: Status | None) -> None:
        self.rest_uid = rest_uid
        """Id of the run."""
        self.last_status = last_status
        """The datastore's final status, else the last status seen; None if there was none."""
        seen = "" if last_status is None else f"; last status: {str(last_status).removeprefix('deleted, last seen ')}"
        super().__init__(f"run {rest_uid!r} was deleted{seen}")


class WaitTimeout(St4sdError, TimeoutError):
    """The wait timed out; the runs continue."""

    def __init__(self, timeout: float, last_statuses: Mapping[str, Status]) -> None:
        self.timeout = timeout
        """Seconds waited."""
        self.last_statuses: dict[str, Status] = dict(last_statuses)
        """rest-uid -> last status, of each run that has not ended."""
        runs = ", ".join(f"{run} ({status})" for run, status in list(self.last_statuses.items())[:3])
        more = f" and {len(self.last_statuses) - 3} more" if len(self.last_statuses) > 3 else ""
        summary = shorten(f"the runs have not ended after {timeout:g} s: {runs}{more}", MAX_MESSAGE_LENGTH - 120)
        super().__init__(f"{summary}; the runs continue: return to one with client.run(rest_uid).wait()")
