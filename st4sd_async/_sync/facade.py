"""The blocking counterparts of what awaits, made by looking at it, so that nothing is written twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio

from .. import _client, _run
from .._batch import batch as _batch
from .._batch import item as _item
from .._import import Registry
from .._util.field_docs import document_fields
from .loop import Stay
from .portal import Portal

if TYPE_CHECKING:
    from types import TracebackType

    from .._api.experiments import Experiments
    from ..models import Experiment

PUBLIC = "st4sd_async.sync"
"""Where the counterparts are to be had."""
READ_FIRST = (Iterator, KeysView, ValuesView, ItemsView)
"""Arguments that are read in the thread of the caller: they may block, or change while the event loop reads them."""
HOLDERS = (list, tuple, set, frozenset)
"""What else may hold handles."""

_SHOWN = re.compile(r"[^_].*|_repr_\w+_|_ipython_display_")
"""Names of what a counterpart has too."""
_AWAITING = re.compile(r"\basync (?=with\b|for\b)|\bawait ")
"""What examples are without."""


class Handle:
    """What stands for an object that lives in an event loop, with the same methods, which block."""

    _of: ClassVar[type]
    _target: Any
    _portal: Portal

    def __init_subclass__(cls, *, of: type | None = None) -> None:
        if of is None:  # somebody's own class, which has it all
            return
        cls._of, cls.__module__ = of, PUBLIC
        cls.__doc__ = cls.__doc__ or blocking_words(str(vars(of)["__doc__"]))
        _counterparts[of] = cls
        for name in dir(of):
            if _SHOWN.fullmatch(name) and not hasattr(cls, name):
                setattr(cls, name, _counterpart(cls, name, inspect.getattr_static(of, name)))

    @classmethod
    def _around(cls, target: Any, portal: Portal) -> Self:
        """The counterpart of an object."""
        handle = cls.__new__(cls)
        handle._bind(target, portal)
        return handle

    def _bind(self, target: Any, portal: Portal) -> None:
        self._target, self._portal = target, portal

    def _call(self, function: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What a method of the object gives."""
        named = {name: self._taken(value) for name, value in named.items()}
        value = function(self._target, *map(self._taken, given), **named)
        if inspect.iscoroutine(value):
            value = self._portal.call(value)
        return self._shown(value)

    def _taken(self, value: Any) -> Any:
        """An argument as the object takes it."""
        if isinstance(value, Run | _run.Run):
            return str(value)  # what comes back is a handle of this client then
        if isinstance(value, Handle):
            if value._portal is not self._portal:
                raise ValueError(f"{value!r} belongs to another client, whose event loop this one cannot use")
            return value._target
        if isinstance(value, READ_FIRST):
            return [self._taken(one) for one in value]
        return type(value)(map(self._taken, value)) if type(value) in HOLDERS else value

    def _shown(self, value: Any) -> Any:
        """A result, with the counterparts of what awaits."""
        if isinstance(value, AsyncGenerator):
            return self._portal.steps(value, self._shown)
        if isinstance(value, _item.Item):
            return Item(**{**vars(value), "run": self._shown(value.run)})
        if type(value) in HOLDERS:
            return type(value)(map(self._shown, value))
        cls = type(self) if type(value) is self._of else counterpart_of(type(value))
        return value if cls is None else cls._around(value, self._portal)

    def __eq__(self, other: object) -> bool:
        return bool(self._target == other._target) if isinstance(other, Handle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._target)

    def __str__(self) -> str:
        return str(self._target)

    def __repr__(self) -> str:
        return repr(self._target)


_counterparts: dict[type, type[Handle] | None] = {}


def counterpart_of(kind: type) -> type[Handle] | None:
    """The class that stands for another one; None for what does not await, as values, models and errors."""
    if kind not in _counterparts:
        is_ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
        _counterparts[kind] = type(kind.__name__, (Handle,), {}, of=kind) if is_ours and _awaits(kind) else None
    return _counterparts[kind]


def _awaits(kind: type) -> bool:
    members = [inspect.getattr_static(kind, name) for name in dir(kind) if _SHOWN.fullmatch(name)]
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in members)


def _counterpart(cls: type[Handle], name: str, member: Any) -> Any:
    """What stands for a member of a class."""
    if isinstance(member, property):
        return property(lambda self: self._shown(getattr(self._target, name)), doc=blocking_words(member.__doc__))
    if isinstance(member, classmethod):
        return classmethod(_like(member.__func__, cls, lambda cls, *given, **named: cls._made(name, given, named)))

    def method(self: Handle, /, *given: Any, **named: Any) -> Any:
        return self._call(member, given, named)

    return _like(member, cls, method) if inspect.isfunction(member) else member


def _like(function: Callable[..., Any], cls: type, counterpart: Callable[..., Any]) -> Callable[..., Any]:
    """A function that says of itself what another one says, with what it gives when it blocks."""
    told = inspect.signature(function)
    told = told.replace(return_annotation=blocking_type(told.return_annotation))
    counterpart.__name__, counterpart.__qualname__ = function.__name__, f"{cls.__name__}.{function.__name__}"
    counterpart.__module__, counterpart.__doc__ = PUBLIC, blocking_words(function.__doc__)
    counterpart.__annotations__ = {**function.__annotations__, "return": told.return_annotation}
    counterpart.__signature__ = told  # type: ignore[attr-defined] # read by inspect.signature
    return counterpart


def blocking_type(annotation: Any) -> Any:
    """What a method gives when it blocks."""
    return annotation.replace("AsyncGenerator[", "Generator[") if isinstance(annotation, str) else annotation


