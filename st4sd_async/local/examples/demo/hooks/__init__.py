"""What the orchestrator asks this package."""
