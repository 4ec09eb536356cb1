"""The client: the verbs that people use, composed of the endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from ._api import datastore, documents, experiments, gateways, instances
from ._batch.limiter import MAX_RUNNING
from ._client_groups import Groups
from ._client_results import Results
from ._client_waits import Waits
from ._config import Config, from_environment
from ._errors import APIError, DecodeError, InvalidFlowIR, InvalidPayload, TransportError
from ._http.call import Call
from ._http.retry import RetryPolicy
from ._http.session import Session, Take
from ._import import Imports
from ._payload.prepare import Prepared, prepare, resolve_drafts
from ._results import staging
from ._results.downloads import Downloads, judged
from ._results.staging import Files
from ._run import Run, RunLike, rest_uid_of
from ._util.field_docs import document_fields
from ._watch.poller import Poller
from .models import Experiment

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from ._batch.batch import Batch
    from ._batch.reconcile_rules import Listed
    from ._http.credentials import Secret
    from ._payload.draft import Draft
    from ._util.progress import Progress
    from .models import (
        S3,
        Download,
        DownloadFailed,
        LambdaPayload,
        S3Store,
        Staged,
        StartPayload,
        Status,
    )

T = TypeVar("T")

ONE_LOOK = RetryPolicy(attempts=1)
"""Where something else is the retry, as the next look while a run is watched."""


class _Keep(Enum):
    """Stands for an option that is left as it is, where None has a meaning of its own."""

    KEEP = "keep"


_KEEP = _Keep.KEEP


@document_fields
class Client(Groups, Waits, Results, Imports):
    """
    A client of one ST4SD deployment.

        async with Client("https://st4sd.example", api_key="...") as client:
            run = await client.start("demo:latest", {"variables": {"scale": 2}})
            status = await run.wait(check=True)

    Nothing touches the network before ``async with``; entering proves the login. All methods may be awaited from many
    tasks at once, of the asyncio event loop in which the client was opened. In another event loop, and in a process
    that was forked meanwhile, they raise `St4sdError` and send nothing. They wait for a service that restarts, for as
    long as ``Config.retry`` says. Besides what each method names, all raise `TransportError` when the service cannot
    be reached, `Unauthorized` when the credentials are refused, and `APIError` for whatever else the service refuses.

    Args:
        url: Address of the deployment; ``/rs`` and what follows it is left out.
        api_key: API key, sent as a bearer; wins over ``auth_token``.
        auth_token: Token from ``<url>/authorisation/token``, sent as a cookie.
        config: All other settings; None: the defaults of `Config`.

    Either credential may be a string, a `pathlib.Path` that is read again whenever it is needed, or
    a callable, sync or async, that is asked again when the service refuses what it gave.

    Raises:
        ConfigError: A setting will not do.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Secret | None = None,
        auth_token: Secret | None = None,
        config: Config | None = None,
    ) -> None:
        settings = config or Config()
        self._bind(Session(url, api_key, auth_token, settings), settings)

    def _bind(self, session: Session, config: Config) -> None:
        self._session = session
        self._config = config
        self._poller = Poller(self._send_once, self._last_word, config, session.check)
        self._bind_groups(self._send)
        self.experiments = experiments.Experiments(self._send)
        """The registry of experiments."""
        self.instances = instances.Instances(self._send)
        self.datastore = datastore.Datastore(self._send, self._documents, self.instances.status, config.clock)
        self.gateways = gateways.Gateways(self._send, self._registry, session.root, session.gateways, config.clock)
        self._downloads = Downloads(
            self._stream, session.credentials.secrets, self.gateways, self.datastore, self.instances, config
        )

    @classmethod
    def from_env(cls, *, config: Config | None = None) -> Self:
        """
        A client for the deployment that the environment names.

        Reads ``ST4SD_URL``, ``ST4SD_API_KEY``, ``ST4SD_AUTH_TOKEN`` and ``ST4SD_CA_FILE``.

        Args:
            config: All other settings; its ``verify`` wins over ``ST4SD_CA_FILE`` unless it is True.

        Raises:
            ConfigError: ``ST4SD_URL`` is not set, or a setting will not do.
        """
        url, api_key, auth_token, settings = from_environment(config)
        return cls(url, api_key=api_key, auth_token=auth_token, config=settings)

    @classmethod
    def from_context(cls, name: str | None = None, *, config: Config | None = None) -> Self:
        """
        A client with a login of the command ``stp``, which keeps tokens in the keyring of this machine.

        Needs the extra ``keyring``. Two small files are read now; the keyring, which may ask the user to unlock
        it, is read in a worker thread when the client is entered, and again when the service refuses the token, so
        that another ``stp login`` is noticed.

        Args:
            name: Name of the context; None: ``STP_DEFAULT_CONTEXT``, else the active one.
            config: All other settings; its ``verify`` wins over ``ST4SD_CA_FILE`` unless it is True. Unlike ``stp``,
                a client verifies certificates.

        Raises:
            ConfigError: There is no such context, its files cannot be read, or the extra is not installed. On
                entering: the keyring has no token for it, or cannot be read.

        Source: ``stp_settings.json`` and ``stp_contexts.json`` in the application folder of ``stp``, or where
        ``STP_SETTINGS_FILE`` and ``STP_CONTEXTS_FILE`` say.
        """
        from ._http.contexts import from_context

        url, auth_token, settings = from_context(name, config)
        return cls(url, auth_token=auth_token, config=settings)

    def with_options(
        self,
        *,
        timeout: float | _Keep = _KEEP,
        retry: RetryPolicy | _Keep = _KEEP,
        poll_interval: float | _Keep | None = _KEEP,
        grace: float | _Keep = _KEEP,
        settle: float | _Keep = _KEEP,
        progress: Progress | _Keep | None = _KEEP,
    ) -> Self:
        """
        A client over the same connections, with some settings changed; it lives as long as this one.

        What belongs to the connections (``concurrency``, ``downloads``, ``verify``, ``trusted_hosts``) is shared.
        The meaning of each option is that of the field of `Config`.
        """
        given = {
            "timeout": timeout,
            "retry": retry,
            "poll_interval": poll_interval,
            "grace": grace,
            "settle": settle,
            "progress": progress,
        }
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not _KEEP}
        other = self.__class__.__new__(self.__class__)
        other._bind(self._session, replace(self._config, **changed))
        return other

    async def __aenter__(self) -> Self:
        """
        Open the connections and, unless ``Config.validate`` is False, prove the login with ``GET url-map/``.

        Raises:
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """
        await self._session.open()
        try:
            if self._config.validate:
                await self._session.services(self._config)
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections. Runs go on."""
        await self.close()

    async def open(self) -> Self:
        """
        Open it as ``async with`` does, where blocks cannot be: in a notebook, whose cells share it; `close` it.

            client = await Client("https://st4sd.example", api_key="...").open()
        """
        return await self.__aenter__()

    async def close(self) -> None:
        """Close the connections. Runs go on."""
        await self._session.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("this client is asynchronous: use 'async with', or st4sd_async.sync.Client")

    def __exit__(self, *_: object) -> None:
        """Never reached."""

    def __repr__(self) -> str:
        state = "open" if self._session.is_open else "not open"
        return f"{type(self).__name__}({self._session.home.geturl()!r}, {state})"

    async def _send(self, call: Call[T], /) -> T:
        return await self._session.send(call, self._config)

    async def _stream(self, call: Call[T], take: Take[T], /, *, once: bool = False) -> T:
        config = replace(self._config, retry=ONE_LOOK) if once else self._config
        return await self._session.stream(call, take, config)

    async def _send_once(self, call: Call[T], /) -> T:
        return await self._session.send(call, replace(self._config, retry=ONE_LOOK))

    async def _last_word(self, rest_uid: str) -> Status | None:
        """How a deleted run ended, if the datastore knows and answers."""
        with suppress(APIError, TransportError, DecodeError):
            return await self._send_once(documents.end_call(await self._documents(), rest_uid))
        return None

    async def _documents(self) -> str:
        return documents.root(await self._session.services(self._config))

    async def _registry(self) -> str:
        return gateways.root(await self._session.services(self._config))

    def run(self, rest_uid: str) -> Run:
        """
        Return a handle on the instance with this rest-uid, without asking whether it exists.

        Raises:
            ValueError: The text does not have the form of a rest-uid: letters, digits, dashes, dots, underscores.
        """
        instances.instance_path(rest_uid)
        return Run(rest_uid, self)

    async def push(self, package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry; moves its tags and ``latest``.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``; or an experiment got
                from a registry.

        Returns:
            The experiment as the registry has it, with its digest.

        Raises:
            InvalidPackage: The definition or the package it points to will not do.

        Source: ``POST experiments/`` of the runtime service.
        """
        return await self.experiments.push(package)

    async def start(
        self, experiment: str | Experiment | Draft, payload: Mapping[str, Any] | StartPayload | Draft | None = None
    ) -> Run:
        """
        Start an instance of an experiment, at most once.

        The payload is checked before anything is sent, and sent as it is given; what it does not
        say is left to the service. A start that may have arrived is never sent again. If the service refuses it
        in words alone, the definition of the experiment is asked for, to tell which entry was meant.

        A start that is cancelled after it was sent (`asyncio.timeout`, a failing sibling in a task group, a cancel
        scope, Ctrl-C) may have arrived. It waits up to a second for the answer, logs a warning, and adds a note to the
        `asyncio.CancelledError`: the rest-uid, or how to look for the instance. A `TimeoutError` of `asyncio.timeout`
        or `asyncio.wait_for` has that error as its ``__cause__``. A task group drops it, so only the log is left.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag``, ``name@digest``, an `Experiment`, or a
                `Draft`, which brings its payload; ``payload`` is what else it is to say then, as in `Draft.filled`.
            payload: Inputs, variables and the rest, as a mapping in the service's documented form, a
                `StartPayload` or a `Draft`; None: nothing of it. An input's ``content`` is text, UTF-8 bytes, a
                `Path` or a pandas DataFrame.

        Returns:
            The handle on the instance.

        Raises:
            InvalidPayload: The payload will not do: `MissingInputs`, `ExtraInputs`, `InputConflict` and
                `PayloadTooLarge` are kinds of it. Nothing was started.
            UnknownExperiment: There is no such experiment. Nothing was started.
            StartOutcomeUnknown: The connection or the service broke at a moment at which the instance may or may
                not have been started.

        Source: ``POST experiments/{identifier}/start`` of the runtime service.
        """
        identifier, start = resolve_drafts(experiment, payload)
        prepared = await prepare(start)
        try:
            return Run(await self._send(experiments.start_call(identifier, prepared.content, prepared.secrets)), self)
        except InvalidPayload as error:
            from ._payload.explain import explain

            await explain(error, prepared, partial(self._definition, identifier))
            raise

    async def start_lambda(
        self,
        definition: Mapping[str, Any] | str | Path | LambdaPayload,
        payload: Mapping[str, Any] | None = None,
        *,
        validate: bool | None = None,
    ) -> Run:
        """
        Start an experiment that is in no registry, at most once; if it is cancelled, see `start`.

        With the extra ``engine`` the orchestrator's own libraries check the definition before anything is sent, in a
        process of their own, which takes about half a second, and turn DSL into FlowIR, which is all that the service
        takes here. They look for more than the service does: for components that wait for each other too.

        Args:
            definition: FlowIR or DSL 2.0: a mapping, YAML as a text, or the `Path` of a file of it. Or all of the
                payload, with the definition under ``lambdaFlowIR``.
            payload: Its files (``data``, ``scripts``) and the rest as in `start`; None: nothing of it. An experiment
                of this kind has no inputs.
            validate: Whether the definition is checked here; None: if the libraries are installed. Without it DSL is
                sent as it is, and refused.

        Raises:
            InvalidPayload: The payload will not do. `InvalidFlowIR` is a kind of it, which means the definition:
                ``problems`` tells where and what if it was found here, ``errors`` has it in the service's words if
                the service found it. Nothing was started.
            StartOutcomeUnknown: As from `start`.
            ConfigError: ``validate`` is True, and the libraries are not there or break down.
            ImportError: The definition is YAML and PyYAML is not installed; it comes with ``engine``.

        Source: ``POST experiments/lambda/start`` of the runtime service.
        """
        from ._payload.lambdas import DSL_ADVICE, prepare_lambda

        prepared, is_dsl = await prepare_lambda(definition, payload, validate=validate)
        try:
            return Run(await self._send(experiments.lambda_call(prepared.content, prepared.secrets)), self)
        except InvalidFlowIR as error:
            if is_dsl:
                error.add_note(DSL_ADVICE)
            raise

    def batch(self, path: str | os.PathLike[str] | None = None, *, max_running: int | None = MAX_RUNNING) -> Batch:
        """
        Many launches, each started exactly once, whatever happens to this process: see `Batch`.

        Args:
            path: File of the journal, which is made if it is not there; None: in memory, lost with the process.
            max_running: How many runs may be in progress at once, so that the cluster is not flooded; None: any
                number.
        """
        from ._batch.batch import Batch, Deployment

        url = self._session.home.geturl()
        parts = (self._start_once, self._definition, self._sighted)
        return Batch(Deployment(self, url, self._config, *parts), path, max_running)

    async def _start_once(self, identifier: str, prepared: Prepared) -> str:
        call = experiments.start_call(identifier, prepared.content, prepared.secrets)
        return await self._send_once(replace(call, is_paced=True))

    async def _definition(self, identifier: str) -> Experiment:
        return await experiments.Experiments(self._send_once).get(identifier)

    async def _sighted(self) -> Listed:
        from ._api.sightings import sightings_call

        return await self._send_once(sightings_call())

    async def status(self, run: RunLike) -> Status:
        """
        How a run is doing now; a pending status while the service has none.

        Raises:
            UnknownRun: It is not there.

        Source: ``GET instances/{id}/status`` of the runtime service.
        """
        return await self.instances.status(rest_uid_of(run))

    async def delete(self, run: RunLike) -> None:
        """
        Stop a run and delete it; its files stay. Returns before it is dead.

        Raises:
            UnknownRun: It is not there.

        Source: ``DELETE instances/{id}`` of the runtime service.
        """
        await self.instances.delete(rest_uid_of(run))

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
        return await staging.stage_inputs(files, bucket, self._config, prefix=prefix, allow_http=allow_http)

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
        found = await staging.fetch_outputs(
            rest_uid_of(run), Path(to), store, self.instances, self._config, names=names, allow_http=allow_http
        )
        return judged(found, strict=strict)
