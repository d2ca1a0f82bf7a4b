"""What a demo fleet counts, on its own page."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

EVENTS = Counter("streamgauge_demo_events", "Telemetry events published")
LABELS = Counter("streamgauge_demo_labels", "Late labels published")
INCIDENTS = Gauge("streamgauge_demo_incidents", "Scripted incidents under way")
BEHIND = Gauge("streamgauge_demo_behind_seconds", "How far serving is behind its schedule")
