"""What a worker process raises; it imports only this module, and the package as far as an error needs it."""

from __future__ import annotations


def raise_it(error: BaseException) -> None:
    """Raise the error."""
    raise error
