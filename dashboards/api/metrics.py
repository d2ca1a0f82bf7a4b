"""What the gateway counts."""

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("gateway_sockets", "Open WebSockets")
CONNECTIONS = Gauge("gateway_connections", "Open connections, WebSockets among them")
SENT = Counter("gateway_messages_sent", "Alerts or anomalies sent to sockets", ["stream"])
MISSED = Counter("gateway_messages_missed", "Alerts or anomalies that slow sockets missed", ["stream"])
OVERFLOWS = Counter("gateway_overflows", "Times that a slow socket's queue was full, by what was done", ["policy"])
REFUSED = Counter("gateway_refused", "Connections and requests that were refused", ["reason"])
COMMANDS = Counter("gateway_commands", "Commands of people that Kafka has", ["action"])
CLOSED = Counter("gateway_sockets_closed", "WebSockets that the gateway closed", ["reason"])
PASS_SECONDS = Histogram("gateway_pass_seconds", "Time of one pass over all sockets", ["stream"],
                         buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0))
REQUESTS = Counter("gateway_requests", "HTTP requests", ["route", "status"])
SECONDS = Histogram("gateway_request_seconds", "Time of an HTTP request", ["route"])
STREAM_UP = Gauge("gateway_stream_up", "1 while the stream is read", ["stream"])
