"""The blocking classes. They are derived from the asynchronous ones at import, so that no method is written twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from .. import _client, _run
from .._api.importer import Registry
from .._batch import batch as _batch
from .._batch import item as _item
from .._util.field_docs import document_fields
from .._util.threads import in_thread
from .portal import EnteredContext, Portal

if TYPE_CHECKING:
    from types import TracebackType

    from .._api.experiments import Experiments
    from ..models import Experiment

T = TypeVar("T")

PUBLIC_MODULE = "st4sd_async.sync"
"""The module from which users import the blocking classes."""
LAZY_ITERABLES = (Iterator, KeysView, ValuesView, ItemsView)
"""Arguments that are read in the caller's thread, because they may block, or change while the event loop reads them."""
CONTAINERS = (list, tuple, set, frozenset)
"""Containers whose items are converted."""

ASYNC_ONLY = frozenset({"shared"})
"""Names without a blocking counterpart: all tasks of an event loop may share a client."""

_PUBLIC_NAME = re.compile(r"[^_].*|_repr_\w+_|_ipython_display_")
_ASYNC_KEYWORD = re.compile(r"\basync (?=with\b|for\b)|\bawait ")


class Blocking:
    """
    Base of the blocking classes. Each wraps an object of an asynchronous class and has blocking versions of its
    methods.

    ``class Run(Blocking, of=_run.Run)`` gets a blocking method for each method of ``_run.Run`` that it does not define.
    """

    _async_class: ClassVar[type]
    _target: Any
    _portal: Portal

    def __init_subclass__(cls, *, of: type | None = None) -> None:
        if of is None:  # a user's subclass, which inherits all methods
            return
        cls._async_class, cls.__module__ = of, PUBLIC_MODULE
        cls.__doc__ = cls.__doc__ or blocking_docstring(str(vars(of)["__doc__"]))
        _blocking_classes[of] = cls
        for name in dir(of):
            if _PUBLIC_NAME.fullmatch(name) and name not in ASYNC_ONLY and not hasattr(cls, name):
                setattr(cls, name, _blocking_member(cls, name, inspect.getattr_static(of, name)))

    @classmethod
    def _wrapping(cls, target: Any, portal: Portal) -> Self:
        """Return a blocking object that wraps an asynchronous one."""
        wrapper = cls.__new__(cls)
        wrapper._bind(target, portal)
        return wrapper

    def _bind(self, target: Any, portal: Portal) -> None:
        self._target, self._portal = target, portal

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the wrapped object, and block until it returns."""
        kwargs = {name: self._unwrap(value) for name, value in kwargs.items()}
        value = function(self._target, *map(self._unwrap, args), **kwargs)
        if inspect.iscoroutine(value):
            value = self._portal.call(value)
        return self._wrap(value)

    def _unwrap(self, value: Any) -> Any:
        """Convert an argument to what the asynchronous method accepts."""
        if isinstance(value, Run | _run.Run):
            return str(value)  # so that a run in the result belongs to this client
        if isinstance(value, Blocking):
            if value._portal is not self._portal:
                raise ValueError(f"{value!r} belongs to another client, whose event loop this one cannot use")
            return value._target
        if isinstance(value, LAZY_ITERABLES):
            return [self._unwrap(item) for item in value]
        return type(value)(map(self._unwrap, value)) if type(value) in CONTAINERS else value

    def _wrap(self, value: Any) -> Any:
        """Convert a result: wrap each object of an asynchronous class."""
        if isinstance(value, AsyncGenerator):
            return self._portal.iterate(value, self._wrap)
        if isinstance(value, _item.Item):
            return Item(**{**vars(value), "run": self._wrap(value.run)})
        if type(value) in CONTAINERS:
            return type(value)(map(self._wrap, value))
        if isinstance(value, _item.Items):
            return _item.Items(map(self._wrap, value))
        if isinstance(value, _item.ItemView):
            return value.converted(self._wrap)
        cls = type(self) if type(value) is self._async_class else blocking_class_of(type(value))
        return value if cls is None else cls._wrapping(value, self._portal)

    def __eq__(self, other: object) -> bool:
        return bool(self._target == other._target) if isinstance(other, Blocking) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._target)

    def __str__(self) -> str:
        return str(self._target)

    def __repr__(self) -> str:
        return repr(self._target)


_blocking_classes: dict[type, type[Blocking] | None] = {}


def blocking_class_of(cls: type) -> type[Blocking] | None:
    """Return the blocking class that wraps another class. None means that it needs none, like models."""
    if cls not in _blocking_classes:
        is_ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        _blocking_classes[cls] = type(cls.__name__, (Blocking,), {}, of=cls) if is_ours and _is_async(cls) else None
    return _blocking_classes[cls]


def _is_async(cls: type) -> bool:
    members = [inspect.getattr_static(cls, name) for name in dir(cls) if _PUBLIC_NAME.fullmatch(name)]
    return any(inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member) for member in members)


def _blocking_member(cls: type[Blocking], name: str, member: Any) -> Any:
    """Return the blocking counterpart of a member of an asynchronous class."""
    if isinstance(member, property):
        return property(lambda self: self._wrap(getattr(self._target, name)), doc=blocking_docstring(member.__doc__))
    if isinstance(member, classmethod):
        factory = member.__func__
        return classmethod(_with_signature(factory, cls, lambda cls, *args, **kwargs: cls._create(name, args, kwargs)))

    def method(self: Blocking, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(member, args, kwargs)

    return _with_signature(member, cls, method) if inspect.isfunction(member) else member


def _with_signature(function: Callable[..., Any], cls: type, blocking: Callable[..., Any]) -> Callable[..., Any]:
    """Give a blocking function the name, docstring and signature of the asynchronous one, and return it."""
    signature = inspect.signature(function)
    signature = signature.replace(return_annotation=blocking_type(signature.return_annotation))
    blocking.__name__, blocking.__qualname__ = function.__name__, f"{cls.__name__}.{function.__name__}"
    blocking.__module__, blocking.__doc__ = PUBLIC_MODULE, blocking_docstring(function.__doc__)
    blocking.__annotations__ = {**function.__annotations__, "return": signature.return_annotation}
    blocking.__signature__ = signature  # type: ignore[attr-defined] # read by inspect.signature
    return blocking


def blocking_type(annotation: Any) -> Any:
    """Return the return type of a blocking method, given that of the asynchronous one."""
    return annotation.replace("AsyncGenerator[", "Generator[") if isinstance(annotation, str) else annotation


def blocking_docstring(text: str | None) -> str | None:
    """Return a docstring without ``async`` and ``await`` in its examples."""
    return text and _ASYNC_KEYWORD.sub("", text)


class Client(Blocking, of=_client.Client):
    """
    A client of one ST4SD deployment for code without ``async``.

        with Client("https://st4sd.example", api_key="...") as client:
            run = client.start("demo:latest", {"variables": {"scale": 2}})
            status = run.wait(check=True)

    It has the methods of `st4sd_async.Client`, with the same arguments and results. An asynchronous client does the
    work, in an event loop in its own thread. So the blocking client works where another event loop runs, as in a
    notebook, and many threads may use it at once. Iterators passed as arguments are read before the call.

    Entering the ``with`` block checks the login. Without ``with``, the first call checks it, and `close` closes the
    client. A client that is not closed is closed by the garbage collector or when the interpreter exits.

    A client can be pickled as the asynchronous one can. Tasks of a process pool use it without ``with``, because those
    that are sent together share it, and the first ``with`` would close it for the others.

    Ctrl-C, like any exception that interrupts the waiting thread, cancels the call. The client can still be used. If a
    start is cancelled after it was sent, the service may have received it. The call waits up to a second for the
    response, then logs a warning and adds a note to the exception: the rest-uid, or how to find the instance.

    Args:
        url: Address of the deployment, with or without ``/rs`` at its end.
        api_key: API key, sent as a bearer token. Takes precedence over ``auth_token``.
        auth_token: Token from ``<url>/authorisation/token``, sent as a cookie.
        config: All other settings. None means the defaults of `Config`. Callables in it, such as ``progress``, are
            called in the event loop and must not use this client.

    Raises:
        ConfigError: A setting is invalid.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        target = _client.Client(*args, **kwargs)
        self._bind(target, Portal(target))

    @classmethod
    def _create(cls, factory: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Create a client with a class method of the asynchronous one."""
        target = getattr(_client.Client, factory)(*args, **kwargs)
        return cls._wrapping(target, Portal(target))

    @classmethod
    def _wrapping(cls, target: Any, portal: Portal) -> Self:
        known = portal.clients.get(id(target))
        return super()._wrapping(target, portal) if known is None else known

    def _bind(self, target: Any, portal: Portal) -> None:
        super()._bind(target, portal)
        portal.clients[id(target)] = self
        for name, value in vars(target).items():
            if not name.startswith("_") and blocking_class_of(type(value)):
                setattr(self, name, self._wrap(value))

    def _unwrap(self, value: Any) -> Any:
        if isinstance(value, Client) and value._portal is not self._portal:
            return value._as_registry()
        return super()._unwrap(value)

    def _as_registry(self) -> Registry:
        """Return this client as a registry for the imports of another client, which has its own event loop."""
        return Registry(self._target.url, RemoteExperiments(self._target.experiments, self._portal))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled_client, (type(self), self._target)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def run(self, run: Run | _run.Run | str) -> Run:
        """See `st4sd_async.Client.run`."""
        bound: Run = self._wrap(self._target.run(run._target if isinstance(run, Run) else run))
        return bound

    def __enter__(self) -> Self:
        """
        Open the connections and, unless ``Config.validate`` is False, check the login with ``GET url-map/``.

        Raises:
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """
        self._portal.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections. Runs continue."""
        self.close()

    def open(self) -> Self:
        """
        Open the connections now, as ``with`` does. Otherwise the first call of any method opens them.

        Returns:
            This client. Opening an open client has no effect.

        Raises:
            Unauthorized, DecodeError: As ``with``.
            St4sdError: The client was closed.
        """
        return self.__enter__()

    def close(self) -> None:
        """
        Close the connections, including those of clients made by `with_options`. Runs continue.

        Calls in other threads are cancelled. A closed client cannot be reopened; closing it again has no effect.
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
        found: Experiment = await in_thread(self.portal.call, work, abandon=True)
        return found


def blocking(client: Any) -> Any:
    """Return a blocking client that wraps an asynchronous one, which nothing else may use."""
    return client if isinstance(client, Client) else _unpickled_client(Client, client)


def run_in(client: Any, work: Callable[[_client.Client], Coroutine[Any, Any, T]]) -> T:
    """Call a coroutine function with the asynchronous client of a blocking one, and block until it returns."""
    result: T = client._portal.call(work(client._target))
    return result


_with_signature(_client.Client.__init__, Client, Client.__init__)
_with_signature(_client.Client.run, Client, Client.run)


class Run(Blocking, of=_run.Run):
    """
    A handle on one instance: an id and a client, no data. Like `st4sd_async.Run`, with blocking methods.

    Runs with the same rest-uid are equal. ``str(run)`` is the rest-uid, from which ``client.run(rest_uid)`` makes the
    handle again. A pickled run arrives without its client; ``client.run(run)`` gives it another.

    Attributes:
        id: The rest-uid.
        url: Address of the deployment, with a slash at its end.
    """

    __dataclass_fields__ = _run.Run.__dataclass_fields__  # for dataclasses.asdict, and so for tables of pandas

    @property
    def id(self) -> str:
        """The rest-uid."""
        return str(self._target.id)

    @property
    def url(self) -> str:
        """Address of the deployment, with a slash at its end."""
        return str(self._target.url)

    @property
    def client(self) -> Client:
        """
        The client that sends the requests.

        Raises:
            St4sdError: The run is unbound.
        """
        client: Client = self._wrap(self._target.client)
        return client

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._target.client  # noqa: B018 -- raises an error if the run is unbound
        return super()._call(function, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled_run, (self.id, self.url)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _unpickled_client(cls: type[Client], target: _client.Client) -> Client:
    return cls._wrapping(target, Portal(target))


def _unpickled_run(rest_uid: str, url: str) -> Run:
    run = Run.__new__(Run)
    run._target = _run.unbound(rest_uid, url)
    return run


class Batch(Blocking, of=_batch.Batch):
    """
    Start many launches, and keep their outcomes in a durable journal. Like `st4sd_async.Batch`, with blocking methods.

        with client.batch("campaign.db") as batch:
            batch.add(launches)
            for item in batch.run():
                print(item.key, item.run, item.status, item.error)
            print(batch.counts)

    Several threads may use a batch: one runs it while others add launches or read its state. Leaving the block stops
    starting launches and waits a few seconds for the responses to starts in flight. Runs continue.
    """

    _entered: EnteredContext | None = None

    def __enter__(self) -> Self:
        """
        Open the journal.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another deployment, or cannot be opened.
        """
        self._entered = self._portal.enter(self._target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop starting launches, record the outcomes of starts in flight, and close the journal."""
        entered, self._entered = self._entered, None
        if entered is not None:
            self._portal.exit(entered)


@document_fields
@dataclass(frozen=True)
class Item(_item.Item):
    """
    One launch of a batch, at one moment.

        for item in batch.run():
            print(item.key, item.run, item.status, item.error)
    """

    run: Run | None  # type: ignore[assignment] # the blocking one
    """The handle on its run. None means that it has no run, or that its run is unknown."""


Item.__module__ = PUBLIC_MODULE
