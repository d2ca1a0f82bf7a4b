"""Drift into wishes to retrain."""
