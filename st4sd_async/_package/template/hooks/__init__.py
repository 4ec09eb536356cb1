"""Functions that the orchestrator calls."""
