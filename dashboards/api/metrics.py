"""What the gateway counts."""

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("gateway_sockets", "Open WebSockets")
SENT = Counter("gateway_alerts_sent", "Alerts sent to sockets")
MISSED = Counter("gateway_alerts_missed", "Alerts that slow sockets missed")
REQUESTS = Counter("gateway_requests", "HTTP requests", ["route", "status"])
SECONDS = Histogram("gateway_request_seconds", "Time of an HTTP request", ["route"])
STREAM_UP = Gauge("gateway_stream_up", "1 while the alert stream is read")
