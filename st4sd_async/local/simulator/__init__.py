"""The engine that plays recorded courses of runs on a virtual clock. It starts no processes."""
