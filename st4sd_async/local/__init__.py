"""
An embedded ST4SD for tests, demos and users without a cluster: `LocalServer`, and faults to inject.

    server.py    `LocalServer`, its public class
    state.py, saved_state.py   the tables of a server, and those that survive a restart
    http/        the listener, requests and responses, credentials, faults, and the log of traffic
    runtime/     the runtime service, one file per group of routes
    datastore/   the datastore and the gateway to files
    engine/      the interface of engines, and the engine that executes runs with elaunch.py
    simulator/   the engine that simulates runs; outcomes.json defines each outcome, such as "component-failure"
    examples/    the experiments "demo" and "fail", defined in examples.json

This package never imports the client. Each part imports only the parts after it in this order: `server`, datastore,
runtime, simulator, examples, engine, http, `saved_state`, `state`.
"""

from __future__ import annotations

from st4sd_async.local.engine.interface import AcceptedStart, Engine, PackageFacts, PackageProblem
from st4sd_async.local.http.faults import (
    BadJson,
    BreakOff,
    CutBody,
    Delay,
    DropAfter,
    DropBefore,
    Fault,
    Faults,
    Html,
    Reply,
    ShortList,
)
from st4sd_async.local.http.traffic import Cost, Traffic
from st4sd_async.local.server import LocalServer
from st4sd_async.local.state import StateError

__all__ = [
    "AcceptedStart",
    "BadJson",
    "BreakOff",
    "Cost",
    "CutBody",
    "Delay",
    "DropAfter",
    "DropBefore",
    "Engine",
    "Fault",
    "Faults",
    "Html",
    "LocalServer",
    "PackageFacts",
    "PackageProblem",
    "Reply",
    "ShortList",
    "StateError",
    "Traffic",
]
