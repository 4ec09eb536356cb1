"""What breaks on the way, and what is still true afterwards."""
