"""What the gateway counts."""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("gateway_sockets", "Open WebSockets")
CONNECTIONS = Gauge("gateway_connections", "Open connections, WebSockets among them")
SENT = Counter("gateway_messages_sent", "Alerts, anomalies or windows sent to sockets", ["stream"])
MISSED = Counter("gateway_messages_missed", "Alerts, anomalies or windows that slow sockets missed", ["stream"])
OVERFLOWS = Counter("gateway_overflows", "Times that a slow socket's queue was full, by what was done", ["policy"])
REFUSED = Counter("gateway_refused", "Connections and requests that were refused", ["reason"])
COMMANDS = Counter("gateway_commands", "Commands of people that Kafka has", ["action"])
CLOSED = Counter("gateway_sockets_closed", "WebSockets that the gateway closed", ["reason"])
PASS_SECONDS = Histogram("gateway_pass_seconds", "Time of one pass over all sockets", ["stream"],
                         buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0))
REQUESTS = Counter("gateway_requests", "HTTP requests", ["route", "status"])
SECONDS = Histogram("gateway_request_seconds", "Time of an HTTP request", ["route"])
STREAM_UP = Gauge("gateway_stream_up", "1 while the stream is read", ["stream"])
INCIDENTS = Gauge("gateway_open_incidents", "Incidents that are open or escalated",
                  ["environment", "model", "severity"])
#: Label sets of open incidents; more are counted as OTHER.
MOST_INCIDENTS, OTHER = 200, "<other>"


def note_incidents(alerts: Iterable[Mapping[str, Any]]) -> None:
    """Count open incidents anew, from the newest alert of each."""
    found = Tally((alert["environment"], alert["model"], alert["severity"]) for alert in alerts)
    kept = Tally(dict(found.most_common(MOST_INCIDENTS)))
    for labels in found.keys() - kept.keys():
        kept[OTHER, OTHER, labels[2]] += found[labels]
    INCIDENTS.clear()
    for labels, many in kept.items():
        INCIDENTS.labels(*labels).set(many)