def blocking_words(text: str | None) -> str | None:
    """A docstring whose examples do not await."""
    return text and _AWAITING.sub("", text)


class Client(Handle, of=_client.Client):
    """
    A client of one ST4SD deployment for code without ``async``.

        with Client("https://st4sd.example", api_key="...") as client:
            run = client.start("demo:latest", {"variables": {"scale": 2}})
            status = run.wait(check=True)

    It has the methods of `st4sd_async.Client`, with the same arguments and results, and does its work with one, in
    an event loop in a thread of its own. So it may be used where another event loop runs, as in a notebook, and from
    many threads at once. Iterators among arguments are read before anything is done.

    Entering proves the login. Without ``with``, the first call does, and `close` is there for the end; what nobody
    closes is closed when it is not used any more, or at the exit of the interpreter. Ctrl-C, or whatever else
    interrupts the thread that waits, breaks off what it waits for, and the client can be used as before. A start
    that is broken off after it was sent may have arrived: it waits up to a second for the answer, and a warning in the
    log and a note on the exception give the rest-uid, or say how to look for the instance.

    Args:
        url: Address of the deployment, with or without ``/rs`` at its end.
        api_key: API key, sent as a bearer; wins over ``auth_token``.
        auth_token: Token from ``<url>/authorisation/token``, sent as a cookie.
        config: All other settings, None: the defaults of `Config`. What it holds to be called, as ``progress``, is
            called in the event loop, and must not use this client.

    Raises:
        ConfigError: A setting will not do.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        target = _client.Client(*given, **named)
        self._bind(target, Portal(target))

    @classmethod
    def _made(cls, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Self:
        target = getattr(_client.Client, name)(*given, **named)
        return cls._around(target, Portal(target))

    @classmethod
    def _around(cls, target: Any, portal: Portal) -> Self:
        known = portal.known.get(id(target))
        return super()._around(target, portal) if known is None else known

    def _bind(self, target: Any, portal: Portal) -> None:
        super()._bind(target, portal)
        portal.known[id(target)] = self
        for name, value in vars(target).items():
            if not name.startswith("_") and counterpart_of(type(value)):
                setattr(self, name, self._shown(value))

    def _taken(self, value: Any) -> Any:
        if isinstance(value, Client) and value._portal is not self._portal:
            return value._as_registry()
        return super()._taken(value)

    def _as_registry(self) -> Registry:
        """Return this client as a registry for the imports of another client, which has its own event loop."""
        return Registry(self._target.url, RemoteExperiments(self._target.experiments, self._portal))

    def __enter__(self) -> Self:
        """
        Open the connections and, unless ``Config.validate`` is False, prove the login with ``GET url-map/``.

        Raises:
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """
        self._portal.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections. Runs go on."""
        self.close()

    def open(self) -> Self:
        """
        Open the connections now, as ``with`` does; the first call of any other method does so too.

        Returns:
            This client; if it is open already, nothing else happens.

        Raises:
            Unauthorized, DecodeError: As ``with``.
            St4sdError: It was closed.
        """
        return self.__enter__()

    def close(self) -> None:
        """
        Close the connections, of clients made by `with_options` too; runs go on.

        What other threads wait for is broken off. Closed clients stay closed; closing one again does nothing.
        """
        self._portal.close()


@dataclass(frozen=True)
class RemoteExperiments:
    """The experiments of a client whose event loop runs in another thread."""

    experiments: Experiments
    portal: Portal

    async def get(self, identifier: str, *, with_beta: bool) -> Experiment:
        """Fetch an experiment in the event loop of its client."""
        work = self.experiments.get(identifier, with_beta=with_beta)
        found: Experiment = await anyio.to_thread.run_sync(self.portal.call, work, abandon_on_cancel=True)
        return found


_like(_client.Client.__init__, Client, Client.__init__)


class Run(Handle, of=_run.Run):
    """
    A handle on one instance: an id and a client, never data; as `st4sd_async.Run`, with methods that block.

    Equal and alike in a set if the rest-uid is the same. ``str(run)`` is the rest-uid, from which
    ``client.run(rest_uid)`` makes the handle again, in this process or another.
    """

    @property
    def id(self) -> str:
        """The rest-uid."""
        return str(self._target.id)

    @property
    def client(self) -> Client:
        """The client through which it is reached."""
        client: Client = self._shown(self._target.client)
        return client


class Batch(Handle, of=_batch.Batch):
    """
    Many launches and what became of them, in a journal that survives: as `st4sd_async.Batch`, with methods that block.

        with client.batch("campaign.db") as batch:
            batch.add(launches)
            for item in batch.run():
                print(item.key, item.run, item.status, item.error)
            print(batch.counts)

    May be used from several threads, of which one runs it while others add launches or look at it. Leaving the block
    starts nothing more and waits a few seconds for the answers to what is in flight. Runs go on.
    """

    _stay: Stay | None = None

    def __enter__(self) -> Self:
        """
        Open the journal.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another server, or cannot be opened.
        """
        self._stay = self._portal.enter(self._target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, write down what becomes of what is in flight, close the journal."""
        stay, self._stay = self._stay, None
        if stay is not None:
            self._portal.exit(stay)


@document_fields
@dataclass(frozen=True)
class Item(_item.Item):
    """
    One launch of a batch, at one moment.

        for item in batch.run():
            print(item.key, item.run, item.status, item.error)
    """

    run: Run | None  # type: ignore[assignment] # the blocking one
    """The handle on its run; None if it has none, or it is not known."""


Item.__module__ = PUBLIC
