"""Live display, progress bars and time line. Draws cards and rows; knows neither `Client` nor `Batch`."""
