"""Words of services, and the hints for them."""

from __future__ import annotations

from typing import NamedTuple

from st4sd_async import Reason

NO_POD = (
    "Workflow has no status and there is no Pod for it, ask your administrator to inspect the status of the "
    "workflow-operator pod."
)
NO_ROOM = (
    "Workflow scheduler is unscheduled, reason: 0/1 nodes are available: 1 Insufficient cpu. "
    "preemption: 0/1 nodes are available."
)
NO_ROOM_IN_A_BIG_CLUSTER = (
    "Workflow scheduler is unscheduled, reason: 0/9 nodes are available: 3 Insufficient memory, "
    "5 Insufficient nvidia.com/gpu."
)
NOT_CLONED = (
    "initContainer failure: git-sync-package failed with exit code 128 and message fatal: '/srv/st4sd' does not appear "
    "to be a git repository\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct "
    "access rights\nand the repository exists.\n"
)
NO_PACKAGE_IN_S3 = "initContainer failure: s3-package-fetch failed with exit code 1 and message NoSuchKey"
NO_INPUTS_IN_S3 = "initContainer failure: s3-fetch failed with exit code 1 and message NoSuchBucket: simulations"
OTHER_INIT = "initContainer failure: warm-up failed with exit code 1 and message unable to fetch stdout of warm-up"
BOOM = "Stage 0 failed. Reason:\\n1 jobs failed unexpectedly.\\nJob: stage0.Boom. Returncode 1. Reason KnownIssue\\n"
BAD_OPTION = "During argument parsing of sys-args, ran into BadOptionError no such option: --no-such-option"
BAD_REFERENCE = "UnusedDataReferenceError Reference stage0.A:ref declared by component stage1.B is not used"
UNEXPECTED = "Unexpected exception reached top level\n.division by zero"
ADMINISTRATOR = "the cluster keeps trying, ask your administrator to repair it"


class Case(NamedTuple):
    """A status of a service, and the hint for it."""

    name: str
    words: tuple[str | None, str | None, str | None]
    """experiment-state, exit-status, stage-state."""
    text: str
    reason: Reason
    line: str


