"""Documents of the datastore: ``documents/api/v1.0/`` of its MongoDB proxy."""

from __future__ import annotations

from .._call import Call, json_body
from .._replies import Response
from ..models import Status


def end_call(base: str, rest_uid: str) -> Call[Status | None]:
    """
    The final status of a run as its experiment document has it; None if it has none.

    A document lags 10 to 20 s behind the run; one that says that the run goes on is no last word.
    """
    query = {"type": "experiment", "metadata.userMetadata.rest-uid": rest_uid}
    return Call("POST", "documents/api/v1.0/query", _final, content=json_body(query), base=base)


def _final(response: Response) -> Status | None:
    found = [Status.model_validate(document["status"]) for document in response.json()["document-descriptors"]]
    return next((status for status in found if status.is_final), None)
