"""Import the packages of extras, with errors that name the extra. They take up to a second: call them in a thread."""

from __future__ import annotations


def import_pandas(user: str) -> None:
    """Import pandas; raise ImportError if it is not installed. ``user`` is the function that needs it."""
    try:
        import pandas  # noqa: F401 -- only imported
    except ImportError:
        raise ImportError(f'{user} needs pandas: pip install "st4sd_async[pandas]"') from None


def import_pyarrow(user: str) -> None:
    """Import what writes Parquet; raise ImportError if it is not installed. ``user`` is the function that needs it."""
    try:
        import pyarrow.fs
        import pyarrow.parquet  # noqa: F401 -- only imported
    except ImportError:
        raise ImportError(f'{user} needs pyarrow: pip install "st4sd_async[arrow]"') from None
