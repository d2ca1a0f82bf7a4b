"""Benchmarks: `python -m tests.bench NAME [--quick]`. Each prints a table, then one line of JSON."""
