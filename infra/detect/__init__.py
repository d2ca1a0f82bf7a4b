"""Anomalies in a file: read, score, plot."""
