"""Waiting for runs: the verbs of a client that watch them to their ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, overload

from ._errors import RunDeleted, RunFailed
from ._run import Run, RunLike, rest_uid_of, several
from ._util.progress import ProgressReporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import Config
    from ._watch.poller import Poller
    from .models import Status


class Waits:
    """The part of a client that waits; see `Client` for what all its methods raise."""

    run: Callable[[str], Run]
    """A handle on an instance."""
    _config: Config
    _poller: Poller

    async def watch(
        self, run: RunLike, *, timeout: float | None = None, interval: float | None = None
    ) -> AsyncGenerator[Status]:
        """
        The statuses of a run until it is over: the first at once, then each change, the final one last.

        Server errors, lost connections and renewed credentials do not end it. Leaving the loop leaves
        the run alone. However many tasks watch through one client, they ask together, as `watch_many` does.

        Args:
            run: The run.
            timeout: Seconds for the whole wait, however many requests it takes; None: for ever.
            interval: Seconds between two looks, more if the service is slow; None: ``Config.poll_interval``.

        Raises:
            UnknownRun: It is not there.
            RunDeleted: It was deleted meanwhile.
            WaitTimeout: It is not over in time; it goes on.
        """
        async with aclosing(self.watch_many([rest_uid_of(run)], timeout=timeout, interval=interval)) as changes:
            async for one, status in changes:
                if status.is_deleted:
                    raise RunDeleted(one.id, status)
                yield status

    def watch_many(
        self, runs: Iterable[RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> AsyncGenerator[tuple[Run, Status]]:
        """
        The statuses of many runs until all are over: of each the first, then each change, its final one once.

        Thousands of runs cost the service little more than one: they are read from one list. Who reads
        slowly gets the newest status of each run and never a backlog. A run that was deleted ends with
        its last known status, ``is_final`` and ``is_deleted`` True; if it was deleted before it was seen, or never
        was, that is a pending one whose ``hint`` has the words of the service. The list shows neither a killed
        orchestrator nor why a run waits: for that runs are asked one by one, three in a round, so that a killed one
        among hundreds may take a hundred rounds to be found; a shorter ``interval`` finds it sooner.

        Args:
            runs: Runs or rest-uids, each taken once.
            timeout: Seconds for the whole wait, all runs together; None: for ever.
            interval: Seconds between two looks, never less than ten times what the last one took; None:
                ``Config.poll_interval``.

        Raises:
            UnknownRun: None of them is there, or was while it was watched: mistyped, deleted, or elsewhere.
            WaitTimeout: Not all are over in time. It has the last status of each, pending if nothing was heard of it,
                and what the service answered with last as its cause if that was no answer.
            DecodeError: Answers make no sense from the first on, or for a minute.
            Unauthorized: The credentials were refused and could not be renewed; it has the last statuses.

        Source: ``GET instances/`` and ``GET instances/{id}/status`` of the runtime service.
        """
        handles = {
            rest_uid_of(run): run if isinstance(run, Run) else self.run(rest_uid_of(run)) for run in several(runs)
        }
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if interval is not None and not interval > 0:
            raise ValueError(f"interval must be a number of seconds above 0 or None, not {interval!r}")
        pause = self._config.poll_interval if interval is None else interval
        return self._poller.changes(handles, timeout, pause)

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
        The final status of a run, or of each of several, once all are over.

        Args:
            run: A run, or any number of them.
            timeout: Seconds for the whole wait, all runs together; None: for ever.
            interval: Seconds between two looks at a run; None: ``Config.poll_interval``.
            check: Whether a run that ended without Success is an error, raised when all have ended.

        Returns:
            One status for a run, a list in the order given for several. Among several, one that was deleted has its
            last known status, with ``is_deleted`` True: a pending one if it was not there from the beginning.

        Raises:
            UnknownRun: It is not there; of several: none is.
            RunDeleted: The only one was deleted meanwhile.
            RunFailed: ``check`` is True and not all ended with Success.
            WaitTimeout: Not all are over in time; they go on.
        """
        is_one = isinstance(run, str) or not isinstance(run, Iterable)
        order = [rest_uid_of(one) for one in ([run] if is_one else several(run))]
        final: dict[str, Status] = {}
        changes, what = self.watch_many(order, timeout=timeout, interval=interval), order[0] if is_one else "runs"
        with ProgressReporter(self._config.progress, f"waiting for {what}", len(set(order)), "runs") as work:
            async with aclosing(changes):
                async for one, status in changes:
                    if status.is_deleted and is_one:
                        raise RunDeleted(one.id, status)
                    final[one.id] = status
                    work.finish(int(status.is_final))
        failures = {rest_uid: status for rest_uid, status in final.items() if not status.is_success}
        if check and failures:
            raise RunFailed(failures)
        return final[order[0]] if is_one else [final[one] for one in order]

    async def show(
        self, runs: Iterable[RunLike], *, timeout: float | None = None, interval: float | None = None
    ) -> list[Status]:
        """
        The final status of each of some runs, which are shown until all are over: in a table that stays in its place.

        In a notebook it is the output of the cell, in a terminal its lower end (with rich, which the extra ``cli``
        brings), elsewhere lines on standard error. Of more than a dozen runs those that are alike share a row.
        Showing costs the service nothing: the runs are watched as by `watch_many`. Interrupting it, as with the
        notebook's stop button, leaves the runs alone and says so.

        Args:
            runs: Runs or rest-uids.
            timeout: Seconds for the whole wait, all runs together; None: for ever.
            interval: Seconds between two looks; None: ``Config.poll_interval``.

        Returns:
            Their final statuses in the order given; one that was deleted meanwhile has ``is_deleted`` True.

        Raises:
            UnknownRun, WaitTimeout, Unauthorized: As from `watch_many`.
        """
        from ._display.show import show  # not with the package: most programs show nothing

        return await show(self, runs, self._config.clock, timeout, interval)
