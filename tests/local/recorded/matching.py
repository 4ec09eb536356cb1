"""
Compare replies with recorded ones, in which placeholders stand for what differs between any two servers.

``<<kind>>`` stands for any text of that kind; ``<<kind:label>>`` and the kinds in `NAMED` stand for one text of that
kind, which is learned where it is first met and is the same from then on, in requests too.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import httpx

SHAPES = {
    "run": r"[a-z0-9-]+-[0-9a-f]{6}-[a-z0-9]{8}|lambda-[a-z0-9]{6}",
    "directory": r"[a-z0-9-]+-\d{4}-\d\d-\d\dT\d{6}\.\d{6}",
    "digest": r"sha256x[0-9a-f]{56}",
    "commit": r"[0-9a-f]{40}",
    "git": r"file://\S+?",
    "host": r"[\w.]+:\d+",
    "plain": r"[\w.]+:\d+",  # the port without TLS
    "gateway": r"[\w.-]+",
    "workdir": r"/[^\s']+?",
    "folder": r"/[^\s']+?",
    "program": r"(?:\S*/)?elaunch\.py",
    "deployment": r"(?: --\S+)*",  # options of the orchestrator that the deployment chooses
    "command": r"(?:\S*/)?elaunch\.py .*",  # that of a lambda experiment has other options in another order
    "state": "Initialising|running",
    "stage": r"None|stage\d",
    "token": r"\S+",
    "path": r"/[^\s']+?",
    "temporary": r"/[^\s']+?/",
    "internal": r"https?://[\w.]+:\d+",
    "endpoint": r"https?://[\w.:]+",
    "created": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}",
    "stamp": r"\d{4}-\d\d-\d\dT\d{6}\.\d{6}",
    "epoch": r"\d{10}(\.\d+)?",
    "hash": r"[0-9a-f]{32}",
    "integer": r"\d+",
    "length": r"\d+",
}
"""Kind of a placeholder -> regular expression of what it stands for."""
NAMED = frozenset({"host", "plain", "gateway", "workdir", "token"})
"""Kinds of which a server has one."""
NUMBERS = {"integer": int, "length": int}
"""Kinds that stand for JSON numbers."""
HEADERS = (
    "content-type",
    "content-length",
    "transfer-encoding",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "location",
    "allow",
    "set-cookie",
    "www-authenticate",
    "retry-after",
)
"""The headers that are compared: also one that was not recorded must not be sent."""
CUT = "<<cut>>"
"""An item, key or end of text after which the recording was cut."""
ANY_ORDER = "<<any order>>"
"""The first item of a list whose order is that of a directory; the value of `CUT` if keys have no order either."""
_PLACEHOLDER = re.compile(r"<<([a-z]+)(:[\w-]+)?>>")
_ANY_PLACEHOLDER = re.compile(r"<<[a-z]+(?::[\w-]+)?>>")


@dataclass(frozen=True)
class Difference:
    """One field of a reply that is not as recorded."""

    call: str
    """The recorded call, ``01.38``."""
    field: str
    """Where they differ: ``status``, ``header allow``, or ``body`` with keys and indexes, ``body.tags[0]``."""
    recorded: str
    """What was recorded, in a few words."""
    replayed: str
    """What the embedded server sent."""

    def __str__(self) -> str:
        recorded, replayed = (" ".join(text.split()) for text in (self.recorded, self.replayed))
        return f"{self.call} {self.field}: recorded {recorded}, got {replayed}"


class Names:
    """What the placeholders with a name stand for."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """Set what is known before the first call."""
        self._known = dict(known)

    def fill(self, value: Any, *, quoted: bool = False) -> Any:
        """Return a JSON value in which placeholders are replaced; those that are not known yet stay."""
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            known = self._known.get(match[0], match[0])
            return quote(known, safe="") if quoted else known

        return _PLACEHOLDER.sub(replace, value)

    def match(self, recorded: str, replayed: str) -> bool:
        """Return whether a text is as recorded; if so, learn what new placeholders stand for."""
        groups: dict[str, str] = {}

        def pattern(part: str) -> str:
            placeholder = _PLACEHOLDER.fullmatch(part)
            if part == CUT:
                return ".*"
            if placeholder is None:
                return re.escape(part)
            if part in self._known:
                return re.escape(self._known[part])
            shape = SHAPES[placeholder[1]]
            if placeholder[2] is None and placeholder[1] not in NAMED:
                return f"(?:{shape})"
            if part in groups.values():
                return f"(?P={next(group for group, name in groups.items() if name == part)})"
            groups[f"group{len(groups)}"] = part
            return f"(?P<group{len(groups) - 1}>{shape})"

        parts = re.split(r"(<<[a-z]+(?::[\w-]+)?>>)", recorded)
        matched = re.fullmatch("".join(map(pattern, parts)), replayed, re.DOTALL)
        if matched is None:
            return False
        self._known |= {name: matched[group] for group, name in groups.items()}
        return True


def differences(call: Mapping[str, Any], reply: httpx.Response, names: Names) -> list[Difference]:
    """Compare a reply with a recorded call; if the status differs, nothing else is compared."""
    if reply.status_code != call["status"]:
        return [Difference(call["call"], "status", str(call["status"]), f"{reply.status_code} {_short(reply.text)}")]
    found = [*_compare_headers(call["headers"], reply, names), *_compare_body(call, reply, names)]
    return [Difference(call["call"], field, recorded, replayed) for field, recorded, replayed in found]


def _compare_headers(
    recorded: Mapping[str, Any], reply: httpx.Response, names: Names
) -> Iterator[tuple[str, str, str]]:
    for header in HEADERS:
        field = f"header {header}"
        expected, sent = recorded.get(header), _header(reply, header)
        if expected is None or sent is None:
            if expected != sent:
                yield field, "no such header" if expected is None else str(expected), str(sent)
        elif header == "allow":  # the service lists the methods in any order
            if sorted(expected.split(", ")) != sorted(sent.split(", ")):
                yield field, expected, sent
        elif not (names.match(unquote(str(expected)), unquote(sent)) and _has_literals(str(expected), sent)):
            yield field, str(expected), sent


def _header(reply: httpx.Response, name: str) -> str | None:
    """Return a header; file names in it are raw UTF-8."""
    values = [value.decode("utf-8") for key, value in reply.headers.raw if key.decode("ascii").lower() == name]
    return ", ".join(values) if values else None


def _has_literals(recorded: str, replayed: str) -> bool:
    """Return whether what stands between the placeholders is in a text too, quoted and escaped in the same way."""
    return re.fullmatch(".*".join(map(re.escape, _ANY_PLACEHOLDER.split(recorded))), replayed, re.DOTALL) is not None


def _compare_body(call: Mapping[str, Any], reply: httpx.Response, names: Names) -> Iterator[tuple[str, str, str]]:
    if "rest" in call:
        _, after, rest = reply.text.partition(call["rest"]["after"])
        if not after or len(rest.encode()) != call["rest"]["bytes"]:
            yield "body rest", f"{call['rest']['bytes']} bytes", rest
    if "json body" in call:
        try:
            body = json.loads(reply.text)
        except ValueError:
            yield "body", "JSON", _short(reply.text)
        else:
            yield from compare(call["json body"], body, names, "body")
        return
    expected = call.get("body", {})
    if "bytes" in expected:
        if expected["bytes"] not in (len(reply.content), "<<length>>"):
            yield "body", f"{expected['bytes']} bytes", f"{len(reply.content)} bytes"
        if not reply.content.hex().startswith(expected["starts"]):
            yield "body start", expected["starts"], reply.content.hex()[:8]
    elif "title" in expected:
        title = re.search(r"<title>(.*?)</title>", reply.text)
        if title is None or title[1] != expected["title"]:
            yield "body title", expected["title"], _short(reply.text)
    elif "text" in expected:
        is_page = "html" in call["headers"].get("content-type", "")
        texts = [html.unescape(unquote(text)) if is_page else text for text in (expected["text"], reply.text)]
        if not (names.match(*texts) and _has_literals(expected["text"], reply.text)):
            yield "body", _short(expected["text"]), _short(reply.text)


def compare(recorded: Any, replayed: Any, names: Names, field: str) -> Iterator[tuple[str, str, str]]:
    """Yield field, recorded and replayed value of all differences of two JSON values."""
    placeholder = _PLACEHOLDER.fullmatch(recorded) if isinstance(recorded, str) else None
    if placeholder is not None and placeholder[1] in NUMBERS:
        if type(replayed) is not NUMBERS[placeholder[1]]:
            yield field, recorded, _short(replayed)
    elif isinstance(recorded, dict) and isinstance(replayed, dict):
        yield from _compare_objects(recorded, replayed, names, field)
    elif isinstance(recorded, list) and isinstance(replayed, list):
        yield from _compare_lists(recorded, replayed, names, field)
    elif isinstance(recorded, str) and isinstance(replayed, str):
        if not names.match(recorded, replayed):
            yield field, _short(names.fill(recorded)), _short(replayed)
    elif type(recorded) is not type(replayed) or json.dumps(recorded) != json.dumps(replayed):  # NaN differs from NaN
        yield field, _short(recorded), _short(replayed)


def _compare_objects(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any], names: Names, field: str
) -> Iterator[tuple[str, str, str]]:
    expected = {names.fill(key): value for key, value in recorded.items() if key != CUT}
    for key, value in expected.items():
        if key not in replayed:
            yield f"{field}.{key}", _short(value), "no such key"
        else:
            yield from compare(value, replayed[key], names, f"{field}.{key}")
    if CUT not in recorded:
        checked = set(replayed)
    elif recorded[CUT] == ANY_ORDER:
        checked = set()
    else:  # what was cut came after the recorded keys
        checked = set(list(replayed)[: len(expected)])
    for key in sorted(checked - expected.keys()):
        yield f"{field}.{key}", "no such key", _short(replayed[key])


def _compare_lists(
    recorded: list[Any], replayed: list[Any], names: Names, field: str
) -> Iterator[tuple[str, str, str]]:
    if recorded and recorded[0] == ANY_ORDER:
        recorded, replayed = sorted(map(names.fill, recorded[1:])), sorted(replayed)
    is_cut = bool(recorded) and recorded[-1] == CUT
    expected = recorded[:-1] if is_cut else recorded
    if len(replayed) < len(expected) or (len(replayed) > len(expected) and not is_cut):
        yield f"{field} length", str(len(expected)), str(len(replayed))
    for index, (one, other) in enumerate(zip(expected, replayed, strict=False)):
        yield from compare(one, other, names, f"{field}[{index}]")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 150 else f"{text[:100]} ... {text[-45:]}"
