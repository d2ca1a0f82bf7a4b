"""Online anomaly scores."""
