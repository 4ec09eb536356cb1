"""Waiting for runs: one poller for all subscribers of a client."""
