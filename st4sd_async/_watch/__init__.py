"""Wait for runs: one poller serves all subscribers of a client."""
