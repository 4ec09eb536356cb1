"""
An embedded ST4SD for tests, demos and users without a cluster: `LocalServer`, and faults to plant in it.
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
    "Traffic",
]
