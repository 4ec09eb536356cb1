"""Live display, progress bars and time line. They draw cards and rows, and never import `Client` or `Batch`."""
