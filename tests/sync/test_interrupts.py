"""Ctrl-C while a blocking client waits, and the exit of the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from st4sd_async import Launch
from st4sd_async.local import Delay, LocalServer
from st4sd_async.sync import Client, Run
from tests.faults.forks import LAZY, environment
from tests.forks import ROOT, Forked, Forks
from tests.tries import IS_FULL

from .conftest import FILES, connect, loops

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.slow,
]  # processes that import all of it anew, on a machine that may be busy

PROMPT = 4.0
"""Seconds within which an interruption takes effect, far fewer than the calls would take."""


@contextmanager
def interrupted(server: LocalServer, number: signal.Signals) -> Iterator[None]:
    """Send a signal to this thread, a moment after the block has sent a request."""
    main, count = threading.main_thread().ident or 0, len(server.requests)

    def press() -> None:
        limit = time.monotonic() + 10
        while len(server.requests) == count and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(0.05)
        signal.pthread_kill(main, number)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def follow(client: Client, run: Run) -> None:
    for _ in client.watch(run):
        pass


def work_off(client: Client, run: Run) -> None:
    with client.batch() as batch:
        batch.add([Launch("C", "demo", {"inputs": FILES})])
        for _ in batch.run():
            pass


def start(client: Client, run: Run) -> None:
    client.start("demo", {"inputs": FILES})


def ask(client: Client, run: Run) -> None:
    client.instances.get(run.id)


def wait(client: Client, run: Run) -> None:
    client.wait(run)


WAITS = [
    (follow, None),
    (wait, None),
    (work_off, None),
    (start, "POST /experiments/*/start"),
    (ask, "GET /instances/*"),
]
"""The blocking calls, each with the request that is delayed, if any."""


@pytest.mark.parametrize(("work", "match"), WAITS, ids=lambda value: getattr(value, "__name__", ""))
def test_ctrl_c_cancels_the_call(
    server: LocalServer,
    sync_client: Client,
    work: Callable[[Client, Run], None],
    match: str | None,
) -> None:
    """Promptly, and the client can be used as before."""
    run = sync_client.start("demo", {"inputs": FILES})
    if match:
        server.faults.add(match, Delay(10))
    began = time.monotonic()

    with pytest.raises(KeyboardInterrupt), interrupted(server, signal.SIGINT):
        work(sync_client, run)

    assert time.monotonic() - began < PROMPT
    server.advance(60)
    assert sync_client.wait(run).is_success
    count = len(server.requests)
    time.sleep(0.05)  # in which whoever still watched would ask again
    assert len(server.requests) == count


@pytest.mark.parametrize(("delay", "is_known"), [(0.5, True), (10, False)])
def test_ctrl_c_during_a_start_reports_its_result(
    server: LocalServer, sync_client: Client, caplog: pytest.LogCaptureFixture, delay: float, is_known: bool
) -> None:
    """The note on the interrupt and the warning in the log have the rest-uid, or how to look for the instance."""
    server.faults.add("POST /experiments/*/start", Delay(delay))

    with pytest.raises(KeyboardInterrupt) as caught, interrupted(server, signal.SIGINT):
        sync_client.start("demo", {"inputs": FILES})

    (note,) = caught.value.__notes__
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [note]
    if is_known:
        (instance,) = sync_client.instances.list()
        assert note.startswith(f"an instance of 'demo' was started: {instance.id!r}, which continues")
    else:
        assert "search for it in client.instances.list()" in note


def test_ctrl_c_while_a_client_is_opened(server: LocalServer) -> None:
    """Nothing is left of the attempt, and another one may follow."""
    server.faults.add("GET /url-map/", Delay(10))
    client = connect(server)
    began = time.monotonic()

    with pytest.raises(KeyboardInterrupt), interrupted(server, signal.SIGINT):
        client.__enter__()

    assert time.monotonic() - began < PROMPT
    assert not loops()
    with client:
        assert list(client.experiments.list()) == []


def test_any_exception_in_the_waiting_thread_cancels_the_call(server: LocalServer, sync_client: Client) -> None:
    """Such as the alarm of a test timeout, with its own error."""

    def ring(*_: object) -> None:
        raise TimeoutError("the alarm")

    run = sync_client.start("demo", {"inputs": FILES})
    before = signal.signal(signal.SIGUSR1, ring)
    with pytest.raises(TimeoutError, match="the alarm"), interrupted(server, signal.SIGUSR1):
        sync_client.wait(run)
    signal.signal(signal.SIGUSR1, before)

    assert not sync_client.status(run).is_final


OPENING = """
import warnings
warnings.simplefilter("error")
import os, sys, threading, time
from st4sd_async import Config, Launch
from st4sd_async.sync import Client

