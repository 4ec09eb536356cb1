"""Statuses that services were seen to show of runs over time. Each row names its fact."""

from __future__ import annotations

from typing import NamedTuple

GRACE = 60.0
IMAGE_PULL_GRACES = 10
FOREVER = 3 * IMAGE_PULL_GRACES * GRACE
"""Seconds after which a run that is not over never will be."""

NO_STATUS = "Workflow instance sum-numbers-bc79d8-lq14vhus does not have "
NO_POD = "Workflow has no status and there is no Pod for it, ask your administrator to ins"
NO_ROOM = (
    "Workflow scheduler is unscheduled, reason: 0/1 nodes are available: 1 Insufficient cpu. "
    "preemption: 0/1 nodes are available."
)
NOT_CLONED = (
    "initContainer failure: git-sync-package failed with exit code 128 and message fatal: '/srv/st4sd' does not appear "
    "to be a git repository\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct "
    "access rights\nand the repository exists.\n"
)
NO_IMAGE = "initContainer failure: failed to pull image registry.example/git-sync:latest"
KILLED = "elaunch-primary exitCode: 137, reason: OOMKilled"
BOOM = "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Boom. Returncode"
BOOM_AT_THE_END = "Stage 0 failed. Reason:\\n1 jobs failed unexpectedly.\\nJob: stage0.Boom. Returnco"
BAD_OPTION = "During argument parsing of sys-args, ran into BadOptionError no such option: --no-such-option"
BAD_REFERENCE = "UnusedDataReferenceError Reference stage0.A:ref declared by component stage1.B i"

Moment = tuple[float, str | None, str | None, str]
"""Seconds from which on the service shows this experiment-state, exit-status and error-description."""


class RecordedRun(NamedTuple):
    """The statuses of one run over time."""

    fact: str
    moments: list[Moment]
    over: float | None
    """When the run is over, with a grace period of 60 s; None means never."""
    success: bool = False


