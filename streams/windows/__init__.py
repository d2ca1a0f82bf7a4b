"""Event-time windows: pane arithmetic, mergeable summaries, quantile sketches."""
