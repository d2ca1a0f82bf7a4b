"""OpenTelemetry in: metrics from a topic of the collector's Kafka exporter, as telemetry. See docs/opentelemetry.md."""
