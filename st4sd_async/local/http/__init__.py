"""The HTTP side of the embedded ST4SD: a loopback listener, messages, routes and planted faults."""
