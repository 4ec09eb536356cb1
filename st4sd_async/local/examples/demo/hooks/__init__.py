"""Hooks that the orchestrator calls."""
