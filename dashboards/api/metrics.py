"""What the gateway counts."""

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("gateway_sockets", "Open WebSockets")
SENT = Counter("gateway_messages_sent", "Alerts, anomalies or windows sent to sockets", ["stream"])
MISSED = Counter("gateway_messages_missed", "Alerts, anomalies or windows that slow sockets missed", ["stream"])
REQUESTS = Counter("gateway_requests", "HTTP requests", ["route", "status"])
SECONDS = Histogram("gateway_request_seconds", "Time of an HTTP request", ["route"])
STREAM_UP = Gauge("gateway_stream_up", "1 while the stream is read", ["stream"])
