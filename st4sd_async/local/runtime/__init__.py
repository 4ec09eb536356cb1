"""The routes of the runtime service, the registry of experiments, and the checks on what is sent to them."""
