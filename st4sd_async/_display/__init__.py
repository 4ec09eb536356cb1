"""Live displays for notebooks, terminals and pipes, progress bars, and plots."""
