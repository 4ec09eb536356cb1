"""What a group cannot send is refused before any request, by an error that says what it may be."""

from __future__ import annotations

import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from st4sd_async import Client, InvalidPackage, InvalidQuery
from st4sd_async.local import LocalServer
from tests.client.definitions import DSL, push_both, relationship

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONE = "\ud800"
"""A text that UTF-8 cannot write."""
KEY = "a-very-secret-key"
PULL: dict[str, Any] = {"server": "quay.example", "username": "somebody", "password": KEY}
BUCKET: dict[str, Any] = {"accessKeyID": "i", "secretAccessKey": KEY, "bucket": "b", "endpoint": "https://s3.example"}
Act = Callable[[Client], Awaitable[Any]]

WRONG: dict[str, tuple[Act, type[Exception], str]] = {
    "an experiment": (
        lambda client: client.experiments.get(LONE),
        ValueError,
        r"the identifier of an experiment must be a string that can be encoded as UTF-8, not '\\ud800'",
    ),
    "a run for its rest-uid": (
        lambda client: client.instances.status(client.run("x")),  # type: ignore[arg-type] # on purpose
        TypeError,
        r"a rest-uid must be a string, not Run: pass run\.id, or use the client's method of that name",
    ),
    "something else for a rest-uid": (
        lambda client: client.instances.delete(5),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a rest-uid must be a string, not int",
    ),
    "an output": (
        lambda client: client.instances.output("x", "y", f"a/{LONE}"),
        ValueError,
        "the path must be a string that can be encoded as UTF-8",
    ),
    "a path of another type": (
        lambda client: client.instances.output("x", "y", 5),  # type: ignore[arg-type] # on purpose
        ValueError,
        "the path must be a string, not 5",
    ),
    "a tag and a digest": (
        lambda client: client.start("demo:latest@sha256xabc"),
        ValueError,
        r"has a tag or a digest, not both: 'demo:latest@sha256xabc'",
    ),
    "a digest and a tag": (
        lambda client: client.experiments.get("demo@sha256xabc:latest"),
        ValueError,
        "has a tag or a digest, not both",
    ),
    "no tags": (
        lambda client: client.experiments.tag("demo", None),  # type: ignore[arg-type] # on purpose
        TypeError,
        "tags are a list of texts, not None",
    ),
    "a tag": (lambda client: client.experiments.tag("demo", [LONE]), ValueError, "a tag must be a string"),
    "a payload of nothing": (
        lambda client: client.draft(None),  # type: ignore[arg-type] # on purpose
        TypeError,
        "an experiment is an identifier or an Experiment, not NoneType",
    ),
    "a package": (
        lambda client: client.experiments.push({"metadata": {"package": {"name": LONE}}}),
        InvalidPackage,
        "the package was not sent: it contains a value that JSON cannot represent",
    ),
    "an object in a package": (
        lambda client: client.experiments.push({"metadata": object()}),
        InvalidPackage,
        "the package was not sent: it contains a value that JSON cannot represent",
    ),
    "odd fields of a package": (
        lambda client: client.experiments.push({1: 2, "bases": 3}),  # type: ignore[dict-item] # on purpose
        InvalidPackage,
        r"has fields \['1', 'bases'\], but only",
    ),
    "a base package": (
        lambda client: client.experiments.query(package="git"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a base package must be a mapping, not str",
    ),
    "an object in a base package": (
        lambda client: client.experiments.query(package={"source": object()}),
        InvalidQuery,
        "the query was not sent: it contains a value that JSON cannot represent",
    ),
    "a relationship": (
        lambda client: client.experiments.query(relationship=5),  # type: ignore[arg-type] # on purpose
        ValueError,
        "relationship must be the identifier of a relationship, not 5",
    ),
    "a blank relationship": (
        lambda client: client.experiments.query(relationship=""),
        ValueError,
        "relationship must be the identifier of a relationship, not ''",
    ),
    "an expression": (
        lambda client: client.relationships.query(identifier=re.compile("x")),  # type: ignore[arg-type] # on purpose
        TypeError,
        "identifier must be a regular expression, not re.compile",
    ),
    "a version": (
        lambda client: client.relationships.preview("x", dsl_version="3"),  # type: ignore[arg-type] # on purpose
        ValueError,
        r"dsl_version must be one of \('2.0.0_0.1.0', '1'\), not '3'",
    ),
    "a parameterisation": (
        lambda client: client.relationships.synthesize("x", "y", "text"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a parameterisation must be a mapping, not str",
    ),
    "a DSL as text": (
        lambda client: client.utilities.package_for_dsl("entrypoint: {}"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a DSL must be a mapping, not str",
    ),
    "a template": (
        lambda client: client.utilities.package_for_dsl(DSL, "text"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a package must be a mapping or an Experiment, not str",
    ),
    "an internal DSL": (
        lambda client: client.internal_experiments.push(None, {}),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a DSL must be a mapping, not NoneType",
    ),
    "an internal package": (
        lambda client: client.internal_experiments.push(DSL, None),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a package must be a mapping or an Experiment, not NoneType",
    ),
    "a password": (
        lambda client: client.image_pull_secrets.create("x", **{**PULL, "password": KEY + LONE}),
        ValueError,
        "it contains a value that JSON cannot represent",
    ),
    "a key": (
        lambda client: client.datasets.create("x", {**BUCKET, "secretAccessKey": KEY + LONE}),
        ValueError,
        "it contains a value that JSON cannot represent",
    ),
    "a large query": (
        lambda client: client.experiments.query(package={"config": {"x": "x" * (1 << 20)}}),
        InvalidQuery,
        "the query was not sent: 1048[0-9]+ bytes",
    ),
}


async def test_what_cannot_be_sent_is_refused_here(server: LocalServer, client: Client) -> None:
    """Nothing is sent, and neither the error nor its cause shows a secret."""
    for what, (act, error, words) in WRONG.items():
        before = len(server.requests)

        with pytest.raises(error, match=words) as caught:
            await act(client)

        chain = [caught.value, caught.value.__context__]
        told = "".join(traceback.format_exception(caught.value))
        assert KEY not in f"{told}{[(repr(one), getattr(one, '__dict__', None)) for one in chain]}", what
        assert len(server.requests) == before, what


async def test_parts_of_experiments_may_be_sent_again(server: LocalServer, client: Client) -> None:
    """What came from the service is sent back in the same form: a parameterisation, packages with or without nulls."""
    reports, _ = await push_both(client)
    await client.relationships.push(relationship())

    with_nulls = await client.experiments.get("reports", with_nulls=True, with_beta=True)
    again = await client.experiments.push(with_nulls)
    made = await client.relationships.synthesize("cheaper", "new", reports.parameterisation)

    assert again.digest == reports.digest
    assert made.experiment.name == "new"
