"""The HTTP server of the embedded ST4SD: routes and handlers, independent of experiments and instances."""
