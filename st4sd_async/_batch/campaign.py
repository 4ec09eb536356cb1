"""Find the runs of a batch by its campaign name, without its journal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .._api.instances import list_call
from .._errors import NotFound, RunDeleted, RunFailed, UnknownRun
from .._results.downloads import for_each
from ..models import ExitStatus, Status
from .item import Item
from .state import ATTEMPT_KEY, CAMPAIGN_KEY, LAUNCH_KEY, State

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .client import BatchClient

MAX_NAME_LENGTH = 200
"""Maximum number of characters of a campaign name."""
REQUESTS_AT_ONCE = 16
"""Statuses that are requested at the same time."""


def check_campaign(name: str) -> str:
    """Return a campaign name. Raises TypeError or ValueError if it is invalid."""
    if not isinstance(name, str):
        raise TypeError(f"a campaign name must be a string, not {name!r}")
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a campaign name has 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}")
    return name


async def find_batch(client: BatchClient, session: ClientSession, name: str) -> list[Item]:
    """Return the runs of a campaign; see `Client.find_batch`."""
    check_campaign(name)
    found: dict[str, tuple[Mapping[str, Any], Status]] = {}
    try:
        query = {f"metadata.userMetadata.{CAMPAIGN_KEY}": name}
        for document in await client.datastore.experiments(query=query):
            if document.rest_uid is not None:
                found[document.rest_uid] = document.metadata.user_metadata, document.status
    except NotFound as error:
        if error.status is not None:
            raise
    listed = set()
    for instance in await session.send(list_call(partial(_has_name, name))):
        metadata = instance.status.meta.user_metadata if instance.status.meta else {}
        if metadata.get(CAMPAIGN_KEY) == name:
            listed.add(instance.id)
            found[instance.id] = metadata, instance.status
    deleted = set()

    async def check(rest_uid: str) -> None:
        metadata, last = found[rest_uid]
        try:  # the list may lack runs that the service failed to read
            found[rest_uid] = metadata, await client.status(rest_uid)
        except UnknownRun:
            deleted.add(rest_uid)
            found[rest_uid] = metadata, last.concluded(deleted=True)

    unfinished = [uid for uid, (_, status) in found.items() if uid not in listed and not status.is_final]
    await for_each(unfinished, check, REQUESTS_AT_ONCE)
    items = [
        _item(client, uid, metadata, status, is_deleted=uid in deleted) for uid, (metadata, status) in found.items()
    ]
    return sorted(items, key=lambda item: (item.key, item.attempt))


def _has_name(name: str, item: Mapping[str, Any]) -> bool:
    """Return whether an item of the list may be a run of the campaign: almost all are those of others."""
    found: Any = item
    for key in ("status", "meta", "userMetadata", CAMPAIGN_KEY):
        found = found.get(key) if isinstance(found, dict) else None
    return bool(found == name)


def _item(client: BatchClient, rest_uid: str, metadata: Mapping[str, Any], status: Status, *, is_deleted: bool) -> Item:
    attempt = str(metadata.get(ATTEMPT_KEY, "1"))
    error: Exception | None = None
    if is_deleted:
        state, error = State.DELETED, RunDeleted(rest_uid, status)
    elif not status.is_final:
        state = State.STARTED
    elif status.is_success:
        state = State.SUCCEEDED
    else:
        state = State.STOPPED if status.exit_status == ExitStatus.STOPPED else State.FAILED
        error = RunFailed({rest_uid: status})
    return Item(
        key=str(metadata.get(LAUNCH_KEY, "")),
        experiment=str(metadata.get("experiment-id", "")),
        state=state.value,
        attempt=int(attempt) if attempt.isdecimal() else 1,
        run=client.run(rest_uid),
        status=status if status.is_final else None,
        error=error,
        files=(),
    )
