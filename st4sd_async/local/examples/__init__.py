"""The experiments "demo" and "fail" for tests and demos: their packages, described by ``examples.json``."""
