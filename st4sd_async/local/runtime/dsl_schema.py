"""
The schema of DSL 2.0, with the values of what is left out.

Source:
    st4sd-runtime-core, ``experiment/model/frontends/dsl.py``. Of names and of the values of components only the
    place is checked, not the form.
"""

from __future__ import annotations

from typing import Any

from st4sd_async.local.runtime.schema import REQUIRED, TEXT, Anything, DictOf, ListOf, Model, Slot

_ANY = Anything()


def _model(name: str, /, **fields: Slot) -> Model:
    return Model(name, fields)


def _open(name: str, /, **defaults: Any) -> Model:
    """A model whose fields take any value and have these defaults."""
    fields = {key.replace("__", "-"): Slot(_ANY, value) for key, value in defaults.items()}
    return Model(name, fields)


_PARAMETER = _model("Parameter", name=Slot(TEXT, REQUIRED), default=Slot(_ANY))
_SIGNATURE = _model(
    "Signature", name=Slot(TEXT, REQUIRED), description=Slot(TEXT), parameters=Slot(ListOf(_PARAMETER), [])
)
_STEP = _model("ExecuteStep", target=Slot(TEXT, REQUIRED), args=Slot(DictOf(_ANY), {}))

_ENTRYPOINT = Model(
    "Entrypoint",
    {
        "entry-instance": Slot(TEXT, REQUIRED),
        "execute": Slot(ListOf(_STEP), []),
        "output": Slot(ListOf(_ANY), []),
        "interface": Slot(_ANY),
    },
)
_WORKFLOW = _model(
    "Workflow", signature=Slot(_SIGNATURE, REQUIRED), steps=Slot(DictOf(TEXT), {}), execute=Slot(ListOf(_STEP), [])
)

_COMMAND = _open(
    "CCommand",
    executable=None,
    interpreter=None,
    arguments=None,
    environment=None,
    resolvePath=False,
    expandArguments="double-quote",
)
_MEMOIZATION = _model(
    "CMemoization",
    embeddingFunction=Slot(TEXT),
    disable=Slot(_open("CMemoizationDisable", strong=False, fuzzy=False), {}),
)
_OPTIMIZER = _open(
    "COptimizer", disable=False, exploitChance=0.9, exploitTarget=0.75, exploitTargetLow=0.25, exploitTargetHigh=0.5
)
_ATTRIBUTES = Model(
    "CWorkflowAttributes",
    {
        "stage": Slot(_ANY),
        "restartHookFile": Slot(_ANY),
        "restartHookOn": Slot(ListOf(_ANY), ["ResourceExhausted"]),
        "aggregate": Slot(_ANY, False),
        "replicate": Slot(_ANY),
        "repeatInterval": Slot(_ANY),
        "shutdownOn": Slot(ListOf(_ANY), []),
        "maxRestarts": Slot(_ANY),
        "repeatRetries": Slot(_ANY),
        "memoization": Slot(_MEMOIZATION, {}),
        "isMigratable": Slot(_ANY, False),
        "isMigrated": Slot(_ANY, False),
        "isRepeat": Slot(_ANY, False),
        "optimizer": Slot(_OPTIMIZER, {}),
    },
)
_REQUEST = _open(
    "CResourceRequest",
    numberProcesses=1,
    ranksPerNode=1,
    numberThreads=1,
    threadsPerCore=1,
    memory=None,
    gpus=None,
)
_LSF = _open(
    "CResourceManagerLSF",
    statusRequestInterval=20,
    queue="normal",
    resourceString=None,
    reservation=None,
    dockerImage=None,
    dockerProfileApp=None,
    dockerOptions=None,
)
_KUBERNETES = _open(
    "CResourceManagerKubernetes",
    image=None,
    qos=None,
    cpuUnitsPerCore=None,
    gracePeriod=None,
    podSpec=None,
    image__pull__secret=None,
    namespace="default",
    api__key__var=None,
    host="http://localhost:8080",
)
_MANAGER = _model(
    "CResourceManager",
    config=Slot(_open("CResourceManagerConfig", backend="local", walltime=60.0), {}),
    lsf=Slot(_LSF, {}),
    kubernetes=Slot(_KUBERNETES, {}),
    docker=Slot(_open("CResourceManagerDocker", image=None, imagePullPolicy="Always", platform=None), {}),
)
_COMPONENT = _model(
    "Component",
    signature=Slot(_SIGNATURE, REQUIRED),
    command=Slot(_COMMAND, REQUIRED),
    workflowAttributes=Slot(_ATTRIBUTES, {}),
    resourceRequest=Slot(_REQUEST, {}),
    resourceManager=Slot(_MANAGER, {}),
    variables=Slot(DictOf(_ANY), {}),
)

NAMESPACE = _model(
    "Namespace",
    entrypoint=Slot(_ENTRYPOINT),
    workflows=Slot(ListOf(_WORKFLOW), []),
    components=Slot(ListOf(_COMPONENT), []),
)
"""A whole definition."""


def without_defaults(value: Any, kind: Any = NAMESPACE) -> Any:
    """A complete value of the schema without what is as it would be if nobody had written it."""
    if isinstance(kind, ListOf) and isinstance(value, list):
        return [without_defaults(item, kind.item) for item in value]
    if not isinstance(kind, Model) or not isinstance(value, dict):
        return value
    left = {name: without_defaults(value[name], slot.kind) for name, slot in kind.fields.items() if name in value}
    return {name: item for name, item in left.items() if not _is_default(item, kind.fields[name])}


def _is_default(item: Any, slot: Slot) -> bool:
    return slot.default is not REQUIRED and item == slot.default