client = Client(os.environ["URL"], api_key=os.environ["KEY"], config=Config(poll_interval=0.02))
run = client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "CO"}]})
"""
"""The first lines of every script."""

ENDS = {
    "busy": """
statuses = client.watch(run)
next(statuses)
circle = [client.watch(run)]
circle.append(circle)
next(circle[0])
threading.Thread(target=client.wait, args=[run], daemon=True).start()
unused = Client(os.environ["URL"])
dropped = Client(os.environ["URL"], api_key=os.environ["KEY"])
dropped.experiments.list()
del dropped
time.sleep(0.05)
""",
    "batch": """
batch = client.batch().__enter__()
batch.add([Launch("C", "demo", {"inputs": [{"filename": "molecules.csv", "content": "CO"}]})])
items = batch.run()
threading.Thread(target=next, args=[items], daemon=True).start()
while not batch.counts["started"]:
    time.sleep(0.01)
sys.exit(3)
""",
    "error": "client.status('nope')",
}
"""The last lines of a script, which never closes its client."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with closing(Forks("tests.cli.script", ["st4sd_async.sync", *LAZY], environment())) as running:
        yield running


def child(server: LocalServer, forks: Forks, code: str) -> Forked | subprocess.Popen[str]:
    """
    Start a script of a user in which every warning is an error.

    It is a fork of a process that has imported the client, or, with all tests, a new interpreter.
    """
    own = {**environment(), "URL": server.url, "KEY": server.api_key}
    if not IS_FULL:
        return forks.start([OPENING + code], ROOT, own)
    command = [sys.executable, "-W", "error", "-c", OPENING + code]
    return subprocess.Popen(
        command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize(("end", "status"), [("busy", 0), ("batch", 3), ("error", 1)])
def test_a_process_exits_although_the_client_is_open(
    server: LocalServer, sync_client: Client, forks: Forks, end: str, status: int
) -> None:
    """Promptly, with its own exit status, and with nothing else on stderr."""
    with child(server, forks, ENDS[end]) as process:
        _, complaint = process.communicate(timeout=40)
    lines = complaint.splitlines()

    assert process.returncode == status
    if end == "busy":
        assert lines == []
    elif end == "batch":
        assert [line.partition(":")[0] for line in lines] == ["a batch was left with 1 started in a journal in memory"]
    else:
        assert lines[-1].startswith("st4sd_async._errors.UnknownRun: ")
        assert complaint.count("Traceback") == 1


def test_ctrl_c_ends_a_script(server: LocalServer, sync_client: Client, forks: Forks) -> None:
    """With the one traceback that Python itself shows, and what continues."""
    code = "with client: print('ready', flush=True); client.wait(run)"
    with child(server, forks, code) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=40)

    assert time.monotonic() - began < PROMPT
    assert process.returncode == -signal.SIGINT
    interrupt, note = complaint.splitlines()[-2:]
    assert interrupt == "KeyboardInterrupt"
    assert note.endswith(" continues; call this again to follow it")
    assert complaint.count("Traceback") == 1
