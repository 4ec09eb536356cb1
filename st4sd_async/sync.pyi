"""
The client for code without ``async``: see ``sync.py``.

Written by ``python -m tests.sync.stub``: change nothing here.
"""

import builtins
import os
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import pydantic
from matplotlib.axes import Axes

from st4sd_async._api.documents import About, Query
from st4sd_async._api.registry import Side
from st4sd_async._api.relationships import DslVersion
from st4sd_async._api.secrets import Password
from st4sd_async._batch.launch import Launch
from st4sd_async._client import _Unchanged
from st4sd_async._config import Config
from st4sd_async._http.credentials import Secret
from st4sd_async._http.retry import RetryPolicy
from st4sd_async._payload.draft import Draft
from st4sd_async._results.staging import Files
from st4sd_async._results.tables import Table
from st4sd_async._util.progress import Progress
from st4sd_async.models import (
    S3,
    ComponentDocument,
    Download,
    DownloadFailed,
    Experiment,
    ExperimentDocument,
    ExperimentList,
    GeneratedPackage,
    History,
    ImportedExperiment,
    Inheritance,
    Instance,
    KeyOutput,
    LambdaPayload,
    LibraryGraphs,
    Output,
    Properties,
    Relationship,
    RelationshipList,
    RelationshipPayload,
    S3Store,
    Staged,
    StartPayload,
    StartSkeleton,
    Status,
    StatusReport,
    Synthesis,
    SynthesisPreview,
    UserMetadata,
)
from st4sd_async.models.packages import Parameterisation

__all__ = ["Batch", "Client", "Item", "Run"]

class _Experiments:
    """
    The registry of parameterised virtual experiment packages.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    def delete(self, identifier: str) -> None:
        """
        Delete an experiment from the registry; its instances and their files stay.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.

        Source: ``DELETE experiments/{identifier}``.
        """

    def dsl(self, identifier: str) -> dict[str, Any]:
        """
        The definition of an experiment in DSL 2.0: ``entrypoint``, ``workflows`` and ``components``.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.
            InvalidDSL: Its package cannot be read as it is.

        Source: ``GET experiments/{identifier}/dsl``, which clones the package and so takes seconds.
        """

    def dsl_text(self, identifier: str) -> str:
        """
        The same as `dsl`, as a YAML document; raises the same.

        Source: ``GET experiments/{identifier}/dsl?outputFormat=yaml``.
        """

    def get(
        self, identifier: str, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False
    ) -> Experiment:
        """
        One experiment.

        Args:
            identifier: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``.
            with_registry, with_nulls, with_beta: What it comes with, as from `list`.

        Returns:
            The experiment; its ``problems`` tells what is wrong with it.

        Raises:
            UnknownExperiment: There is none.
            InvalidPackage: There is one, in a form that the service does not understand any more.

        Source: ``GET experiments/{identifier}``.
        """

    def history(self, name: str) -> History:
        """
        The versions of an experiment: its tags, and the digests that have none any more.

        Args:
            name: The name, without tag and digest; one that does not exist has no versions.

        Source: ``GET experiments/{name}/history``.
        """

    def inheritance(self, identifier: str) -> Inheritance:
        """
        Where the variables of an experiment with several base packages have their values from.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.
            BadRequest: It has one base package, so that there is nothing to tell.

        Source: ``GET experiments/{identifier}/package-inheritance``.
        """

    def list(self, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False) -> ExperimentList:
        """
        All experiments that were ever pushed, those without a tag included.

        Args:
            with_registry: Whether they come with what the registry found out: digest, tags, inputs and the rest.
            with_nulls: Whether ``raw`` has fields without a value too.
            with_beta: Whether ``raw`` has the fields that are still being worked on: graphs, connections and the rest.

        Returns:
            A list in the registry's order; its ``problems`` tells what could not be read.

        Source: ``GET experiments/``.
        """

    def printed(self, identifier: str, *, pretty: bool = True) -> str:
        """
        One experiment as the text of a Python dictionary, to be pasted into a program.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.
            pretty: Whether it has line breaks.

        Raises:
            UnknownExperiment: There is none.

        Source: ``GET experiments/{identifier}?outputFormat=python``.
        """

    def push(self, package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry; moves its tags and ``latest``.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``; or an experiment got
                from a registry.

        Raises:
            InvalidPackage: The definition or the package it points to will not do.

        Source: ``POST experiments/``, which clones the package and so takes seconds. Pushing the same content
        again gives the same digest and no second entry.
        """

    def query(
        self,
        *,
        package: Mapping[str, Any] | None = None,
        relationship: str | None = None,
        side: Side = "input",
        match_version: bool = False,
        alone: bool = True,
    ) -> ExperimentList:
        """
        The experiments that are made of a base package; all there are if none is named.

        Args:
            package: The base package, as ``{"source": {"git": {"location": {...}}}, "config": {...}}``; what it does
                not say may be anything.
            relationship: A relationship that has it, in place of ``package``.
            side: Which graph of the relationship.
            match_version: Whether the commit has to be the same too.
            alone: Whether it has to be the only base package.

        Returns:
            A list in the registry's order, as from `list`.

        Raises:
            UnknownRelationship: There is no such relationship.
            InvalidQuery: The package has fields that base packages do not have.

        Source: ``POST query/experiments/``.
        """

    def start_skeleton(self, identifier: str) -> StartSkeleton:
        """
        What a start of this experiment may say: a payload with magic values, and what they mean.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.

        Source: ``GET experiments/{identifier}/start/payload/``.
        """

    def tag(self, identifier: str, tags: Iterable[str]) -> None:
        """
        Give an experiment these tags in place of those it has; other versions of it lose them.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.
            tags: At least one; ``latest`` among them if it has that now.

        Raises:
            UnknownExperiment: There is none.
            CannotUntagLatest: It is the latest, and would not be any more.

        Source: ``PUT experiments/{identifier}/tag``.
        """