CASES = [
    Case(
        "null",
        (None, None, None),
        "",
        Reason.PENDING,
        "pending: no status yet, as in the first seconds of a run",
    ),
    Case(
        "empty",
        ("", "", ""),
        "",
        Reason.PENDING,
        "pending: no status yet, as in the first seconds of a run",
    ),
    Case(
        "warning",
        (None, None, None),
        NO_POD,
        Reason.PENDING,
        "pending: no status yet, as in the first seconds of a run (there is no Pod for it)",
    ),
    Case(
        "400",
        (None, None, None),
        "Workflow instance demo-c52cd4-yssbeju7 does not have a status yet",
        Reason.PENDING,
        "pending: no status yet, as in the first seconds of a run",
    ),
    Case(
        "initialising",
        ("Initialising", "N/A", "Initialising"),
        "",
        Reason.INITIALISING,
        "initialising: the orchestrator is setting it up; no component runs yet",
    ),
    Case(
        "initialising, as the documentation spells it",
        ("Initializing", None, "Initializing"),
        "",
        Reason.INITIALISING,
        "initialising: the orchestrator is setting it up; no component runs yet",
    ),
    Case(
        "unscheduled",
        ("unscheduled", "", ""),
        NO_ROOM,
        Reason.UNSCHEDULED,
        "unscheduled: waits for resources (1 Insufficient cpu)",
    ),
    Case(
        "unscheduled, several resources",
        ("unscheduled", "", ""),
        NO_ROOM_IN_A_BIG_CLUSTER,
        Reason.UNSCHEDULED,
        "unscheduled: waits for resources (3 Insufficient memory, 5 Insufficient nvidia.com/gpu)",
    ),
    Case(
        "unscheduled, another text",
        ("unscheduled", "", ""),
        "no room",
        Reason.UNSCHEDULED,
        "unscheduled: waits for resources (no room)",
    ),
    Case(
        "unschedulable",
        ("unschedulable", "", ""),
        "Unable to pull image registry.example/st4sd-runtime-core:latest",
        Reason.UNSCHEDULABLE,
        f"unschedulable: an image cannot be pulled; {ADMINISTRATOR} (registry.example/st4sd-runtime-core:latest)",
    ),
    Case(
        "unschedulable, two images",
        ("unschedulable", "", ""),
        "Unable to pull images registry.example/a, registry.example/b",
        Reason.UNSCHEDULABLE,
        f"unschedulable: an image cannot be pulled; {ADMINISTRATOR} (registry.example/a, registry.example/b)",
    ),
    Case(
        "failed image pull",
        ("failed", "", ""),
        "initContainer failure: failed to pull image registry.example/git-sync:latest",
        Reason.UNSCHEDULABLE,
        f"unschedulable: an image cannot be pulled; {ADMINISTRATOR} (registry.example/git-sync:latest)",
    ),
    Case(
        "failed image pull, text of the cluster",
        ("failed", "", ""),
        "waiting: ErrImagePull",
        Reason.UNSCHEDULABLE,
        f"unschedulable: an image cannot be pulled; {ADMINISTRATOR} (waiting: ErrImagePull)",
    ),
    Case(
        "waiting on resource",
        ("waiting_on_resource", "N/A", "waiting_on_resource"),
        "",
        Reason.WAITING_ON_RESOURCE,
        "waiting on resource: a component waits for resources; it continues when they are available",
    ),
    Case(
        "waiting on resource, so far only in the stage",
        ("running", "N/A", "waiting_on_resource"),
        "",
        Reason.WAITING_ON_RESOURCE,
        "waiting on resource: a component waits for resources; it continues when they are available",
    ),
    Case(
        "suspended",
        ("suspended", "N/A", "suspended"),
        "",
        Reason.SUSPENDED,
        "suspended: its components are suspended; if this persists, ask your administrator",
    ),
    Case(
        "bad arguments",
        ("failed", "Failed", "Initialising"),
        BAD_OPTION,
        Reason.SETUP_FAILED,
        "setup failed: no component ran; correct the start payload or the package and start again (During argument "
        "parsing of sys-args, ran into BadOptionError no such option: --no-such-option)",
    ),
    Case(
        "invalid package",
        ("failed", "Failed", "Initialising"),
        BAD_REFERENCE,
        Reason.SETUP_FAILED,
        "setup failed: no component ran; correct the start payload or the package and start again "
        "(UnusedDataReferenceError Reference stage0.A:ref declared by component stage1.B is not used)",
    ),
    Case(
        "another init container",
        ("failed", "", ""),
        OTHER_INIT,
        Reason.SETUP_FAILED,
        "setup failed: no component ran; correct the start payload or the package and start again "
        "(initContainer failure: warm-up failed with exit code 1 and message unable to fetch stdout of warm-up)",
    ),
    Case(
        "git clone",
        ("failed", "", ""),
        NOT_CLONED,
        Reason.PACKAGE_NOT_FETCHED,
        "package not fetched: check the URL of the package, its branch or commit, and the access to it "
        "(fatal: '/srv/st4sd' does not appear to be a git repository fatal: Cou [...]  and the repository exists.)",
    ),
    Case(
        "package in S3",
        ("failed", "", ""),
        NO_PACKAGE_IN_S3,
        Reason.PACKAGE_NOT_FETCHED,
        "package not fetched: check the URL of the package, its branch or commit, and the access to it (NoSuchKey)",
    ),
    Case(
        "inputs in S3",
        ("failed", "", ""),
        NO_INPUTS_IN_S3,
        Reason.INPUTS_NOT_FETCHED,
        "inputs not fetched: check the S3 bucket or dataset, the names of the files, and the access to them "
        "(NoSuchBucket: simulations)",
    ),
    Case(
        "out of memory",
        ("Failed", "", ""),
        "elaunch-primary exitCode: 137, reason: OOMKilled",
        Reason.ORCHESTRATOR_KILLED,
        "orchestrator killed: it ran out of memory; start again with more in orchestrator_resources "
        "(exitCode: 137, reason: OOMKilled)",
    ),
    Case(
        "killed",
        ("Failed", "", ""),
        "elaunch-primary exitCode: 137, reason: Error",
        Reason.ORCHESTRATOR_KILLED,
        "orchestrator killed: its container ended too early; start again, or ask your administrator "
        "(exitCode: 137, reason: Error)",
    ),
    Case(
        "an error of the orchestrator",
        ("finished", "Failed", "failed"),
        UNEXPECTED,
        Reason.ORCHESTRATOR_FAILED,
        "orchestrator failed: it had an internal error; show this to your administrator "
        "(Unexpected exception reached top level .division by zero)",
    ),
    Case(
        "component",
        ("finished", "Failed", "failed"),
        BOOM,
        Reason.COMPONENT_FAILED,
        "component failed: see `await run.failure()` (Job: stage0.Boom. Returncode 1. Reason KnownIssue)",
    ),
    Case(
        "component, killed after it",
        ("running", "Failed", "failed"),
        "boom",
        Reason.COMPONENT_FAILED,
        "component failed: see `await run.failure()` (boom)",
    ),
    Case(
        "component, so far only in the stage",
        ("running", "N/A", "failed"),
        "",
        Reason.COMPONENT_FAILED,
        "component failed: see `await run.failure()`",
    ),
    Case(
        "stopped",
        ("finished", "Stopped", "failed"),
        "Killed by user signal",
        Reason.STOPPED,
        "stopped: it was stopped before it ended (Killed by user signal)",
    ),
    Case(
        "finished without exit-status",
        ("finished", "N/A", "finished"),
        "",
        Reason.NO_EXIT_STATUS,
        "no exit status: the run has ended; if this persists, check its outputs",
    ),
    Case(
        "failed without a text",
        ("failed", "", ""),
        "",
        Reason.NO_EXIT_STATUS,
        "no exit status: the run has ended; if this persists, check its outputs",
    ),
    Case(
        "unknown state",
        ("Thawing", "N/A", "running"),
        "",
        Reason.UNKNOWN,
        "unknown: the service used a word that this client does not know; a newer version may know it "
        "(experiment-state 'Thawing', exit-status 'N/A')",
    ),
    Case(
        "unknown exit-status",
        ("finished", "Melted", "finished"),
        "puddle",
        Reason.UNKNOWN,
        "unknown: the service used a word that this client does not know; a newer version may know it "
        "(experiment-state 'finished', exit-status 'Melted' puddle)",
    ),
]
