"""Start many launches, each exactly once: the journal on disk, the sender, the reconciler and the runner."""

MAX_RUNNING = 200
"""Default for the runs of a batch that may be in progress at once."""