class _Instances:
    """
    Executions of experiments, by rest-uid.

    All methods raise `UnknownRun` for an instance that is not there, and `TransportError`,
    `Unauthorized` or another `APIError` when the service cannot be asked or refuses.
    """

    def delete(self, rest_uid: str) -> None:
        """
        Stop an instance and delete it; its files stay. Returns before it is dead.

        Source: ``DELETE instances/{id}``.
        """

    def get(
        self, rest_uid: str, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> Instance:
        """
        All the service keeps of one instance: status, key-outputs, labels, the experiment's definition.

        Args:
            rest_uid: The instance.
            include_properties: Columns of measured properties in any case, ``["*"]`` for all, None for none. They are
                in ``property_table``, always with ``input-id``; a column that was not measured is left out.
            stringify_nan: Whether missing numbers come as the text ``NaN`` and not as floats.

        Raises:
            NotReady: Properties were asked for, and the instance still runs.
            NoProperties: Properties were asked for, and the experiment measures none.
            ServerError: Properties were asked for, and there is no status yet.

        Source: ``GET instances/{id}``.
        """

    def list(self) -> builtins.list[Instance]:
        """
        All instances, in no particular order; [] if there are none.

        About 2 to 5 KB each, all in one reply. The service leaves out what it fails to read, and does
        not look at the cluster: a status in the list never shows waiting or start-up failures. An item that cannot
        be read, as one whose id is not a rest-uid, is left out, with one WARNING in the log; if none
        can be read, that is a DecodeError. ``status.meta.user_metadata`` of an item is the ``metadata`` that it was
        started with, once it runs.

        Source: ``GET instances/``.
        """

    def output(self, rest_uid: str, name: str, path: str | None = None) -> Output:
        """
        The contents of a key-output: a file as it is, a folder as its zip archive.

        Args:
            rest_uid: The instance.
            name: The key-output.
            path: A file or folder inside of it, as ``"sub/b.bin"``; None: all of it.

        Raises:
            UnknownOutput: There is no such key-output, not yet, or no such file in it.
            NotAFolder: ``path`` is given, and the key-output is a file.
            OutsideOfFolder: ``path`` leads out of it.
            DecodeError: Something else came in place of a file, such as the web page of a proxy.

        Source: ``GET instances/{id}/outputs/{name}``.
        """

    def outputs(self, rest_uid: str) -> dict[str, KeyOutput]:
        """
        The key-outputs that exist by now, by name; {} before there are any.

        Source: ``GET instances/{id}/outputs``.
        """

    def properties(
        self, rest_uid: str, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> dict[str, builtins.list[Any]]:
        """
        The properties that the instance measured: column name -> values, rows sorted by ``input-id``.

        What could not be measured is NaN. Column names are lower-case. `Client.properties` makes a table of it.

        Args:
            rest_uid: The instance.
            include_properties: Columns in any case, and ``input-id`` with them; None: all. One that was not
                measured is left out.
            stringify_nan: Whether missing numbers come as the text ``"NaN"`` and not as floats.

        Raises:
            NotReady: It still runs, or its status is not complete yet.
            ServerError: It has no status yet.
            NoProperties: It is over and measured none.

        Source: ``GET instances/{id}/properties``.
        """

    def status(self, rest_uid: str) -> Status:
        """
        The status of one instance; pending, with every field None, while the service has none.

        Source: ``GET instances/{id}/status``.
        """

class _Datastore:
    """
    What the datastore keeps of runs: of each an experiment document, user metadata, and a document a component.

    Documents come 10 to 20 s after what they tell, and stay when the run is deleted; a run that
    failed while it was set up never has any. A search finds what fits all its filters, and without
    filters all there is, in one reply.

    ``instance``, ``component`` and ``filename`` are regular expressions that need to fit somewhere in
    the text: ``"Compute"`` finds ``Compute2`` too, ``"^Compute$"`` does not. ``query`` is any filter of
    MongoDB, where a text is just that text; ``rest_uid`` is exact.

    All methods raise `NotFound` if the deployment has no datastore, and `TransportError` or another `APIError`
    when it cannot be asked or refuses. Searches raise ValueError, before anything is sent, for filters that
    contradict each other and for an expression that is none.
    """

    def components(
        self,
        *,
        instance: str | None = None,
        stage: int | None = None,
        component: str | None = None,
        filename: str | None = None,
        rest_uid: str | None = None,
        query: Query | None = None,
    ) -> list[ComponentDocument]:
        """
        The component documents that match; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            stage: Index of the stage.
            component: Expression for the name; or a reference, which is ``stage0.`` and the same.
            filename: Expression for the absolute path of one of the files.
            rest_uid: The run's id, in place of its location, which is then asked for first.
            query: More to match.
        """

    def components_of(self, rest_uid: str, *, timeout: float = 30.0) -> list[ComponentDocument]:
        """
        The documents of all components of a run, never []; they are waited for as the run's `document` is.

        Raises:
            NotReady, NotFound, UnknownRun: There are none, for the reasons that `document` tells.
        """

    def document(self, rest_uid: str, *, timeout: float = 30.0) -> ExperimentDocument:
        """
        The experiment document of a run, which is waited for if it is late.

        While the run goes on, it is what the datastore has now. Once the run is over or deleted, it is the one
        that tells the end; if that does not come within 20 s, as for a run that was killed, the last there is.

        Args:
            rest_uid: The run's id.
            timeout: Seconds to look again for; 0: one look. A request under way is not cut short.

        Raises:
            NotReady: There is none in time, but it may still come.
            NotFound: There is none, and the run is over for 20 s, as after a failed set-up.
            UnknownRun: There is none in time, and the service does not know the run. Asked again, it is not waited for.
        """

    def experiments(
        self,
        *,
        instance: str | None = None,
        rest_uid: str | None = None,
        query: Query | None = None,
        include_properties: Iterable[str] | None = None,
        stringify_nan: bool = False,
    ) -> list[ExperimentDocument]:
        """
        The experiment documents that match, one a run; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            rest_uid: The run's id.
            query: More to match.
            include_properties: As in `query`; each document has them as ``property_table``.
            stringify_nan: As in `query`.
        """

    def is_healthy(self) -> bool:
        """
        Whether the datastore answers; False if it cannot be reached or fails.

        Raises:
            Unauthorized: The credentials were refused, which says nothing about the datastore.
        """

    def query(
        self, query: Query, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> list[dict[str, Any]]:
        """
        The documents that match a query of MongoDB, as they came; [] if none does.

        Args:
            query: The filter, as ``{"type": "experiment", "status.exit-status": "Success"}``.
            include_properties: Columns of measured properties in any case, ``["*"]`` for all, None for none. They
                are in ``interface.propertyTable`` of experiment documents: column -> values, with lower-case
                names, and always ``input-id``. A column that was not measured is left out.
            stringify_nan: Whether missing and infinite numbers come as texts (``"NaN"``) and not as floats.

        Source: ``POST documents/api/v1.0/query``.
        """

    def tag(self, about: Iterable[About], tags: Mapping[str, Any]) -> list[UserMetadata]:
        """
        Add tags to the user metadata of runs, and to the copy of them in their experiment documents.

        Not atomic: documents are read, changed and written whole, up to 100 runs at a time, so that
        what somebody else writes meanwhile is lost; after an error some runs may have the tags. To
        tag again does no harm. Tag runs that are over: what the orchestrator of a running one reports
        later replaces its documents, tags and all.

        Args:
            about: Documents of any type, as found or as dictionaries; only their ``instance`` counts.
            tags: name -> value, texts mostly; one that is there already gets the new value.

        Returns:
            The user metadata as written, one of each run, in the order given.

        Raises:
            NotFound: The datastore does not have both documents of a run; of those read with it, none has the tags.
            ValueError: A document has no ``instance``, or a tag a name that would hide what documents are found by.

        Source: ``POST documents/api/v1.0/upsert``.
        """

    def user_metadata(
        self, *, instance: str | None = None, rest_uid: str | None = None, query: Query | None = None
    ) -> list[UserMetadata]:
        """
        The user metadata that match, one document a run; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            rest_uid: The run's id.
            query: More to match, as ``{"campaign": "first"}``.
        """

class _Gateways:
    """
    Where the files of runs are: each run's at one gateway, which its documents name by an id.

    All methods raise `NotFound` for a gateway that nobody registered, and `TransportError` or another `APIError` when
    the registry or the gateway cannot be asked or refuses. A gateway at another host than the deployment's is asked
    without credentials, unless ``Config.trusted_hosts`` names it.
    """

    def has_component(self, instance: str, stage: int, component: str) -> bool:
        """
        Whether a component has a working directory at its gateway; False also if the run is unknown there.

        Args:
            instance: The ``instance`` of a document.
            stage: Index of the stage.
            component: The exact name.

        Source: ``GET experiment/`` of the gateway.
        """

    def is_healthy(self, gateway: str | None = None) -> bool:
        """
        Whether the registry answers, or a gateway; False if it cannot be reached or fails.

        Args:
            gateway: Its id, as documents have it; None: the registry itself.

        Raises:
            Unauthorized: The credentials were refused, which says nothing about the gateway.

        Source: ``GET hello/`` of the registry and of each gateway.
        """

    def resolve(self, ids: Iterable[str]) -> dict[str, str]:
        """
        The addresses of gateways by their ids, in the order given, each with a slash at its end.

        Those that are not known for at most ten minutes are asked for in one request, however many tasks
        want them.

        Raises:
            NotFound: The registry does not know one; the message names it.

        Source: ``POST gateways/api/v1.0/unique_ids`` of the registry.
        """

class _Relationships:
    """
    Relationships: an input graph, such as a surrogate, that may take the place of an output graph.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    def delete(self, identifier: str) -> None:
        """
        Delete a relationship; what was synthesized from it stays.

        Raises:
            UnknownRelationship: There is none.

        Source: ``DELETE relationships/{identifier}/``.
        """

    def get(self, identifier: str) -> Relationship:
        """
        One relationship; its ``problems`` tells what is wrong with it.

        Raises:
            UnknownRelationship: There is none.

        Source: ``GET relationships/{identifier}/``.
        """

    def list(self, *, nulls: bool = False) -> RelationshipList:
        """
        All relationships.

        Args:
            nulls: Whether ``raw`` has fields without a value too.

        Returns:
            A list; its ``problems`` tells what is wrong with entries, and which of them could not be read.

        Source: ``GET relationships/``.
        """

    def preview(
        self, identifier: str, *, dsl_version: DslVersion = "2.0.0_0.1.0", platform: str | None = None
    ) -> SynthesisPreview:
        """
        What `synthesize` would give; nothing is stored.

        Args:
            identifier: The relationship.
            dsl_version: ``"1"`` for FlowIR.
            platform: The platform to show, None for the one that both experiments have; today's service shows that
                whatever is asked for.

        Raises:
            UnknownRelationship: There is no such relationship.
            InvalidRelationship: No sound experiment would come of it.

        Source: ``GET relationships/{identifier}/preview/synthesize/dsl/``.
        """

    def push(self, relationship: Mapping[str, Any] | Relationship | RelationshipPayload) -> Relationship:
        """
        Store a relationship, in place of one of the same name.

        Args:
            relationship: ``identifier`` and ``transform``, whose two graphs name experiments of the registry, in the
                service's documented form or as a `RelationshipPayload`; or a relationship got from a registry.

        Returns:
            The relationship as stored, with the links and base packages that the service found itself.

        Raises:
            InvalidRelationship: It will not do, an experiment is not there, or no sound experiment would come of it;
                ``problems`` tells why.

        Source: ``POST relationships/``, which tries the synthesis and so takes seconds.
        """

    def query(
        self, *, identifier: str | None = None, input_graph: str | None = None, output_graph: str | None = None
    ) -> RelationshipList:
        """
        The relationships that match all of the expressions; [] if none does.

        Args:
            identifier: Regular expression that fits the beginning of the relationship's identifier.
            input_graph: The same for the experiment of the input graph: ``"ani-surrogate:"`` finds all its tags.
            output_graph: The same for the experiment of the output graph.

        Raises:
            ValueError: None is named, or one is no regular expression.

        Source: ``POST query/relationships/``.
        """

    def synthesize(
        self,
        identifier: str,
        name: str,
        parameterisation: Mapping[str, Any] | Parameterisation | None = None,
        *,
        generate: bool = True,
    ) -> Synthesis:
        """
        Make an experiment in which the input graph takes the place of the output graph, and push it.

        Args:
            identifier: The relationship.
            name: Name of the new experiment; it gets the tag ``latest``.
            parameterisation: ``presets`` and ``executionOptions``, which win over what is generated, or those of an
                experiment; None: nothing.
            generate: Whether the rest of the parameterisation is taken from the output graph's experiment and made up
                from the variables there are.

        Raises:
            UnknownRelationship: There is no such relationship.
            UnknownExperiment: An experiment that it names is gone.
            InvalidRelationship: No sound experiment comes of it; ``problems`` tells why.

        Source: ``POST relationships/{identifier}/synthesize/{name}/``, which reads two packages and so takes seconds.
        """

class _Library:
    """
    The library of graphs: workflows and components in DSL 2.0, to build experiments from.

    A graph is called like the workflow that it begins with. All methods raise `Disabled` where the deployment
    has no library, and `TransportError`, `Unauthorized` or another `APIError` when the service cannot be asked
    or refuses.
    """

    def add(self, graph: Mapping[str, Any]) -> dict[str, Any]:
        """
        Check a graph and add it.

        Args:
            graph: ``workflows`` and ``components``, and an ``entrypoint`` unless there is just one workflow, or no
                workflow and one component. Arguments of the entrypoint are dropped.

        Returns:
            The graph as it was added, with all that was left out.

        Raises:
            InvalidGraph: It does not make sense; ``problems`` tells why.
            GraphExists: There is one of its name.
            OutcomeUnknown: The connection or the service broke when it may have been added.

        Source: ``POST library/``.
        """

    def delete(self, name: str) -> None:
        """
        Delete a graph; what was built from it stays.

        Raises:
            UnknownGraph: There is none. A library that is kept in a bucket does not say so: there it is no error.

        Source: ``DELETE library/{name}/``.
        """

    def get(
        self, name: str, *, exclude_unset: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
    ) -> dict[str, Any]:
        """
        One graph: ``entrypoint``, ``workflows`` and ``components``.

        Args:
            name: Its name.
            exclude_unset, exclude_defaults, exclude_none: As for `list`.

        Raises:
            UnknownGraph: There is none.
            InvalidGraph: It is there, but does not make sense any more: delete it.

        Source: ``GET library/{name}/``.
        """

    def list(
        self, *, exclude_unset: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
    ) -> LibraryGraphs:
        """
        All graphs.

        Args:
            exclude_unset: Leave out what their authors did not write.
            exclude_defaults: Leave out what is as it is by default.
            exclude_none: Leave out what has no value.

        Returns:
            A list of dictionaries; its ``problems`` tells which graphs could not be read.

        Source: ``GET library/``.
        """

class _InternalExperiments:
    """
    Experiments whose definition the deployment itself keeps, in place of a repository.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    def push(self, dsl: Mapping[str, Any], package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Store a DSL, and push the package around it, in place of the last ones of its name.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.
            package: The package, with at least ``metadata.package.name``; its base packages do not count.
                `Utilities.package_for_dsl` makes one.

        Returns:
            The experiment as the registry has it, ready to be started.

        Raises:
            InvalidDSL: The DSL or the package does not make sense; ``problems`` tells where and why.
            Disabled: The deployment keeps no definitions.

        Source: ``POST internal-experiments/``.
        """

class _Utilities:
    """
    Help for those who write experiments as DSL 2.0; nothing is stored.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    def package_for_dsl(
        self, dsl: Mapping[str, Any], template: Mapping[str, Any] | Experiment | None = None
    ) -> GeneratedPackage:
        """
        Make the parameterised package that fits a DSL.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.
            template: A package whose name, description and parameterisation are kept as far as they fit; None: the
                package is called ``anonymous`` and leaves nothing to choose.

        Returns:
            The package, with all its inputs, outputs and variables under ``metadata.registry``, and what became of the
            template.

        Raises:
            InvalidDSL: The DSL or the template does not make sense; ``problems`` tells where and why.

        Source: ``POST utilities/pvep/``.
        """

    def validate_dsl(self, dsl: Mapping[str, Any]) -> None:
        """
        Check a DSL; no error means that it makes sense.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.

        Raises:
            InvalidDSL: It does not make sense; ``problems`` tells where and why.

        Source: ``POST utilities/dsl/``.
        """

class _Datasets:
    """
    Datasets: S3 buckets that starts may read from or write to by a name, without credentials in the payload.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot be asked or
    refuses; a deployment without Datashim answers `BadRequest`. There is no endpoint that deletes a dataset.
    """

    def create(self, name: str, bucket: S3 | Mapping[str, Any]) -> None:
        """
        Create a dataset that stands for a bucket; it takes about 30 s until it can be used.

        Args:
            name: Lower-case letters, digits and dashes.
            bucket: ``accessKeyID``, ``secretAccessKey``, ``bucket``, ``endpoint`` and, if there is one, ``region``.

        Raises:
            AlreadyExists: There is one of this name.
            OutcomeUnknown: The connection or the service broke when it may have been created.
            ValueError: The bucket lacks something; nothing was sent.

        Source: ``POST datasets/s3/{name}``.
        """

    def list(self) -> builtins.list[str]:
        """
        The names of all datasets, in no particular order; [] if there are none.

        Source: ``GET datasets/``.
        """

class _ImagePullSecrets:
    """
    Image pull secrets: with them, runs may use images of private container registries.

    A new one is used within two minutes. Nobody can read a password back. All methods raise `TransportError`,
    `Unauthorized` or another `APIError` when the service cannot be asked or refuses. There is no endpoint that
    deletes one.
    """

    def create(self, name: str, *, server: str, username: str, password: Password) -> None:
        """
        Create an image pull secret.

        Args:
            name: Lower-case letters, digits and dashes.
            server: The registry, without ``https://``: a host, or a host and a path.
            username: Who pulls.
            password: Password or token; kept out of messages.

        Raises:
            AlreadyExists: There is one of this name: use `update`.
            NameTaken: A Secret of this name is something else.
            OutcomeUnknown: The connection or the service broke when it may have been created.

        Source: ``POST image-pull-secrets/{name}``. Whether the credentials are right is not checked.
        """

    def get(self, name: str) -> builtins.list[str]:
        """
        The registries that an image pull secret opens.

        Raises:
            UnknownPullSecret: There is none of this name, or not yet.

        Source: ``GET image-pull-secrets/{name}``.
        """

    def list(self) -> dict[str, builtins.list[str]]:
        """
        All image pull secrets: name -> the registries that it opens; {} if there are none.

        Source: ``GET image-pull-secrets/``, which leaves out those that it cannot read.
        """

    def update(self, name: str, *, server: str, username: str, password: Password) -> None:
        """
        Write an image pull secret anew, or create it if it is not there.

        A Secret of this name that is something else gets these credentials beside what it has.

        Args:
            name: Lower-case letters, digits and dashes.
            server: The registry; it replaces all that the secret opened before.
            username: Who pulls.
            password: Password or token; kept out of messages.

        Source: ``PUT image-pull-secrets/{name}``. Whether the credentials are right is not checked.
        """

class _Deployment:
    """
    What there is to know about the deployment itself.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    def service(self, name: str) -> str:
        """
        Where one service is.

        Args:
            name: ``consumable-computing`` for the runtime service, ``cdb-rest`` for the datastore, or
                ``cdb-gateway-registry`` for the registry of its gateways.

        Raises:
            UnknownService: There is no service of this name.
            LocalDeployment: The service runs without a cluster, and there are no others.

        Source: ``GET url-map/{name}``.
        """

    def services(self) -> dict[str, str]:
        """
        Where the services are, as the deployment tells it: name -> address without a slash at its end.

        An address that holds a user or a password is left out, with a WARNING in the log.

        Raises:
            LocalDeployment: The service runs without a cluster, and there are no others.

        Source: ``GET url-map/``.
        """

    def token(self) -> pydantic.SecretStr:
        """
        The token that this client is signed in with, as the service sees it.

        Raises:
            NoToken: This client is signed in with an API key.

        Source: ``GET authorisation/token``.
        """

@dataclass(frozen=True)
class Item:
    """
    One launch of a batch, at one moment.

        for item in batch.run():
            print(item.key, item.run, item.status, item.error)
    """

    key: str
    """The user's name for it."""
    experiment: str
    """Identifier of the experiment."""
    state: str
    """Where it is: one of the words that `Batch.counts` counts."""
    attempt: int
    """1, and one more for each new attempt by `Batch.retry_failed`."""
    run: Run | None
    """The handle on its run; None if it has none, or it is not known."""
    status: Status | None
    """
    The final status of its run, without ``meta``; None if it is not over, or was never seen.

    In `Batch.running` the newest.
    """
    error: Exception | None
    """
    What went wrong; None if nothing did.

    `RunFailed` or `RunDeleted`: its run came to that. `StartOutcomeUnknown`: it may have been started, and it
    is never sent again before that is settled. An `APIError`: the service refused it. Else what kept the batch
    from sending it, from watching it or from downloading its files.
    """
    files: tuple[Path, ...]
    """Paths of what was downloaded; () if nothing was, or nothing was asked for."""
    never_executed: tuple[str, ...]
    """
    rest-uids of instances that may come from a start of this launch whose answer was lost, and that ended or were
    deleted before they executed anything; () if there are none. They may be deleted.
    """

class Run:
    """
    A handle on one instance: an id and a client, never data; as `st4sd_async.Run`, with methods that block.

    Equal and alike in a set if the rest-uid is the same. ``str(run)`` is the rest-uid, from which
    ``client.run(rest_uid)`` makes the handle again, in this process or another.
    """

    def _repr_html_(self) -> str: ...
    def _repr_pretty_(self, printer: Any, cycle: bool) -> None: ...
    @property
    def client(self) -> Client:
        """The client through which it is reached."""

    def components(self, *, timeout: float = 30.0) -> list[ComponentDocument]:
        """What the datastore keeps of its components, waited for: see `Datastore.components_of`."""

    def csv(self, filename: str = "\\.csv$", *, component: str | None = None, stage: int | None = None) -> list[Table]:
        """The tables that its components wrote: see `Client.csv`."""

    def delete(self) -> None:
        """Stop and delete it: see `Client.delete`."""

    def document(self, *, timeout: float = 30.0) -> ExperimentDocument:
        """What the datastore keeps of it, waited for if it is late: see `Datastore.document`."""

    def download_component(
        self, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
    ) -> list[Download | DownloadFailed]:
        """Fetch the whole working directory of a component: see `Client.download_component`."""

    def download_files(
        self,
        to: str | os.PathLike[str],
        *,
        component: str | None = None,
        stage: int | None = None,
        filename: str | None = None,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Fetch files that its components left behind: see `Client.download_files`."""

    def download_outputs(
        self,
        to: str | os.PathLike[str],
        names: str | Iterable[str] | None = None,
        *,
        unpack: bool = False,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Fetch key-outputs, several at once: see `Client.download_outputs`."""

    def fetch_s3_outputs(
        self,
        to: str | os.PathLike[str],
        *,
        store: S3Store | Mapping[str, Any],
        names: str | Iterable[str] | None = None,
        strict: bool = False,
        allow_http: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Fetch key-outputs that it uploaded to a bucket: see `Client.fetch_s3_outputs`."""

    @property
    def id(self) -> str:
        """The rest-uid."""

    def log(self) -> str:
        """What its orchestrator logged: see `Client.log`."""

    def output(self, name: str, path: str | None = None) -> Output:
        """The contents of one of its key-outputs: see `Client.output`."""

    def outputs(self) -> dict[str, KeyOutput]:
        """Its key-outputs by name: see `Client.outputs`."""

    def properties(self, names: Iterable[str] | None = None) -> Properties:
        """What it measured: see `Client.properties`."""

    def read_file(self, path: str | os.PathLike[str], *, limit: int = 33554432) -> bytes:
        """The content of one of its files: see `Client.read_file`."""

    def show(self, *, timeout: float | None = None, interval: float | None = None) -> Status:
        """Its final status, once it is over; until then it is shown: see `Client.show`."""

    def status(self) -> Status:
        """How it is doing now: see `Client.status`."""

    def status_report(self) -> StatusReport:
        """How each of its components is doing: see `Client.status_report`."""

    def stdout(self, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """What its components printed, by reference: see `Client.stdout`."""

    def wait(self, *, timeout: float | None = None, interval: float | None = None, check: bool = False) -> Status:
        """Its final status, once it is over: see `Client.wait`."""

    def watch(self, *, timeout: float | None = None, interval: float | None = None) -> Generator[Status]:
        """Its statuses until it is over: see `Client.watch`."""

_RunLike = Run | str

class Batch:
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

    def __enter__(self) -> Self:
        """
        Open the journal.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another server, or cannot be opened.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, write down what becomes of what is in flight, close the journal."""

    def _repr_html_(self) -> str: ...
    def _repr_pretty_(self, printer: Any, cycle: bool) -> None: ...
    def add(self, launches: Iterable[Launch]) -> int:
        """
        Write launches into the journal, to be started by `run`; those that are there already are left as they are.

        A key is started once, however often and by however many tasks it is added, while `run` works too.
        Contents of files are read now. Credentials in payloads, and all ``environmentVariables``, are not written
        down: add the launches again in each process that is to start them.

        Args:
            launches: Any number of them.

        Returns:
            How many are new.

        Raises:
            LaunchConflict: A key is there already with another experiment or payload; the text has the difference.
            JournalError: Two of these have one key, and are not the same; or the journal cannot be written.
            InvalidPayload: A payload will not do. Launches before the one in question may have been added.
        """

    def adopt(self, key: str, rest_uid: str) -> None:
        """
        Settle by hand that a launch in doubt was started, and is this run.

        Raises:
            UnknownRun: The service has no such run.
            ValueError: The launch is not in doubt, or the run was started for something else or is another launch's.
        """

    def cancel(self) -> int:
        """
        Start nothing more, and stop and delete what runs; what was not started stays planned.

        A launch in doubt stays in doubt.

        Returns:
            How many runs were deleted.

        Raises:
            TransportError, APIError: Some could not be deleted; they are as they were, the others are deleted.
        """

    @property
    def counts(self) -> dict[str, int]:
        """
        How many launches are in which state; each is counted once.

        ``planned``: not started yet. ``sending``: being started. ``unknown``: it may or may not have been started,
        and is looked for. ``refused``: the service turned it away. ``started``: its run goes on. ``succeeded``,
        ``failed``, ``stopped``, ``deleted``: what its run came to. ``collected``: it succeeded, and its files are
        on disk.
        """

    def failures(self) -> list[Item]:
        """Those with an error: refused, failed, stopped, deleted, in doubt, or not all downloaded."""

    def forget(self, key: str) -> None:
        """
        Settle by hand that a launch in doubt was not started, so that `run` starts it.

        Raises:
            ValueError: The launch is not in doubt.
        """

    @property
    def items(self) -> list[Item]:
        """All launches as they are now, in the order in which they were added."""

    def plot(self, axes: Axes | None = None) -> Axes:
        """
        A time line of all launches, one below the other, in the order in which they were added.

        Each bar is a time that this batch noted down when it happened, by the clock of this machine:

        - *not started*: since it was added, or planned again;
        - *in doubt*: sent, and not known whether it was started;
        - *waiting*: since the service accepted its start, until its run was seen to begin;
        - the colour of what it came to, or of *in progress*: since then, until the batch learned of the end.

        Nothing is guessed. Where nobody saw the run begin, because it was quick or no process watched it then, there
        is one paler bar from its start to its end. What was noted by an older version has no bars. The batch learns
        of changes some time after they happened: see `Client.watch_many`. A cross is a launch that was refused.

        Args:
            axes: Where to draw; None: in a new figure of `matplotlib.pyplot`.

        Raises:
            ConfigError: matplotlib is not installed.
        """

    def properties(self, names: Iterable[str] | None = None) -> Properties:
        """
        What the runs measured, in one table: as `Client.properties`, with the column ``key`` in front of ``rest-uid``.

        Runs that have none, or not yet, are in its ``problems``, by their rest-uids.
        """

    def retry_failed(self, corrected: Iterable[Launch] = ...) -> int:
        """
        Plan a new attempt at each launch that was refused, or whose run failed, was stopped or deleted.

        The runs of earlier attempts stay as they are.

        Args:
            corrected: Launches whose new attempt has another experiment or payload than the one before, by their
                keys; also of those that are planned and were not sent yet, unless `run` is at work. It may be the
                whole list that is added afterwards: all others are left to `add`.

        Returns:
            How many, with those that are planned as before but corrected; `run` starts them.

        Raises:
            InvalidPayload: A payload will not do; nothing is planned.
        """

    def run(self, outputs: Iterable[str] | None = None, to: str | os.PathLike[str] | None = None) -> Generator[Item]:
        """
        Start what was not started, watch what runs, settle what is in doubt, and yield each launch as it is settled.

        What an earlier process settled is not yielded again; `items` has it. One in doubt is yielded with
        `StartOutcomeUnknown` if it cannot be told, and looked for again by the next pass. So is one whose run cannot
        be read for a minute: it is yielded with `DecodeError`, stays ``started``, and no longer counts as running.
        One may be yielded twice: after `StartOutcomeUnknown`, if its outcome is found while others are looked for; and
        if an adopted run turns out to be that of another launch, is taken back, and both launches are in doubt again.
        Launches may be added meanwhile. Leaving the loop starts nothing more, and the
        runs go on. The service may be away for any time. Another pass ends this one.

        Args:
            outputs: Key-outputs to download of runs that succeed; None: nothing.
            to: Folder for them, which gets a folder for each key. It has the key for a name; one with other
                characters than letters, digits and ``.``, ``_``, ``-``, or one that differs from another key only
                by capitals, gets a name that begins like it and goes on with a hash. `Item.files` has the paths.
                The folder may be a link; one in place of the folder of a key is not followed.

        Raises:
            Unauthorized: The credentials were refused and could not be renewed.
            JournalError: The journal cannot be written.
            ValueError: One of ``outputs`` and ``to`` is missing; or ``to`` has files for keys that were never
                started, those of another batch.
        """

    @property
    def running(self) -> list[Item]:
        """The launches whose runs `run` watches, with the newest status; one that was never seen yet is missing."""

class Client:
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

    experiments: _Experiments
    """The registry of experiments."""
    instances: _Instances
    """Instances, by rest-uid."""
    datastore: _Datastore
    """Documents about runs, which outlive the runs."""
    gateways: _Gateways
    """The services that hold the files of runs."""
    relationships: _Relationships
    """Which experiment can replace a part of another."""
    library: _Library
    """Graphs to build experiments from."""
    internal_experiments: _InternalExperiments
    """Experiments whose definition the deployment itself stores."""
    utilities: _Utilities
    """Checks and conversions for authors of DSL."""
    datasets: _Datasets
    """S3 buckets that the deployment knows by name."""
    image_pull_secrets: _ImagePullSecrets
    """Credentials for container registries."""
    deployment: _Deployment
    """The services of the deployment, and the token of this client."""
    def __init__(
        self, url: str, *, api_key: Secret | None = None, auth_token: Secret | None = None, config: Config | None = None
    ) -> None: ...
    def __enter__(self) -> Self:
        """
        Open the connections and, unless ``Config.validate`` is False, prove the login with ``GET url-map/``.

        Raises:
            Unauthorized: The credentials are missing or refused.
            DecodeError: The address is not that of an ST4SD deployment.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections. Runs go on."""

    def batch(self, path: str | os.PathLike[str] | None = None, *, max_running: int | None = 200) -> Batch:
        """
        Return a batch of many launches, each started exactly once even if this process crashes: see `Batch`.

        Args:
            path: File of the journal, created if missing. None means in memory: lost with the process.
            max_running: How many runs may be in progress at once, to protect the cluster. None means no limit.
        """

    def close(self) -> None:
        """
        Close the connections, of clients made by `with_options` too; runs go on.

        What other threads wait for is broken off. Closed clients stay closed; closing one again does nothing.
        """

    def csv(
        self, run: _RunLike, filename: str = "\\.csv$", *, component: str | None = None, stage: int | None = None
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

    def delete(self, run: _RunLike) -> None:
        """
        Stop a run and delete it. Its files stay. Returns before the run has stopped.

        Raises:
            UnknownRun: There is no such run.

        Source: ``DELETE instances/{id}`` of the runtime service.
        """

    def download_component(
        self, run: _RunLike, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
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

    def download_files(
        self,
        run: _RunLike,
        to: str | os.PathLike[str],
        *,
        component: str | None = None,
        stage: int | None = None,
        filename: str | None = None,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        r"""
        Download files of components, many at once, into a folder with the layout of the instance.

        A file appears under its name only when it is complete, and then replaces an older one. An interrupted call,
        also one that ended with a crash, can be repeated: a file that was fetched before and has not changed is not
        fetched again. The hidden file ``.st4sd-downloads.jsonl`` in the folder records this. A file that is too large
        for the gateway's own limit is fetched with the archive of its whole component.

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

    def download_outputs(
        self,
        run: _RunLike,
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

    def draft(self, experiment: str | Experiment) -> Draft:
        """
        Return a start payload to fill in, which knows what the experiment accepts.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``, or an `Experiment`,
                for which no request is sent.

        Raises:
            UnknownExperiment: There is no such experiment.
            DecodeError: The reply lacks what the registry knows about the experiment.
            InvalidPackage: The `Experiment` was fetched without what the registry knows (``with_registry=False``).

        Source: ``GET experiments/{identifier}``. It has the same content as the start skeleton, which may mix in
        entries of experiments that were requested earlier.
        """

    def fetch_experiment(
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
                reply.

        Raises:
            UnknownExperiment: The registry has no such experiment. The global one repeats that answer for 10 minutes.
            Unauthorized: The registry is private: pass a client of it as the source.
            DecodeError: The address is not that of a registry, the reply is not an experiment, or it is another one:
                the name differs, or the digest if ``name@digest`` was requested.
            ValueError: The address is invalid, or plain http without ``allow_http``, or there is no identifier.

        Source: ``GET registry-ui/backend/experiments/{identifier}`` of a registry, or ``GET experiments/{identifier}``
        of a client's runtime service; then, if needed, ``GET image-pull-secrets/`` and ``GET datasets/`` here.
        """

    def fetch_s3_outputs(
        self,
        run: _RunLike,
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

    def import_experiment(
        self,
        source: str | Client,
        identifier: str | None = None,
        *,
        allow_http: bool = False,
        allow_missing: bool = False,
    ) -> Experiment:
        """
        Fetch an experiment of another registry and push it here, with its tags, if this deployment meets its needs.

        It is pushed without tags, its digest is compared, and then it is tagged: with the tag that was requested, and
        those of its definition that the other registry shows for it. Tags of the same name here move to it. A push
        always moves ``latest``.

        Only ``name@digest`` pins the content. If the registry here computes another digest, ``latest`` and all other
        tags are restored and the content is deleted. A start of ``name:latest`` in between would use it. Without a
        digest the other registry decides what comes, and a different digest here, as for a branch that moved, is a
        WARNING in the log.

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

    def log(self, run: _RunLike) -> str:
        """
        Return the log of a run's orchestrator. Bytes that are not UTF-8 are replaced.

        Waits until the datastore knows where the run is: it learns of a run 10 to 20 s after its beginning or end.

        Raises:
            NotFound: There is no log, or not yet. A deleted run has none.
            NotReady, UnknownRun, DownloadError: As in `read_file`.

        Source: ``output/experiment.log`` in the directory of the run.
        """

    def open(self) -> Self:
        """
        Open the connections now, as ``with`` does; the first call of any other method does so too.

        Returns:
            This client; if it is open already, nothing else happens.

        Raises:
            Unauthorized, DecodeError: As ``with``.
            St4sdError: It was closed.
        """

    def output(self, run: _RunLike, name: str, path: str | None = None) -> Output:
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
            DecodeError: The reply is not a file, but for example the web page of a proxy.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads the whole output into memory:
        one of gigabytes is likely to time out.
        """

    def outputs(self, run: _RunLike) -> dict[str, KeyOutput]:
        """
        Return the key-outputs of a run that exist now, by name. An empty dict if there are none yet.

        Raises:
            UnknownRun: There is no such run.

        Source: ``GET instances/{id}/outputs`` of the runtime service.
        """

    def properties(
        self, run: _RunLike | Iterable[_RunLike], names: Iterable[str] | None = None, *, strict: bool = False
    ) -> Properties:
        """
        Return the properties that a run, or several, measured, as one table. See `Properties` for rows and columns.

        Properties exist once a run is over. For several runs they come from the datastore, in one request for up to
        500 runs. Runs whose end it does not know yet, which takes 10 to 20 s, are requested one by one. Deleted runs
        keep their properties.

        Args:
            run: A run, or any number of them. Duplicates are ignored.
            names: Columns, in any case. They follow ``input-id`` in the given order. None means all.
            strict: Raise the error of a run without properties also if there are several runs.

        Returns:
            For a run its table. For several one table, with the column ``rest-uid`` in front, in the given order, and
            with all columns that any of them has. Runs without properties are left out; their errors, those below or
            others, are in ``problems``.

        Raises:
            NotReady: The run is not over, or not known to be.
            NoProperties: The run is over and measured none, because its experiment measures none or because it
                failed.
            UnknownProperty: The run measured properties, but not all of ``names``. ``known`` has those it measured.
                For several runs it is raised if all that have properties lack the same name.
            UnknownRun: There is no such run, and the datastore has no properties of it.

        Source: ``GET instances/{id}/properties`` of the runtime service, and ``POST documents/api/v1.0/query`` of the
        datastore.
        """

    def push(self, package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry. Moves its tags and ``latest`` to it.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``, or an experiment from a
                registry.

        Returns:
            The experiment as the registry stores it, with its digest.

        Raises:
            InvalidPackage: The definition, or the package it points to, is invalid.

        Source: ``POST experiments/`` of the runtime service.
        """

    def read_file(self, run: _RunLike, path: str | os.PathLike[str], *, limit: int = 33554432) -> bytes:
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

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        service: str | None = None,
    ) -> Any:
        """
        Send a request of your own, for an endpoint that this library has no method for, and return the JSON reply.

        It uses the credentials, limits, errors and retries of all other requests: GET, PUT and DELETE may be repeated,
        a POST that may have arrived never is. Fields named as passwords, keys or environments are masked in messages;
        other parts of the body may be quoted.

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
            DecodeError: The reply is not JSON.
            ValueError: The method or the path is invalid. Nothing was sent.
        """

    def run(self, rest_uid: str) -> Run:
        """
        Return a handle on the instance with this rest-uid. Nothing is sent; the instance may not exist.

        Raises:
            ValueError: The text does not have the form of a rest-uid: letters, digits, dashes, dots, underscores.
        """

    def show(
        self, runs: Iterable[_RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> list[Status]:
        """
        Show runs in a live table until all are over, and return their final statuses.

        The table is the output of the cell in a notebook, and the lower end of the screen in a terminal (with rich,
        which the extra ``cli`` installs). Elsewhere, lines are written to standard error. If there are many runs, a
        notebook groups similar ones, a terminal shows the most urgent ones and counts the others, and lines have only
        the counts. The runs are watched as in `watch_many`: showing them costs the service nothing.
        An interrupt, such as the stop button of a notebook, does not affect the runs, and the table says so.

        Args:
            runs: Runs or rest-uids.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two rounds. None means ``Config.poll_interval``.

        Returns:
            The final statuses, in the given order. A run that was deleted has ``is_deleted`` True.

        Raises:
            UnknownRun, WaitTimeout, Unauthorized: As in `watch_many`.
        """

    def stage_inputs(
        self, files: Files, bucket: S3 | Mapping[str, Any], *, prefix: str | None = None, allow_http: bool = False
    ) -> Staged:
        """
        Upload local files to a bucket, for a start that takes them from there. Use it for inputs of more than 1 MiB.

        Files are uploaded several at once (``Config.downloads``). Each is streamed, and appears in the bucket only
        when it is complete::

            staged = client.stage_inputs(["big/molecules.csv"], S3(bucket="mine", ...))
            run = client.start("demo:latest", {**staged.as_inputs(), "variables": {"scale": 2}})

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

    def start(
        self, experiment: str | Experiment | Draft, payload: Mapping[str, Any] | StartPayload | Draft | None = None
    ) -> Run:
        """
        Start an instance of an experiment, at most once.

        The payload is checked before anything is sent, and sent unchanged. The service chooses what the payload leaves
        open. A start that may have arrived is never sent again. If the service refuses the payload without naming the
        entry, the definition of the experiment is fetched to find it.

        A start that is cancelled after it was sent (`asyncio.timeout`, a failing sibling in a task group, a cancel
        scope, Ctrl-C) may have arrived. It waits up to a second for the reply, logs a warning, and adds a note to the
        `asyncio.CancelledError`: the rest-uid, or how to look for the instance. A `TimeoutError` of `asyncio.timeout`
        or `asyncio.wait_for` has that error as its ``__cause__``. A task group drops it, so that only the log is left.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``, an `Experiment`, or a
                `Draft`, which brings its payload. With a draft, ``payload`` is what to add to it, as in
                `Draft.filled`.
            payload: Inputs, variables and other fields, as a mapping in the documented form of the service, a
                `StartPayload` or a `Draft`. None means an empty payload. The ``content`` of an input is text, UTF-8
                bytes, a `Path` or a pandas DataFrame.

        Returns:
            The handle on the instance.

        Raises:
            InvalidPayload: The payload is invalid. `MissingInputs`, `ExtraInputs`, `InputConflict` and
                `PayloadTooLarge` are subclasses. Nothing was started.
            UnknownExperiment: There is no such experiment. Nothing was started.
            StartOutcomeUnknown: The connection or the service failed when the instance may or may not have been
                started.

        Source: ``POST experiments/{identifier}/start`` of the runtime service.
        """

    def start_lambda(
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
            validate: Check the definition here. None means if the libraries are installed. Without the check DSL is
                sent unconverted, and refused.

        Raises:
            InvalidPayload: The payload is invalid. `InvalidFlowIR` is the subclass for the definition: ``problems``
                has what was found here, ``errors`` what the service reported. Nothing was started.
            StartOutcomeUnknown: As in `start`.
            ConfigError: ``validate`` is True, and the libraries are not installed or fail.
            ImportError: The definition is YAML and PyYAML is not installed. It comes with ``engine``.

        Source: ``POST experiments/lambda/start`` of the runtime service.
        """

    def status(self, run: _RunLike) -> Status:
        """
        Return the current status of a run. While the service has none, it is a pending status.

        Raises:
            UnknownRun: There is no such run.

        Source: ``GET instances/{id}/status`` of the runtime service.
        """

    def status_report(self, run: _RunLike) -> StatusReport:
        """
        Return the state of each component of a run, as the orchestrator last wrote it: some seconds ago, or at the end.

        Raises:
            NotFound: There is no report, or not yet. A deleted run has none.
            NotReady, UnknownRun: As in `read_file`.
            DecodeError: The report is incomplete or damaged, as by a full disk. A later one may be complete.

        Source: ``output/status_details.json`` in the directory of the run.
        """

    def stdout(self, run: _RunLike, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
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

    @property
    def url(self) -> str:
        """Address of the deployment, without ``rs/`` and with a slash at its end."""

    @overload
    def wait(  # type: ignore[overload-overlap]
        self, run: _RunLike, *, timeout: float | None = None, interval: float | None = None, check: bool = False
    ) -> Status:
        """
        Wait until a run, or each of several, is over, and return the final status.

        Args:
            run: A run, or any number of them.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.
            check: Raise an error for runs that ended without Success, after all have ended.

        Returns:
            One status for a run, or a list in the given order for several. Among several, a run that was deleted has
            its last known status with ``is_deleted`` True, which is a pending one if the run was never seen.

        Raises:
            UnknownRun: There is no such run. For several: none of them exists.
            RunDeleted: The only run was deleted while it was watched.
            RunFailed: ``check`` is True and not all runs ended with Success.
            WaitTimeout: Not all runs are over in time. They continue.
        """

    @overload
    def wait(
        self,
        run: Iterable[_RunLike],
        *,
        timeout: float | None = None,
        interval: float | None = None,
        check: bool = False,
    ) -> list[Status]:
        """
        Wait until a run, or each of several, is over, and return the final status.

        Args:
            run: A run, or any number of them.
            timeout: Seconds for the whole wait, all runs together. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.
            check: Raise an error for runs that ended without Success, after all have ended.

        Returns:
            One status for a run, or a list in the given order for several. Among several, a run that was deleted has
            its last known status with ``is_deleted`` True, which is a pending one if the run was never seen.

        Raises:
            UnknownRun: There is no such run. For several: none of them exists.
            RunDeleted: The only run was deleted while it was watched.
            RunFailed: ``check`` is True and not all runs ended with Success.
            WaitTimeout: Not all runs are over in time. They continue.
        """

    def watch(self, run: _RunLike, *, timeout: float | None = None, interval: float | None = None) -> Generator[Status]:
        """
        Yield the statuses of a run until it is over: the first at once, then each change, the final status last.

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

    def watch_many(
        self, runs: Iterable[_RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> Generator[tuple[Run, Status]]:
        """
        Yield the statuses of many runs until all are over: of each the first, each change, and the final one once.

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
            DecodeError: The replies make no sense from the first on, or for a minute.
            Unauthorized: The credentials were refused and could not be renewed. The error has the last statuses.

        Source: ``GET instances/`` and ``GET instances/{id}/status`` of the runtime service.
        """

    def with_options(
        self,
        *,
        timeout: float | _Unchanged = ...,
        retry: RetryPolicy | _Unchanged = ...,
        poll_interval: float | _Unchanged | None = ...,
        grace: float | _Unchanged = ...,
        settle: float | _Unchanged = ...,
        progress: Progress | _Unchanged | None = ...,
    ) -> Self:
        """
        Return a client that uses the same connections with some settings changed. It closes with this client.

        Settings of the connections (``concurrency``, ``downloads``, ``verify``, ``trusted_hosts``) are shared. Each
        option means the same as the field of `Config`.
        """
