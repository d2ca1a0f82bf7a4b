"""Fenced snapshots: each agent's state lives in memory per (partition, key) and is written to a changelog with the
offsets it includes, so that a restart reads the log again and every key skips what it already has."""
