"""Apache Kafka from its published jars, on loopback: for tests on the real broker, and for a look without Docker."""
