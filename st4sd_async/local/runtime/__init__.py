"""The runtime service: its routes, state and checks. Instances are executed by an engine."""
