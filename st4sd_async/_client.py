"""The client: every verb of the SDK. Each verb delegates to the package that does the work."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Hashable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload
from weakref import WeakKeyDictionary

import anyio

from . import _results
from ._api.datasets import Datasets
from ._api.datastore import Datastore
from ._api.deployment import Deployment
from ._api.experiments import Experiments, get_call, lambda_call, start_call, suggesting
from ._api.gateways import MOST_BYTES, SCHEME, Gateways
from ._api.image_pull_secrets import ImagePullSecrets
from ._api.importer import Importer, Registry
from ._api.instances import Instances
from ._api.library import Library
from ._api.raw_request import request_call
from ._api.relationships import Relationships
from ._api.utilities import InternalExperiments, Utilities
from ._batch import MAX_RUNNING
from ._config import URL_VARIABLE, Config, from_environment, portable
from ._errors import ConfigError, InvalidFlowIR, InvalidPayload
from ._http.credentials import is_loopback
from ._http.session import ClientSession, LoopBinding, Session
from ._payload.options import payload_of
from ._payload.prepare import prepare, resolve_drafts
from ._results.defaults import CSV_FILES, FAILURE_TIMEOUT, ROWS_PER_PART
from ._run import Run, RunLike
from ._util.field_docs import document_fields
from ._util.redact import redact
from ._watch import waiting
from ._watch.poller import Poller
from .models import Experiment
from .models.runs import check_rest_uid

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import TracebackType

    import pandas

    from ._batch.batch import Batch
    from ._batch.item import Item
    from ._batch.launch import Launch
    from ._batch.memory import Memory
    from ._config import RetryPolicy
    from ._http.credentials import Secret
    from ._payload.draft import Draft
    from ._payload.options import FileInput
    from ._results.downloads import Downloads
    from ._results.failure import FailureReader
    from ._results.properties import PropertiesReader
    from ._results.result_tree import ResultTree
    from ._results.staging import Files
    from ._results.tables import Table
    from ._util.outage import Outage
    from ._util.progress import Progress
    from .models import (
        S3,
        Download,
        DownloadFailed,
        Failure,
        ImportedExperiment,
        KeyOutput,
        LambdaPayload,
        Output,
        Properties,
        S3Store,
        Staged,
        StartPayload,
        Status,
        StatusReport,
    )


ClientT = TypeVar("ClientT", bound="Client")

ONE_RUN = "this takes one run: call it for each, as with asyncio.gather; wait, watch_many and properties take several"
"""Advice for several runs where one is expected."""


class _Unchanged(Enum):
    """Sentinel for an option that keeps its value, for options where None has a meaning of its own."""

    UNCHANGED = "unchanged"


_UNCHANGED = _Unchanged.UNCHANGED


class _SharedClient(Generic[ClientT]):
    """A client, and how many use it."""

    def __init__(self, client: ClientT) -> None:
        self.client = client
        self.users = 0
        self.opening = anyio.Lock()


_shared_clients: WeakKeyDictionary[AbstractEventLoop, dict[Hashable, _SharedClient[Any]]] = WeakKeyDictionary()
"""Event loop -> class, URL and credentials -> the client that their users share."""


def _identity(secret: Secret | None) -> Hashable:
    """Return a value that is equal for the same credential, and does not contain it."""
    if isinstance(secret, str):
        return str, hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
    return type(secret), secret if isinstance(secret, Hashable) else id(secret)


@document_fields
class Client:
    """
    Client of one ST4SD deployment.

        async with Client("https://st4sd.example", api_key="...") as client:
            run = await client.start("demo:latest", {"variables": {"scale": 2}})
            status = await run.wait(check=True)

    Creating a client sends nothing. Entering it checks the login. All methods may be awaited from many tasks at once,
    in the asyncio event loop in which the client was opened. In another event loop, or in a forked process, they raise
    `St4sdError` and send nothing. If the service is restarting they retry, as ``Config.retry`` says.

    In addition to the errors listed for each method, all methods raise `TransportError` if the service cannot be
    reached, `Unauthorized` if the credentials are refused, and `APIError` for any other refusal of the service.

    Args:
        url: Address of the deployment, with or without ``/rs`` and what follows it.
        api_key: API key, sent as a bearer token. Takes precedence over ``auth_token``.
        auth_token: Token from ``<url>/authorisation/token``, sent as a cookie.
        config: All other settings. None means the defaults of `Config`.

    A credential is a string, a `pathlib.Path` that is read each time the credential is needed, or a sync or async
    callable that is called again if the service refuses the credential it returned.

    Raises:
        ConfigError: A setting is invalid.

    A client can be pickled, for example for a worker process, if its credentials come from a file, the environment or a
    context: their source goes with it, never the credentials. It arrives closed, without ``Config.progress`` and hooks.

    The methods below are the ones that most programs need. The other endpoints are methods of the groups, which are
    attributes of a client.
    """

    experiments: Experiments
    """The registry of experiments."""
    instances: Instances
    """Instances, by rest-uid."""
    datastore: Datastore
    """Documents about runs, which outlive the runs."""
    gateways: Gateways
    """The services that hold the files of runs."""
    relationships: Relationships
    """Which experiment can replace a part of another."""
    library: Library
    """Graphs to build experiments from."""
    internal_experiments: InternalExperiments
    """Experiments whose definition the deployment itself stores."""
    utilities: Utilities
    """Checks and conversions for authors of DSL."""
    datasets: Datasets
    """S3 buckets that the deployment knows by name."""
    image_pull_secrets: ImagePullSecrets
    """Credentials for container registries."""
    deployment: Deployment
    """The services of the deployment, and the token of this client."""

    # Opening and closing

    def __init__(
        self,
        url: str,
        *,
        api_key: Secret | None = None,
        auth_token: Secret | None = None,
        config: Config | None = None,
    ) -> None:
        settings = config or Config()
        self._bind(ClientSession(Session(url, api_key, auth_token, settings), settings))

    def _bind(self, session: ClientSession) -> None:
        self._session = session
        self._config = session.config
        self.experiments = Experiments(session)
        self.instances = Instances(session)
        self.datastore = Datastore(session)
        self.gateways = Gateways(session)
        self.relationships = Relationships(session)
        self.library = Library(session)
        self.internal_experiments = InternalExperiments(session)
        self.utilities = Utilities(session)
        self.datasets = Datasets(session)
        self.image_pull_secrets = ImagePullSecrets(session)
        self.deployment = Deployment(session)
        self._poller = Poller(session)
        self._importer = Importer(session, self.experiments, self.datasets, self.image_pull_secrets)

    @cached_property
    def _downloads(self) -> Downloads:
        return _results.downloads.Downloads(self._session, self.gateways, self.datastore, self.instances)

    @cached_property
    def _failures(self) -> FailureReader:
        return _results.failure.FailureReader(self._session, self._downloads, self.datastore, self.instances)

    @classmethod
    def from_env(cls, *, config: Config | None = None) -> Self:
        """
        Return a client of the deployment that the environment names.

        Reads ``ST4SD_URL``, ``ST4SD_API_KEY``, ``ST4SD_AUTH_TOKEN`` and ``ST4SD_CA_FILE``.

        Args:
            config: All other settings. ``verify`` takes precedence over ``ST4SD_CA_FILE`` unless it is True.

        Raises:
            ConfigError: ``ST4SD_URL`` is not set, or a setting is invalid.
        """
        url, api_key, auth_token, settings = from_environment(config)
        client = cls(url, api_key=api_key, auth_token=auth_token, config=settings)
        client._session.shared.is_from_environment = True
        return client

    @classmethod
    def from_context(cls, name: str | None = None, *, config: Config | None = None) -> Self:
        """
        Return a client that uses a login of the command ``stp``, which keeps tokens in the keyring of this machine.

        Needs the extra ``keyring``. Two small files are read now. The keyring is read when the client is entered, in
        a worker thread because it may ask the user to unlock it, and again if the service refuses the token, so that
        a new ``stp login`` takes effect.

        Args:
            name: Name of the context. None means ``STP_DEFAULT_CONTEXT``, or the active context if that is not set.
            config: All other settings. ``verify`` takes precedence over ``ST4SD_CA_FILE`` unless it is True. Unlike
                ``stp``, a client verifies certificates.

        Raises:
            ConfigError: There is no such context, its files cannot be read, or the extra is not installed. Entering
                the client raises it if the keyring has no token for the context, or cannot be read.

        Source: ``stp_settings.json`` and ``stp_contexts.json`` in the application folder of ``stp``, or the files
        that ``STP_SETTINGS_FILE`` and ``STP_CONTEXTS_FILE`` name.
        """
        from ._http.contexts import from_context

        url, auth_token, settings = from_context(name, config)
        return cls(url, auth_token=auth_token, config=settings)

    @classmethod
    @asynccontextmanager
    async def shared(
        cls,
        url: str,
        *,
        api_key: Secret | None = None,
        auth_token: Secret | None = None,
        config: Config | None = None,
    ) -> AsyncGenerator[Self]:
        """
        Return a context manager for an open client that all users of the same deployment share.

            async with Client.shared("https://st4sd.example", api_key=Path("key")) as client:
                await client.wait(rest_uid)

        It is for code that cannot pass a client on, such as the triggers of a workflow engine. All users in one event
        loop with the same URL and the same credential get the same client. So all runs are watched with one list at a
        time. The client is opened for the first user and closed after the last.

        Args:
            url, api_key, auth_token: As in `Client`. Strings and paths are the same credential if they are equal,
                callables if they are the same object.
            config: All other settings, as in `Client`. They must be equal for all users.

        Raises:
            ConfigError: A setting is invalid, or the shared client has another ``config``.
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """
        created = cls(url, api_key=api_key, auth_token=auth_token, config=config)
        loop = LoopBinding("client").loop
        clients = _shared_clients.setdefault(loop, {})
        identity = cls, created.url, _identity(api_key), _identity(auth_token)
        shared = clients.setdefault(identity, _SharedClient(created))
        if shared.client._config != created._config:
            raise ConfigError(
                f"a client of {created.url} is shared with another config: pass an equal one, or create a Client"
            )
        shared.users += 1
        try:
            async with shared.opening:
                if not shared.client._session.shared.is_open:
                    await shared.client.open()
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del clients[identity]
                await shared.client.close()

    def with_options(
        self,
        *,
        timeout: float | _Unchanged = _UNCHANGED,
        retry: RetryPolicy | _Unchanged = _UNCHANGED,
        poll_interval: float | _Unchanged | None = _UNCHANGED,
        grace: float | _Unchanged = _UNCHANGED,
        settle: float | _Unchanged = _UNCHANGED,
        progress: Progress | _Unchanged | None = _UNCHANGED,
    ) -> Self:
        """
        Return a client that uses the same connections with some settings changed. It closes with this client.

        Settings of the connections (``concurrency``, ``downloads``, ``verify``, ``trusted_hosts``) are shared. Each
        option means the same as the field of `Config`.
        """
        options = {
            "timeout": timeout,
            "retry": retry,
            "poll_interval": poll_interval,
            "grace": grace,
            "settle": settle,
            "progress": progress,
        }
        changed: dict[str, Any] = {name: value for name, value in options.items() if value is not _UNCHANGED}
        other = self.__class__.__new__(self.__class__)
        other._bind(ClientSession(self._session.shared, replace(self._config, **changed)))
        return other

    async def __aenter__(self) -> Self:
        """
        Open the connections and, unless ``Config.validate`` is False, check the login with ``GET url-map/``.

        Raises:
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """
        await self._session.shared.open(_results.load)
        try:
            if self._config.validate:
                await self._session.services()
        except BaseException:
            await self._session.shared.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections. Runs continue."""
        await self.close()

    async def open(self) -> Self:
        """
        Open the client as ``async with`` does, for a notebook, where a block cannot span cells. `close` it later.

            client = await Client("https://st4sd.example", api_key="...").open()
        """
        return await self.__aenter__()

    async def close(self) -> None:
        """Close the connections. Runs continue."""
        await self._session.shared.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("this client is asynchronous: use 'async with', or st4sd_async.sync.Client")

    def __exit__(self, *_: object) -> None:
        """Never reached."""

    def __repr__(self) -> str:
        state = "open" if self._session.shared.is_open else "not open"
        return f"{type(self).__name__}({self.url!r}, {state})"

    def __reduce__(self) -> tuple[Any, ...]:
        shared = self._session.shared
        sources = None if shared.is_from_environment else shared.credentials.portable_sources()
        return _unpickled, (type(self), self.url, sources, portable(self._config))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def url(self) -> str:
        """Address of the deployment, without ``rs/`` and with a slash at its end."""
        return self._session.url

    @property
    def outage(self) -> Outage | None:
        """
        The current outage of a service, or None.

        An outage begins if requests are refused, fail, or get no response for 8 s. Once it has lasted for 5 s, it is
        reported here, in the log and to ``Config.progress``, as long as calls of this client wait for the service. Any
        response ends it. Clients made by `with_options` share it. If several services do not respond, this is the
        outage that has lasted longest.

            outage = client.outage
            print(outage or "no outage")   # no answer for 12 s: Connection refused; trying again
        """
        return self._session.shared.outage

    # Starting runs

    async def push(self, package: Mapping[str, Any] | Experiment | os.PathLike[str]) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry. Moves its tags and ``latest`` to it.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``; or an experiment from a
                registry; or the `Path` of a definition in JSON or YAML; or the `Path` of a folder with a package in a
                git repository. A definition without a source, as in ``definition.yaml`` of a folder, gets the URL and
                the commit of its repository: that of a remote, or the folder itself if the service runs on this
                machine. A folder without a definition gets one that lets a start set every variable, replace every
                data file and choose every platform.

        Returns:
            The experiment as the registry stores it, with its digest.

        Raises:
            InvalidPackage: The definition, or the package it points to, is invalid. For a path also: it cannot be
                read, it is in no git repository, it has changes that are not committed, or no remote has its commit.
            ImportError: The path is a file in YAML, and PyYAML is not installed.

        Source: ``POST experiments/`` of the runtime service.
        """
        if isinstance(package, os.PathLike):
            from ._package.definition import read_definition

            package = await read_definition(
                Path(package), is_local=is_loopback(self._session.shared.home.hostname or "")
            )
        return await self.experiments.push(package)

    async def draft(self, experiment: str | Experiment) -> Draft:
        """
        Return a start payload to fill in, checked against the experiment.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``, or an `Experiment`,
                for which no request is sent.

        Raises:
            UnknownExperiment: There is no such experiment.
            DecodeError: The response lacks the registry metadata of the experiment.
            InvalidPackage: The `Experiment` was fetched without its registry metadata (``with_registry=False``).

        Source: ``GET experiments/{identifier}``. It has the same content as the start skeleton, which may mix in
        entries of experiments that were requested earlier.
        """
        from ._payload.draft import fetch_draft

        return await fetch_draft(self._session, experiment)

    @overload
    async def start(
        self,
        experiment: str | Experiment | Draft,
        payload: Mapping[str, Any] | StartPayload | Draft | None = None,
        *,
        key: str | None = None,
        memory: Memory | None = None,
    ) -> Run: ...
    @overload
    async def start(
        self,
        experiment: str | Experiment | Draft,
        *,
        inputs: Mapping[str, FileInput] | None = None,
        data: Mapping[str, FileInput] | None = None,
        variables: Mapping[str, Any] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        memory: Memory | None = None,
    ) -> Run: ...
    async def start(
        self,
        experiment: str | Experiment | Draft,
        payload: Mapping[str, Any] | StartPayload | Draft | None = None,
        *,
        inputs: Mapping[str, FileInput] | None = None,
        data: Mapping[str, FileInput] | None = None,
        variables: Mapping[str, Any] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        memory: Memory | None = None,
    ) -> Run:
        """
        Start an instance of an experiment, at most once.

            run = await client.start("demo", inputs={"molecules.csv": Path("molecules.csv")}, variables={"scale": 2})
            run = await client.start("demo", payload)  # a whole payload, in the form of the service

        The payload is checked before anything is sent, and sent unchanged. The service chooses what the payload leaves
        open. A start that may have arrived is never sent again. If the service refuses the payload without naming the
        entry, the definition of the experiment is fetched to find it. If the experiment is unknown, the list is
        fetched to suggest a similar name.

        A start that is cancelled after it was sent (`asyncio.timeout`, a failing sibling in a task group, a cancel
        scope, Ctrl-C) may have arrived. It waits up to a second for the response, logs a warning, and adds a note to
        the `asyncio.CancelledError`: the rest-uid, or how to find the instance. A `TimeoutError` of `asyncio.timeout`
        or `asyncio.wait_for` has that error as its ``__cause__``. A task group drops it, so that only the log has the
        note.

        With a key, an instance is started once, however many tasks, processes or machines call this with the same key
        and a memory that they share, at the same time or after a crash:

            memory = FolderMemory("/shared/memory")
            run = await client.start("demo", payload, key="dag/2026-11-29/task/0", memory=memory)

        The memory records the send before it happens, and its outcome. If the outcome is unknown, this call searches
        for the run. It sends again only with a proof that nothing was started, as `Batch` does. The proof takes
        `Config.settle`, which is 3 minutes by default. Without one, `StartOutcomeUnknown` is raised after three times
        `Config.settle`. Both take twice as long without a datastore. If the process that sent was killed, its record
        must first remain unchanged for `Config.settle`. An instance can be started twice only if a process is suspended
        for longer than `Config.settle` between its last check of the memory and the send, for example with its virtual
        machine.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``, an `Experiment`, or a
                `Draft`, which contains its payload. With a draft, ``payload`` has additional fields, as in
                `Draft.filled`.
            payload: Inputs, variables and other fields, as a mapping in the documented form of the service, a
                `StartPayload` or a `Draft`. None means that the fields below are the payload.
            inputs: Input files: name -> content, which is text, UTF-8 bytes, a `Path` of a file, a pandas DataFrame
                that is sent as CSV, or a `FileContent`. The service requires all that the experiment names.
            data: Data files of the package to replace, in the same form.
            variables: Variables to set: name -> text, number or boolean.
            platform: Platform to execute on. None means the default.
            metadata: Metadata to keep with the instance: name -> text, number or boolean.
            key: Any text that identifies this start in the deployment. It is not sent, but a hash of it is in the
                metadata of the instance, so that it is found if the memory is lost. So two memories must not have the
                same keys. None means that each call starts an instance.
            memory: Where keys are recorded, such as a `FolderMemory`; required with ``key``.

        Returns:
            The handle on the instance. With a key, the instance may have been started by an earlier call.

        Raises:
            TypeError: Only one of ``key`` and ``memory`` is passed, or both a payload and fields of one.
            LaunchConflict: The key was used for another experiment, payload or deployment. A start that was refused or
                not sent may be corrected.
            InvalidPayload: The payload is invalid. `MissingInputs`, `ExtraInputs`, `InputConflict` and
                `PayloadTooLarge` are subclasses. Nothing was started.
            UnknownExperiment: There is no such experiment. Nothing was started.
            StartOutcomeUnknown: The connection or the service failed when the instance may or may not have been
                started.

        Source: ``POST experiments/{identifier}/start`` of the runtime service.
        """
        whole = payload_of(payload, inputs=inputs, data=data, variables=variables, platform=platform, metadata=metadata)
        if (key is None) is not (memory is None):
            raise TypeError("a key needs a memory, and a memory a key: start(..., key=key, memory=FolderMemory(path))")
        if key is not None and memory is not None:
            from ._batch.launch import Launch

            return await self._start_with_key(Launch(key, experiment, whole), memory)
        identifier, start = resolve_drafts(experiment, whole)
        prepared = await prepare(start)
        try:
            async with suggesting(self._session, identifier):
                return Run(await self._session.send(start_call(identifier, prepared.content, prepared.secrets)), self)
        except InvalidPayload as error:
            from ._payload.explain import explain_invalid_payload

            await explain_invalid_payload(error, prepared, partial(self._session.send_once, get_call(identifier)))
            raise

    async def _start_with_key(self, launch: Launch, memory: Memory) -> Run:
        from ._batch.keyed_start import KeyedStart
        from ._batch.launch import read_launch

        prepared = await read_launch(launch, self._session.config.clock.wall())
        try:
            async with suggesting(self._session, launch.identifier):
                return Run(await KeyedStart(self, self._session, memory, launch.key).start(prepared), self)
        except InvalidPayload as error:
            from ._payload.explain import explain_invalid_payload

            experiment = partial(self._session.send_once, get_call(launch.identifier))
            await explain_invalid_payload(
                error, await prepare(resolve_drafts(launch.experiment, launch.payload)[1]), experiment
            )
            raise

    async def find(self, key: str, *, memory: Memory) -> Run | None:
        """
        Return the run that was started with a key. Nothing is started.

        Args:
            key: The key, as in `start`.
            memory: The memory, as in `start`.

        Returns:
            The handle on its run. None means that nothing was sent, or that it is proven that nothing was started.

        Raises:
            StartOutcomeUnknown: A send is recorded, and no run is found. A run can be found some seconds after it
                began. `start` with the same key waits for it.
            LaunchConflict: The key was used for another deployment.
            JournalCorrupt: The memory's record of the key is damaged.
        """
        from ._batch.keyed_start import KeyedStart

        found = await KeyedStart(self, self._session, memory, key).find()
        return None if found is None else Run(found, self)

    async def start_lambda(
        self,
        definition: Mapping[str, Any] | str | Path | LambdaPayload,
        payload: Mapping[str, Any] | None = None,
        *,
        validate: bool | None = None,
    ) -> Run:
        """
        Start an experiment that is not in a registry, at most once. For cancellation see `start`.

        With the extra ``engine``, the orchestrator's own libraries check the definition before anything is sent. They
        run in a separate process, which takes about half a second. They also convert DSL to FlowIR, the only form that
        the service accepts here, and find more than the service does, such as components that wait for each other.

        Args:
            definition: FlowIR or DSL 2.0: a mapping, YAML text, or the `Path` of a YAML file. Or the whole payload,
                with the definition under ``lambdaFlowIR``.
            payload: Files (``data``, ``scripts``) and other fields as in `start`. None means an empty payload. An
                experiment of this kind has no inputs.
            validate: Check the definition here. None means yes if the libraries are installed. Without the check, DSL
                is sent unconverted and refused.

        Raises:
            InvalidPayload: The payload is invalid. `InvalidFlowIR` is the subclass for the definition: ``problems`` has
                the problems found here, ``errors`` those that the service reported. Nothing was started.
            StartOutcomeUnknown: As in `start`.
            ConfigError: ``validate`` is True, and the libraries are not installed or fail.
            ImportError: The definition is YAML and PyYAML is not installed. It comes with ``engine``.

        Source: ``POST experiments/lambda/start`` of the runtime service.
        """
        from ._payload.lambdas import DSL_ADVICE, prepare_lambda

        prepared, is_dsl = await prepare_lambda(definition, payload, validate=validate)
        try:
            return Run(await self._session.send(lambda_call(prepared.content, prepared.secrets)), self)
        except InvalidFlowIR as error:
            if is_dsl:
                error.add_note(DSL_ADVICE)
            raise

    def batch(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_running: int | None = MAX_RUNNING,
        campaign: str | None = None,
    ) -> Batch:
        """
        Return a batch, which starts many launches exactly once each, even if this process crashes: see `Batch`.

        Args:
            path: File of the journal, created if missing. None means in memory: lost with the process.
            max_running: How many runs may be in progress at once, to protect the cluster. None means no limit.
            campaign: Name that goes into the metadata of each start, with the key of the launch. `find_batch` finds
                the runs by it, even if the journal is lost. Choose one that nobody else uses. None means no name.

        Raises:
            ValueError, TypeError: ``max_running`` or ``campaign`` is invalid.
        """
        from ._batch.batch import Batch

        return Batch(self, self._session, self._downloads, path=path, max_running=max_running, campaign=campaign)

    async def find_batch(self, campaign: str) -> list[Item]:
        """
        Return the runs of all batches with this campaign name, without their journals.

            for item in await client.find_batch("water-2026"):
                print(item.key, item.run, item.state)

        A run is found a few seconds after it began, when its orchestrator has written its first status, and also after
        it was deleted. A run that waits, or that failed during set-up, is not found, and neither is a launch without a
        run. States are those of the list of instances: see `Instances.list`.

        Args:
            campaign: The ``campaign`` of `batch`.

        Returns:
            The runs as launches, sorted by key and attempt; [] if there are none. Their ``state`` is ``started``,
            ``succeeded``, ``failed``, ``stopped`` or ``deleted``; ``files`` is empty.

        Raises:
            ValueError, TypeError: The name is not a campaign name.

        Source: ``POST documents/api/v1.0/query`` of the datastore, if there is one, and ``GET instances/`` of the
        runtime service.
        """
        from ._batch.campaign import find_batch

        return await find_batch(self, self._session, campaign)

    async def stage_inputs(
        self, files: Files, bucket: S3 | Mapping[str, Any], *, prefix: str | None = None, allow_http: bool = False
    ) -> Staged:
        """
        Upload local files to a bucket, for a start that takes them from there. Use it for inputs of more than 1 MiB.

        Files are uploaded several at once (``Config.downloads``). Each is streamed, and appears in the bucket only
        when it is complete::

            staged = await client.stage_inputs(["big/molecules.csv"], S3(bucket="mine", ...))
            run = await client.start("demo:latest", {**staged.as_inputs(), "variables": {"scale": 2}})

        Args:
            files: Paths, or a mapping from the names that the experiment sees to paths.
            bucket: The bucket, as an `S3` or a mapping of its fields. Its keys are also sent to the service, in the
                payload of the start.
            prefix: Folder in the bucket. Files of the same names are replaced. None means a new folder. Set it for a
                batch that may be resumed: otherwise its payloads name other files the next time.
            allow_http: Allow unencrypted transfers to an ``http://`` endpoint on another machine.

        Returns:
            The files, as a payload or a `Draft` takes them.

        Raises:
            ValueError: A path is not a file, two files have the same name, or a name or the prefix is invalid. Nothing
                was uploaded.
            ConfigError: The bucket lacks a key, a name or an endpoint, or the extra ``s3`` is not installed.
            S3Error: A file could not be read or uploaded; the error names it. Other files may have been uploaded.
                After an error or a cancellation, parts of a large file may stay in the bucket, invisible except to
                its lifecycle rules.

        Source: the container ``s3-fetch``, which the service runs before the experiment, fetches each file by its key.
        """
        return await _results.staging.stage_inputs(files, bucket, self._config, prefix=prefix, allow_http=allow_http)

    # Watching runs

    def run(self, run: RunLike) -> Run:
        """
        Return a handle on an instance. Nothing is sent; the instance may not exist.

        Args:
            run: The rest-uid, or a run, such as one that came from another process without its client.

        Raises:
            ValueError: The text does not have the form of a rest-uid (letters, digits, dashes, dots, underscores), or
                the run belongs to another deployment.
        """
        if isinstance(run, Run) and run.url != self.url:
            raise ValueError(f"{run.id!r} is a run of {run.url}, not of {self.url}: use a client of that deployment")
        return Run(_rest_uid(run), self)

    async def status(self, run: RunLike) -> Status:
        """
        Return the current status of a run. While the service has none, it is a pending status.

        Raises:
            UnknownRun: There is no such run.

        Source: ``GET instances/{id}/status`` of the runtime service.
        """
        return await self.instances.status(_rest_uid(run))

    @overload
    async def wait(  # type: ignore[overload-overlap] # a rest-uid is a text, and a text is an iterable of texts
        self, run: RunLike, *, timeout: float | None = None, interval: float | None = None, check: bool = False
    ) -> Status: ...
    @overload
    async def wait(
        self,
        run: Iterable[RunLike],
        *,
        timeout: float | None = None,
        interval: float | None = None,
        check: bool = False,
    ) -> list[Status]: ...
    async def wait(
        self,
        run: RunLike | Iterable[RunLike],
        *,
        timeout: float | None = None,
        interval: float | None = None,
        check: bool = False,
    ) -> Status | list[Status]:
        """
        Wait until one run, or all of several runs, have ended, and return the final status of each.

        Args:
            run: A run, or any number of them.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.
            check: Raise an error for runs that ended without Success, after all have ended. For the first five of them
                the reason is fetched, as in `failure`, within the ``timeout``.

        Returns:
            One status for a run, or a list in the given order for several. Among several, a run that was deleted has
            its last known status with ``is_deleted`` True, which is a pending one if the run was never seen.

        Raises:
            UnknownRun: There is no such run. For several runs: none of them exists.
            RunDeleted: The only run was deleted while it was watched.
            RunFailed: ``check`` is True and not all runs ended with Success.
            WaitTimeout: Not all runs are over in time. They continue.
        """
        clock = self._config.clock
        deadline = None if timeout is None else clock.now() + timeout
        order = [_rest_uid(run)] if _is_one_run(run) else _rest_uids(run)
        if _is_one_run(run):
            final = {order[0]: await waiting.wait_one(self._poller, order[0], timeout, interval)}
        else:
            final = await waiting.wait_all(self._poller, order, timeout, interval)
        if check:
            await self._failures.check(final, None if deadline is None else max(0.0, deadline - clock.now()))
        return final[order[0]] if _is_one_run(run) else [final[rest_uid] for rest_uid in order]

    async def watch(
        self, run: RunLike, *, timeout: float | None = None, interval: float | None = None
    ) -> AsyncGenerator[Status]:
        """
        Yield the statuses of a run until it has ended: the first at once, then every change, the final status last.

        Server errors, lost connections and renewed credentials do not end the iteration. Leaving the loop does not
        affect the run. Any number of tasks may watch runs through one client: they share its requests, as in
        `watch_many`.

        Args:
            run: The run.
            timeout: Seconds for the whole wait, however many requests it takes. None means no limit.
            interval: Seconds between two requests, more if the service is slow. None means ``Config.poll_interval``.

        Raises:
            UnknownRun: There is no such run.
            RunDeleted: The run was deleted while it was watched.
            WaitTimeout: The run is not over in time. It continues.
        """
        async with aclosing(waiting.watch_one(self._poller, _rest_uid(run), timeout, interval)) as statuses:
            async for status in statuses:
                yield status

    def watch_many(
        self, runs: Iterable[RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> AsyncGenerator[tuple[Run, Status]]:
        """
        Yield the statuses of many runs until all have ended: for each run the first, every change, and the final one
        once.

        Thousands of runs cost the service little more than one: they are read from one list. A slow consumer gets the
        newest status of each run, never a backlog. A deleted run ends with its last known status, with ``is_final``
        and ``is_deleted`` True. If it was deleted before it was seen, or never existed, that is a pending status whose
        ``hint`` quotes the service.

        The list does not show a killed orchestrator, or why a run is waiting. Runs are therefore also requested one by
        one, three in a round: a killed run among hundreds may be found only after a hundred rounds. A shorter
        ``interval`` finds it sooner.

        Args:
            runs: Runs or rest-uids. Duplicates are ignored.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two rounds, at least ten times what the last round took. None means
                ``Config.poll_interval``.

        Raises:
            UnknownRun: None of the runs exists, or existed while it was watched.
            WaitTimeout: Not all runs are over in time. The error has the last status of each, pending if none was
                received, and the last failure of the service as its cause, if there was one.
            DecodeError: The first response cannot be decoded, or none for a minute.
            Unauthorized: The credentials were refused and could not be renewed. The error has the last statuses.

        Source: ``GET instances/`` and ``GET instances/{id}/status`` of the runtime service.
        """
        handles = {_rest_uid(run): _bound(run, self) for run in _each(runs)}
        return self._poller.watch(handles, timeout, interval)

    @overload
    async def show(  # type: ignore[overload-overlap] # a mapping is an iterable of its labels
        self, runs: Mapping[str, RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> dict[str, Status]: ...
    @overload
    async def show(
        self, runs: Iterable[RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> list[Status]: ...
    async def show(
        self,
        runs: Iterable[RunLike] | Mapping[str, RunLike],
        *,
        timeout: float | None = None,
        interval: float | None = None,
    ) -> list[Status] | dict[str, Status]:
        """
        Show runs in a live table until all have ended, and return their final statuses.

            await client.show({"water": run_1, "ethanol": run_2})

        Each row has the label or the rest-uid of a run, its state, its stage while it runs, and the time since the
        display began. At the end, it shows why runs failed, as `failure` does, for the first five.

        The table is the output of the cell in a notebook, and the lower end of the screen in a terminal (with rich,
        which the extra ``cli`` installs). Elsewhere, lines are written to standard error. If there are many runs, a
        notebook groups similar ones, a terminal shows the most urgent ones and counts the others, and lines have only
        the counts. The runs are watched as in `watch_many`: showing them costs the service nothing.
        An interrupt, such as the stop button of a notebook, does not affect the runs, and the table says so. A notebook
        does not show the returned statuses below the table if the call is the last expression of a cell.

        Args:
            runs: Runs or rest-uids, or a mapping from labels to them.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two rounds. None means ``Config.poll_interval``.

        Returns:
            The final statuses, in the given order: a list, or a dictionary with the labels for a mapping. A run that
            was deleted has ``is_deleted`` True.

        Raises:
            UnknownRun, WaitTimeout, Unauthorized: As in `watch_many`.
        """
        from ._display.show import Statuses, StatusesByLabel, show  # most programs show nothing

        labels = _labels(runs) if isinstance(runs, Mapping) else None
        order = _rest_uids(runs) if labels is None else list(labels.values())
        names = {rest_uid: rest_uid for rest_uid in order}
        for label, rest_uid in (labels or {}).items():
            names[rest_uid] = label if names[rest_uid] == rest_uid else f"{names[rest_uid]}, {label}"
        changes = self.watch_many(order, timeout=timeout, interval=interval)
        final = await show(names, changes, self._config.clock, self._failures.of_failed, lambda: self.outage)
        if labels is None:
            return Statuses(order, final)
        return StatusesByLabel({label: final[rest_uid] for label, rest_uid in labels.items()})

    async def delete(self, run: RunLike) -> None:
        """
        Stop a run and delete it. Its files stay. Returns before the run has stopped.

        Raises:
            UnknownRun: There is no such run.

        Source: ``DELETE instances/{id}`` of the runtime service.
        """
        await self.instances.delete(_rest_uid(run))

    # Results of runs

    async def outputs(self, run: RunLike) -> dict[str, KeyOutput]:
        """
        Return the key-outputs of a run that exist now, by name. An empty dict if there are none yet.

        Raises:
            UnknownRun: There is no such run.

        Source: ``GET instances/{id}/outputs`` of the runtime service.
        """
        return await self.instances.outputs(_rest_uid(run))

    async def output(self, run: RunLike, name: str, path: str | None = None) -> Output:
        """
        Return the contents of a key-output: a file unchanged, a folder as a zip archive.

        Args:
            run: The run.
            name: The key-output.
            path: A file or folder in a folder key-output, such as ``"sub/b.bin"``. None means all of it.

        Raises:
            UnknownRun: There is no such run.
            UnknownOutput: The run has no such key-output, or not yet, or no such file in it. ``known`` names those
                that exist.
            DecodeError: The response is not a file, but for example the web page of a proxy.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads the whole output into memory:
        one of gigabytes is likely to time out.
        """
        return await _results.outputs.read_output(self.instances, _rest_uid(run), name, path)

    async def properties(
        self, run: RunLike | Iterable[RunLike], names: Iterable[str] | None = None, *, strict: bool = False
    ) -> Properties:
        """
        Return the measured properties of one run or several as one table. See `Properties` for rows and columns.

        Properties exist once a run is over. For several runs they come from the datastore, in one request for up to
        500 runs. Runs whose end it does not know yet, which takes 10 to 20 s, are requested one by one. Deleted runs
        keep their properties.

        Args:
            run: A run, or any number of them. Duplicates are ignored.
            names: Columns, in any case. They follow ``input-id`` in the given order. None means all.
            strict: Raise the error of a run without properties, even if there are several runs.

        Returns:
            For one run, its table. For several, one table with the column ``rest-uid`` first, in the given order, with
            all columns that any run has. Runs without properties are left out; their errors are in ``problems``.

        Raises:
            NotReady: The run is not over, or not known to be.
            NoProperties: The run is over and measured none, because its experiment measures none or because it
                failed. If the run succeeded, the message names the property that could not be extracted, and why, from
                the logs of the first five such runs.
            UnknownProperty: The run measured properties, but not all of ``names``. ``known`` has those it measured.
                For several runs it is raised if all that have properties lack the same name.
            UnknownRun: There is no such run, and the datastore has no properties of it.

        Source: ``GET instances/{id}/properties`` of the runtime service, and ``POST documents/api/v1.0/query`` of the
        datastore.
        """
        reader = self._properties_reader(names)
        if _is_one_run(run):
            return await reader.of_run(_rest_uid(run))
        return await reader.of_runs(list(dict.fromkeys(_rest_uids(run))), strict=strict)

    async def properties_in_parts(
        self, runs: Iterable[RunLike], names: Iterable[str] | None = None, *, rows: int = ROWS_PER_PART
    ) -> AsyncGenerator[pandas.DataFrame]:
        """
        Yield the measured properties of many runs as pandas DataFrames, so that only one part is in memory.

            async for part in client.properties_in_parts(runs, ["energy"]):
                print(part["energy"].mean())

        The parts are the table of `properties`, cut into pieces. A part has the columns that any of its runs has, with
        dtypes that are found in its values, so parts may differ. With ``names`` they have the same columns. Up to 500
        runs are read at a time. Runs without properties are left out. At the end, a warning in the log counts them.

        Args:
            runs: Any number of runs. Duplicates are ignored.
            names: Columns, in any case. They follow ``rest-uid`` and ``input-id`` in the given order. None means all.
            rows: Rows of each part; the last one has fewer.

        Raises:
            UnknownProperty: All runs that measured properties lack the same name.
            ValueError: ``rows`` or a name is invalid.
            ImportError: pandas is not installed.

        Source: as for `properties`.
        """
        _results.parts.check_rows(rows)
        reader = _results.properties.PartsReader(self._properties_reader(names))
        rest_uids = list(dict.fromkeys(_rest_uids(runs)))
        async with aclosing(_results.parts.frames(reader.tables(rest_uids), rows)) as parts:
            async for part in parts:
                yield part

    def _properties_reader(self, names: Iterable[str] | None, /) -> PropertiesReader:
        columns = _results.properties.requested_columns(names)
        return _results.properties.PropertiesReader(self.instances, self.datastore, columns, self._redacted_log)

    async def _redacted_log(self, rest_uid: str) -> str:
        """Return the log of a run without the credentials of this client, for messages."""
        return redact(await self.log(rest_uid), self._session.secrets())

    async def download_outputs(
        self,
        run: RunLike,
        to: str | os.PathLike[str],
        names: str | Iterable[str] | None = None,
        *,
        unpack: bool = False,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """
        Download key-outputs, several at once, each into a folder of its name.

        An interrupted call can be repeated, as with `download_files`. A newer version of a key-output is fetched
        again. A name that is not a valid folder name everywhere, or that differs from another only in case, gets a
        digest: ``a_b~`` and 32 hexadecimal digits. Ordinary names (letters, digits, ``.``, ``_``, ``-``) do not.

        Args:
            run: The run.
            to: Folder, created if missing, ideally one for each run: ``<to>/Energies/energies.csv``,
                ``<to>/Folder/results.zip``.
            names: Key-outputs. None means all that exist now; if the run is not over, a warning is logged.
            unpack: Unpack folders: ``<to>/Folder/sub/b.bin``.
            strict: Raise the first error after everything else was fetched, instead of returning it.

        Returns:
            The outcome for each key-output, in the given order; for an unpacked folder, for each file in it.

        Raises:
            UnknownRun: There is no such run.
            DownloadError: The folder cannot be created. With ``strict``, this and any other `St4sdError`.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads each output into memory
        first: one of gigabytes is likely to time out. `download_component` fetches it then.
        """
        chosen = [names] if isinstance(names, str) else names if names is None else list(names)
        found = await self._downloads.outputs(_rest_uid(run), Path(to), chosen, unpack=unpack)
        return _results.downloads.raise_if_strict(found, strict=strict)

    async def download_files(
        self,
        run: RunLike,
        to: str | os.PathLike[str],
        *,
        component: str | None = None,
        stage: int | None = None,
        filename: str | None = None,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        r"""
        Download files of components, many at once, into a folder with the layout of the instance.

        A file appears under its name only when it is complete, and then replaces an older one. An interrupted call can
        be repeated, even after a crash: a file that was fetched before and has not changed is not fetched again. The
        hidden file ``.st4sd-downloads.jsonl`` in the folder records this. A file that is too large for the gateway's
        own limit is fetched with the archive of its whole component.

        The folder may be a symbolic link. Links inside it are not followed: a file behind one is a `DownloadFailed`.
        A name that begins with ``.st4sd-`` gets a ``_`` in front.

        Args:
            run: The run, or its location (``file://...``). Waits for its documents, as `Datastore.document` does. If
                the run is not over, only files of components that are over exist.
            to: Folder, created if missing, ideally one for each run: ``<to>/stages/stage0/Compute/energies.csv``.
            component: Regular expression, searched for in the name of a component: ``"Comp"``, ``"^Compute$"``. Or a
                reference: ``stage0.`` and such an expression. None means all.
            stage: Index of the stage. None means all.
            filename: Regular expression, searched for in the absolute path of a file and in its path below the
                directory of its component: ``r"\.csv$"``, ``"^energies.csv$"``. None means all.
            strict: Raise the first error after everything else was fetched, instead of returning it.

        Returns:
            The outcome for each matching file, ordered by stage and component. [] if no file matches.

        Raises:
            NotFound: No component matches. The error names the components.
            NotReady, UnknownRun: As in `Datastore.document`.
            DownloadError: The folder cannot be created. With ``strict``, this and any other `St4sdError`.

        Source: ``POST files/api/v1.1`` and ``GET experiment/download`` of the gateway.
        """
        found = await self._downloads.files(_rest_uid_or_uri(run), Path(to), component, stage, filename)
        return _results.downloads.raise_if_strict(found, strict=strict)

    async def download_component(
        self, run: RunLike, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
    ) -> list[Download | DownloadFailed]:
        """
        Download the whole working directory of a component as it is now, all of it or nothing.

        It comes as one archive of any size. The folder needs room for the archive and for its contents. Empty
        directories are lost. If the component is over and was fetched before, nothing is fetched.

        Args:
            run: The run, or its location (``file://...``).
            stage: Index of the stage.
            component: Exact name of the component, such as ``"Compute"``.
            to: Folder for the contents, created if missing. Files of the same names are replaced.
            strict: Raise the error if it cannot be fetched, instead of returning it.

        Returns:
            The files, or one `DownloadFailed` for all of them. [] if the directory is empty.

        Raises:
            NotReady, UnknownRun: As in `Datastore.document`.
            DownloadError: The folder cannot be created. With ``strict``, this and any other `St4sdError`.

        Source: ``GET experiment/download`` of the gateway.
        """
        return _results.downloads.raise_if_strict(
            await self._downloads.component(_rest_uid_or_uri(run), stage, component, Path(to)), strict=strict
        )

    async def read_file(self, run: RunLike, path: str | os.PathLike[str], *, limit: int = MOST_BYTES) -> bytes:
        """
        Return the content of one file of a run.

        Args:
            run: The run, or its location as documents have it: ``file://<id of a gateway>/<path>``.
            path: Relative to the directory of the instance, such as ``output/experiment.log``, or absolute, as in
                ``ComponentDocument.files``.
            limit: Largest size in bytes. A gateway never sends more than 32 MiB.

        Raises:
            NotFound: There is no such file, or the gateway is unknown.
            DownloadError: The file is too large, or was damaged on the way.
            NotReady, UnknownRun: The location of the run is not known, or not yet: see `Datastore.document`.
            ValueError: The path leads out of the directory of the instance.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await self._downloads.read(_rest_uid_or_uri(run), path, limit)

    async def csv(
        self,
        run: RunLike,
        filename: str = CSV_FILES,
        *,
        component: str | None = None,
        stage: int | None = None,
    ) -> list[Table]:
        """
        Return the tables that components of a run wrote, each as a DataFrame with the document of its component.

        The files are fetched together and parsed one by one, in memory. ``component_performance.csv``, which the
        orchestrator itself writes, is among them.

        Args:
            run: The run, or its location (``file://...``).
            filename: Regular expression for files, as in `download_files`.
            component: Regular expression, searched for in the name of a component: ``"Comp"``, ``"^Compute$"``. Or a
                reference: ``stage0.`` and such an expression. None means all.
            stage: Index of the stage. None means all.

        Returns:
            A `Table` for each matching file, ordered by stage and component. [] if no file matches. A file that could
            not be fetched, or is not a table, has a ``problem``, which its `Table.dataframe` raises.

        Raises:
            ImportError: pandas is not installed.
            NotFound, NotReady, UnknownRun: As in `download_files`.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await _results.tables.csv(
            self._downloads, self.datastore, _rest_uid_or_uri(run), filename, component, stage
        )

    async def stdout(self, run: RunLike, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """
        Return the standard output of components that are over: reference (``stage0.Compute``) -> text, by stage.

        It is that of the last task of each component. Bytes that are not UTF-8 are replaced. A component that never
        ran is left out.

        Args:
            run: The run, or its location (``file://...``).
            component: Regular expression, searched for in the name of a component: ``"Report"``,
                ``"^(Compute|Report)$"``. Or a reference: ``stage0.`` and such an expression. None means all.
            stage: Index of the stage. None means all.

        Raises:
            NotFound: No component matches. The error names the components.
            NotReady, UnknownRun: As in `download_files`.
            St4sdError: A text could not be fetched.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await _results.tables.written(
            self._downloads, self.datastore, _rest_uid_or_uri(run), component, stage, _results.tables.STDOUT_FILE
        )

    async def stderr(self, run: RunLike, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """
        Return the standard error of components that are over: reference (``stage0.Compute``) -> text, by stage.

        It is that of the last task of each component, and "" if the task wrote none. On Kubernetes, `stdout` has what
        a task wrote to either.

        Args:
            run, component, stage: As in `stdout`.

        Raises:
            NotFound, NotReady, UnknownRun, St4sdError: As in `stdout`.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await _results.tables.written(
            self._downloads, self.datastore, _rest_uid_or_uri(run), component, stage, _results.tables.STDERR_FILE
        )

    async def failure(self, run: RunLike, *, timeout: float = FAILURE_TIMEOUT) -> Failure | None:
        """
        Return why a run failed: its failed components, with the last lines of what they wrote.

        They are read from the files of the run, usually before its documents are in the datastore. If no component
        failed, the failure has the end of the orchestrator's log. Of a run that failed at set-up no file is served:
        the failure has its error description only, and its ``note`` says so. So it does if a file cannot be fetched.

        Args:
            run: The run. It may be going on: a component may have failed already.
            timeout: Seconds after which the failure is returned without what is missing. The request for the status,
                which comes first, is retried like any other.

        Returns:
            The failure. None means that the run has not failed.

        Raises:
            UnknownRun: There is no such run, and the datastore has no final status of it.

        Source: ``output/status_details.json``, ``out.stderr`` and ``out.stdout`` of components, and
        ``output/experiment.log`` in the directory of the run, by ``POST files/api/v1.1`` of the gateway.
        """
        return await self._failures.of_run(_rest_uid(run), timeout)

    async def log(self, run: RunLike) -> str:
        """
        Return the log of a run's orchestrator. Bytes that are not UTF-8 are replaced.

        Waits until the datastore knows where the run is: it learns of a run 10 to 20 s after its beginning or end.

        Raises:
            NotFound: There is no log, or not yet. A deleted run has none.
            NotReady, UnknownRun, DownloadError: As in `read_file`.

        Source: ``output/experiment.log`` in the directory of the run.
        """
        return await _results.tables.log(self._downloads, _rest_uid_or_uri(run))

    async def status_report(self, run: RunLike) -> StatusReport:
        """
        Return the state of each component of a run, as the orchestrator last wrote it: some seconds ago, or at the end.

        Raises:
            NotFound: There is no report, or not yet. A deleted run has none.
            NotReady, UnknownRun: As in `read_file`.
            DecodeError: The report is incomplete or damaged, as by a full disk. A later one may be complete.

        Source: ``output/status_details.json`` in the directory of the run.
        """
        return await _results.tables.status_report(self._downloads, _rest_uid_or_uri(run))

    async def fetch_s3_outputs(
        self,
        run: RunLike,
        to: str | os.PathLike[str],
        *,
        store: S3Store | Mapping[str, Any],
        names: str | Iterable[str] | None = None,
        strict: bool = False,
        allow_http: bool = False,
    ) -> list[Download | DownloadFailed]:
        """
        Download key-outputs that a run uploaded to a bucket. Unlike `download_outputs`, it takes any size.

        An interrupted call can be repeated: like `download_files` it fetches only what is missing or has changed.

        Args:
            run: The run.
            to: Folder, created if missing, ideally one for each run: ``<to>/Energies/energies.csv``,
                ``<to>/Folder/sub/b.bin``.
            store: The ``s3Store`` that the run was started with, as an `S3Store` or a mapping.
            names: Key-outputs. None means all that exist now.
            strict: Raise the first error after all other files were fetched, instead of returning it.
            allow_http: Allow unencrypted transfers to an ``http://`` endpoint on another machine.

        Returns:
            The outcome of each file, in the order of the key-outputs. A file that is not in the bucket, or has the
            same key as another, is a `DownloadFailed`.

        Raises:
            UnknownRun: There is no such run.
            NotReady: The folder to which the run uploads is not known yet.
            ConfigError: The bucket lacks a key, a name or an endpoint, or the extra ``s3`` is not installed.
            DownloadError: The folder cannot be created. With ``strict``, this and any other `St4sdError`.

        Source: ``OutputToS3`` of st4sd-runtime-core, which uploads at the end of each stage.
        """
        found = await _results.staging.fetch_outputs(
            _rest_uid(run), Path(to), store, self.instances, self._config, names=names, allow_http=allow_http
        )
        return _results.downloads.raise_if_strict(found, strict=strict)

    # Other registries and services

    async def fetch_experiment(
        self, source: str | Client, identifier: str | None = None, *, allow_http: bool = False
    ) -> ImportedExperiment:
        """
        Return an experiment of another registry, and what it requires that this deployment may lack.

        Nothing is pushed. An address receives credentials only if it is that of this deployment or is trusted. For
        another registry that needs a login, pass an open `Client` of it.

        Args:
            source: Address of a registry, such as `GLOBAL_REGISTRY`, or of one of its pages, or a client of another
                deployment.
            identifier: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``. None means the
                experiment of the page at the address.
            allow_http: Allow an unencrypted connection to a registry on another machine, where others can change the
                response.

        Raises:
            UnknownExperiment: The registry has no such experiment. The global one repeats that response for 10 minutes.
            Unauthorized: The registry is private: pass a client of it as the source.
            DecodeError: The address is not that of a registry, the response is not an experiment, or it is another one:
                the name differs, or the digest if ``name@digest`` was requested.
            ValueError: The address is invalid, or plain http without ``allow_http``, or there is no identifier.

        Source: ``GET registry-ui/backend/experiments/{identifier}`` of a registry, or ``GET experiments/{identifier}``
        of a client's runtime service; then, if needed, ``GET image-pull-secrets/`` and ``GET datasets/`` here.
        """
        return await self._importer.fetch(_registry(source), identifier, allow_http=allow_http)

    async def import_experiment(
        self,
        source: str | Client,
        identifier: str | None = None,
        *,
        allow_http: bool = False,
        allow_missing: bool = False,
    ) -> Experiment:
        """
        Fetch an experiment of another registry and push it here with its tags, if this deployment meets its
        requirements.

        It is pushed without tags, its digest is compared, and then it is tagged: with the tag that was requested, and
        those of its definition that the other registry shows for it. Tags of the same name here move to it. A push
        always moves ``latest``.

        Only ``name@digest`` pins the content. If the registry here computes another digest, ``latest`` and all other
        tags are restored and the content is deleted. A start of ``name:latest`` in between would use it. Without a
        digest, the content is what the other registry returns. If the digest here differs, for example because a branch
        moved, a WARNING is logged.

        The call may be repeated: the same content has the same digest, and no second entry.

        Args:
            source, identifier, allow_http: As in `fetch_experiment`.
            allow_missing: Push it even if this deployment lacks something that it requires.

        Returns:
            The experiment as the registry here stores it, with its digest.

        Raises:
            MissingRequirements: This deployment lacks something. Nothing was pushed. Requirements that cannot be
                checked, such as whether an image is public, are no error. For image registries, and for credentials in
                the definition, a warning is logged.
            DigestMismatch: The content does not have the digest that was requested.
            InvalidPackage: The service here cannot fetch the package, or refuses it.
            UnknownExperiment, Unauthorized, DecodeError, ValueError: As in `fetch_experiment`.
        """
        return await self._importer.import_experiment(
            _registry(source), identifier, allow_http=allow_http, allow_missing=allow_missing
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        service: str | None = None,
    ) -> Any:
        """
        Send a custom request, for an endpoint without a method in this library, and return the JSON response.

        Credentials, limits, errors and retries are those of all other requests. GET, PUT and DELETE may be repeated; a
        POST that may have arrived is never repeated. Fields named as passwords, keys or environments are masked in
        messages; other parts of the body may be quoted.

        Args:
            method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
            path: Path below the service. Include the slash at the end if the route has one: redirects are not
                followed.
            params: Query parameters, name -> value. None means none.
            json: The body. None means no body.
            service: Name of a service, as in `Deployment.services`. None means the runtime service.

        Raises:
            UnknownService: The deployment has no such service.
            OutcomeUnknown: A POST may or may not have been carried out.
            DecodeError: The response is not JSON.
            ValueError: The method or the path is invalid. Nothing was sent.
        """
        services = {} if service is None else await self._session.services()
        return await self._session.send(request_call(method, path, params, json, services, service))


def downloads_of(client: Client) -> Downloads:
    """Return the downloads of a client, for the command line, whose folders the user does not name one by one."""
    return client._downloads


def result_tree_of(client: Client) -> ResultTree:
    """Return the results of runs as a tree of files, for urls."""
    from ._results.result_tree import ResultTree

    return ResultTree(client._session, client._downloads, client.datastore, client.instances)


async def reasons_of(client: Client, last: Mapping[str, Status]) -> dict[str, Failure]:
    """
    Return why runs failed, by rest-uid, of the first five that did; for the command line. Never raises.

    Args:
        client: The client.
        last: rest-uid -> last status.
    """
    return await client._failures.of_failed(last)


def _registry(source: str | Client | Registry) -> str | Registry:
    """Return a client as a registry to import from. The blocking client passes a registry itself."""
    return Registry(source.url, source.experiments) if isinstance(source, Client) else source


def _unpickled(
    cls: type[Client], url: str, sources: tuple[Secret | None, Secret | None] | None, config: Config
) -> Client:
    """
    Return a client as it arrives in another process.

    Args:
        cls: Its class.
        url: Its deployment.
        sources: The sources of the API key and the auth-token. None means the environment of this process.
        config: Its settings.

    Raises:
        ConfigError: The environment names another deployment, or none.
    """
    if sources is not None:
        return cls(url, api_key=sources[0], auth_token=sources[1], config=config)
    client = cls.from_env(config=config)
    if client.url != url:
        # The credentials here are those of another deployment.
        raise ConfigError(f"a client of {url} was made from the environment, but {URL_VARIABLE} is {client.url} here")
    return client


def _bound(run: object, client: Client) -> Run:
    """Return the handle on a run; a new one if it is given as a text or without a client."""
    return run if isinstance(run, Run) and run.is_bound else Run(_rest_uid(run), client)


def _is_one_run(run: object) -> bool:
    """Return whether a value stands for one run and not for several."""
    return isinstance(run, str) or not isinstance(run, Iterable)


def _rest_uid(run: object) -> str:
    """
    Return the rest-uid of a run.

    Raises:
        ValueError: The text does not have the form of a rest-uid.
        TypeError: The value is neither a Run nor a text.
    """
    return check_rest_uid(_text_of(run))


def _rest_uids(runs: object) -> list[str]:
    """Return the rest-uids of several runs; raise as `_rest_uid`."""
    return [_rest_uid(run) for run in _each(runs)]


def _labels(runs: Mapping[Any, object]) -> dict[str, str]:
    """Return label -> rest-uid; raise TypeError for a label that is not a text, otherwise raise as `_rest_uid`."""
    for label in runs:
        if not isinstance(label, str):
            raise TypeError(f"the label of a run must be a string, not {label!r}")
    return {label: _rest_uid(run) for label, run in runs.items()}


def _rest_uid_or_uri(run: object) -> str:
    """Return the rest-uid of a run, or the ``file://`` uri of its directory if that was given; raise as `_rest_uid`."""
    text = _text_of(run)
    return text if text.startswith(SCHEME) else check_rest_uid(text)


def _text_of(run: object) -> str:
    if isinstance(run, Run):
        return run.id
    if isinstance(run, str):
        return run
    problem = f"a run must be a Run or a rest-uid, not {type(run).__name__}"
    if isinstance(run, Iterable):
        raise TypeError(f"{problem}: {ONE_RUN}")
    raise TypeError(f"{problem} (is an 'await' missing?)")


def _each(runs: object) -> list[object]:
    if isinstance(runs, Iterable) and not isinstance(runs, str):
        return list(runs)
    raise TypeError(f"runs must be an iterable of Run or rest-uids, not {runs!r}: give [run], or watch() it")
