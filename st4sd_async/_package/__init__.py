"""Experiments in local folders: create, check, and define them for a push. Nothing here sends a request."""
