"""Live display, progress bars and time line. They draw cards and rows, and do not import `Client` or `Batch`."""
