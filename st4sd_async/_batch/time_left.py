"""Estimate the time left in a batch from the history of its launches. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .state import FAILURES, State, StateChange

MIN_ENDED = 3
"""Runs that must have ended before there is an estimate."""
MIN_ENDED_SHARE = 0.25
"""Minimum number of such runs, as a share of the runs in progress, because the shortest runs end first."""
OVERDUE_SHARE = 0.1
"""A run that takes longer than usual is expected to take this share of the usual duration from now."""
_WAITING = frozenset({State.PLANNED, State.SENDING, State.UNKNOWN})


def seconds_left(histories: Iterable[Sequence[StateChange]], now: float) -> float | None:
    """
    Return the estimated seconds until all launches are over. None means that too few runs have ended.

    Runs that ended give the usual duration. How many were in progress at the same time, on average over all times at
    which there was one, is the parallelism. Downloads are not included.

    Args:
        histories: The state changes of each launch, in the order of time.
        now: Wall-clock time in seconds.
    """
    spans: list[tuple[float, float]] = []
    begun: list[float] = []  # seen to begin, and in progress
    accepted: list[float] = []  # in progress, or still waiting for the cluster
    seen = waiting = 0
    for changes in histories:
        begin: float | None = None
        is_seen = False
        for change in changes:
            if change.state in (State.STARTED, "running"):
                begin, is_seen = change.since, change.state == "running"
            elif change.state in (State.SUCCEEDED, State.FAILED) and begin is not None:
                spans.append((begin, change.since))
                seen, begin = seen + is_seen, None
            elif change.state in FAILURES:
                begin = None
        last = changes[-1].state if changes else ""  # an old journal may lack the changes
        waiting += last in _WAITING
        if begin is not None and last not in _WAITING:
            (begun if is_seen else accepted).append(begin)
    if 2 * seen < len(spans):  # the runs that ended were not seen to wait either
        begun += accepted
    else:
        waiting += len(accepted)
    if (not waiting and not begun) or len(spans) < max(MIN_ENDED, MIN_ENDED_SHARE * len(begun)):
        return None
    usual = sorted(max(0.0, end - begin) for begin, end in spans)[len(spans) // 2]  # the median
    rest = [max(usual - (now - begin), OVERDUE_SHARE * usual) for begin in begun]
    parallelism = _parallelism([*spans, *((begin, now) for begin in begun)])
    return max((usual * waiting + sum(rest)) / parallelism, *rest, 0.0)


def _parallelism(spans: Iterable[tuple[float, float]]) -> float:
    """Return how many of these spans there are at the same time, on average over the times that have one."""
    busy = covered = 0.0
    latest = float("-inf")
    for begin, end in sorted(spans):
        busy += max(0.0, end - begin)
        covered += max(0.0, end - max(begin, latest))
        latest = max(latest, end)
    return max(1.0, busy / covered) if covered else 1.0


def time_left(seconds: float | None) -> str:
    """Return an estimate in words, such as ``about 12 min left``; "" if there is none."""
    if seconds is None:
        return ""
    if seconds < 60:
        return "less than 1 min left"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min left"
    hours = round(minutes / 60)
    return f"about {hours} h left" if hours < 48 else f"about {round(hours / 24)} days left"
