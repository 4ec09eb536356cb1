"""Defaults of arguments of `Client` and `Run`, in a module that is imported with them."""

FAILURE_TIMEOUT = 20.0
"""Seconds after which an incomplete failure is returned. The datastore usually knows the end of a run by then."""

CSV_FILES = r"\.csv$"
"""Pattern of the files that contain tables."""
ROWS_PER_PART = 10_000
"""Rows of a part of a table."""
