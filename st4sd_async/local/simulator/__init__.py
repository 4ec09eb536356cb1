"""The engine that simulates runs on a virtual clock, without starting processes."""
