"""Kafka, Redis and PostgreSQL from wheels, on loopback, for one machine and for tests."""
