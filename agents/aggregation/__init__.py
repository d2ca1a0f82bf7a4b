"""Windows of every series at every granularity."""
