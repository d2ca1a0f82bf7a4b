"""Event-time windows: the grid of time, watermarks, mergeable summaries, quantile sketches."""