RECORDED_RUNS = [
    RecordedRun(
        "[1] exit-status first, recorded: slow",
        [
            (0.01, None, None, NO_STATUS),
            (0.33, None, None, ""),
            (2.38, "running", "N/A", ""),
            (22.42, "running", "Success", ""),
            (26.43, "finished", "Success", ""),
        ],
        26.43,
        True,
    ),
    RecordedRun(
        "[1] exit-status first, recorded: demo",
        [
            (0.01, None, None, NO_STATUS),
            (0.31, None, None, ""),
            (2.41, "running", "N/A", ""),
            (14.4, "running", "Success", ""),
            (18.4, "finished", "Success", ""),
        ],
        18.4,
        True,
    ),
    RecordedRun(
        "[1] exit-status first, recorded: sum-numbers-ukkkcyws",
        [
            (0.1, None, None, NO_POD),
            (0.4, None, None, ""),
            (3.6, "Initialising", "N/A", ""),
            (28.5, "running", "Success", ""),
            (32.7, "finished", "Success", ""),
        ],
        32.7,
        True,
    ),
    RecordedRun(
        "[1] both at once, recorded: sum-numbers",
        [
            (0.01, None, None, NO_STATUS),
            (0.31, None, None, ""),
            (2.4, "running", "N/A", ""),
            (26.41, "finished", "Success", ""),
        ],
        26.41,
        True,
    ),
    RecordedRun(
        "[1] both at once, recorded: demo-76k4hf87",
        [
            (0.1, None, None, NO_POD),
            (0.4, None, None, ""),
            (3.6, "running", "N/A", ""),
            (16.4, "finished", "Success", ""),
        ],
        16.4,
        True,
    ),
    RecordedRun(
        "[1] experiment-state first: the documentation's order",
        [(0, "running", "N/A", ""), (5, "finished", "N/A", ""), (9, "finished", "Success", "")],
        9,
        True,
    ),
    RecordedRun(
        "[1] experiment-state first, failed",
        [(0, "running", "N/A", ""), (5, "finished", "N/A", ""), (9, "finished", "Failed", BOOM_AT_THE_END)],
        9,
    ),
    RecordedRun(
        "[2] finished with Failed is a component failure; [5] its text changes, recorded: fail",
        [
            (0.1, None, None, NO_POD),
            (0.5, None, None, ""),
            (3.6, "Initialising", "N/A", ""),
            (33.7, "running", "N/A", ""),
            (34.6, "running", "Failed", BOOM),
            (39.6, "finished", "Failed", BOOM_AT_THE_END),
        ],
        39.6,
    ),
    RecordedRun(
        "[2] failed is a set-up failure, recorded: badref",
        [(0.1, None, None, NO_POD), (0.5, None, None, ""), (3.7, "failed", "Failed", BAD_REFERENCE)],
        3.7,
    ),
    RecordedRun(
        "[2] failed is a set-up failure: bad arguments", [(0, None, None, ""), (2, "failed", "Failed", BAD_OPTION)], 2
    ),
    RecordedRun(
        "[3] unscheduled, whose text is not an error",
        [
            (0, "unscheduled", "", NO_ROOM),
            (500, None, None, ""),
            (501, "running", "N/A", ""),
            (510, "finished", "Success", ""),
        ],
        510,
        True,
    ),
    RecordedRun("[3] unscheduled for ever", [(0, "unscheduled", "", NO_ROOM)], None),
    RecordedRun(
        "[3] failed init container, exit-status empty for ever",
        [(0, None, None, ""), (1, "failed", "", NOT_CLONED)],
        1 + GRACE,
    ),
    RecordedRun(
        "[3] killed orchestrator: Failed with a capital F, exit-status empty for ever",
        [(0, "running", "N/A", ""), (10, "Failed", "", KILLED)],
        10 + GRACE,
    ),
    RecordedRun(
        "[3] Failed for the seconds between the container's end and its last status",
        [
            (0, "running", "N/A", ""),
            (10, "Failed", "", "elaunch-primary exitCode: 1, reason: Error"),
            (14, "finished", "Failed", BOOM_AT_THE_END),
        ],
        14,
    ),
    RecordedRun(
        "[3] ErrImagePull flaps and comes back",
        [
            (0, "failed", "", NO_IMAGE),
            (20, None, None, ""),
            (35, "failed", "", NO_IMAGE),
            (50, None, None, ""),
            (200, "failed", "", NO_IMAGE),
            (500, "running", "N/A", ""),
            (510, "finished", "Success", ""),
        ],
        510,
        True,
    ),
    RecordedRun(
        "[3] ErrImagePull stands for ever",
        [(0, None, None, ""), (1, "failed", "", NO_IMAGE)],
        1 + IMAGE_PULL_GRACES * GRACE,
    ),
    RecordedRun(
        "[3] killed after a component failed: running and Failed for ever",
        [(0, "running", "N/A", ""), (10, "running", "Failed", BOOM)],
        10 + GRACE,
    ),
    RecordedRun(
        "[3] unschedulable, which an administrator repairs",
        [
            (0, "unschedulable", "", "Unable to pull image registry.example/st4sd-runtime-core:latest"),
            (900, None, None, ""),
            (901, "running", "N/A", ""),
            (910, "finished", "Success", ""),
        ],
        910,
        True,
    ),
    RecordedRun("[3] unschedulable for ever", [(0, "unschedulable", "", "Unable to pull images a, b")], None),
    RecordedRun(
        "[3] monitor stuck: the service itself says finished and Success",
        [(0.3, None, None, ""), (300, "finished", "Success", "")],
        300,
        True,
    ),
    RecordedRun("[1] one field final, the other never: state", [(0, "finished", "N/A", "")], GRACE),
    RecordedRun("[1] one field final, the other never: state, nulls", [(0, "finished", None, "")], GRACE),
    RecordedRun("[1] one field final, the other never: Success", [(0, "running", "Success", "")], GRACE, True),
    RecordedRun("[1] one field final, the other never: Stopped", [(0, None, "Stopped", "")], GRACE),
    RecordedRun(
        "[5] a text that changes does not start the grace anew",
        [(0, "running", "Failed", "a"), (40, "running", "Failed", BOOM), (55, "running", "Failed", "")],
        GRACE,
    ),
    RecordedRun("[6] Stopped", [(0, "running", "N/A", ""), (4, "finished", "Stopped", "Killed by user signal")], 4),
    RecordedRun("[3] null for ever", [(0, None, None, "")], None),
    RecordedRun("[3] empty for ever", [(0, "", "", "")], None),
    RecordedRun("[3] the word None for ever", [(0, "None", "None", "")], None),
    RecordedRun("[3] Initialising for ever", [(0, "Initialising", "N/A", "")], None),
    RecordedRun("[3] running for ever", [(0, "running", "N/A", "")], None),
    RecordedRun("[3] waits for ever", [(0, "waiting_on_resource", "N/A", ""), (99, "suspended", "N/A", "")], None),
    RecordedRun("[3] words that nobody has seen", [(0, "thawing", "Melted", "")], None),
    RecordedRun("[3] a word that nobody has seen beside a final one", [(0, "thawing", "Failed", "")], GRACE),
]
