"""The topics, declared once. All have the same number of partitions, so that one worker owns partition p of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from schemas.alerts import Alert, AlertCommand, LifecycleEvent, UndeliveredAlert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent, RetrainingRequest
from schemas.rejected import RejectedRecord
from schemas.telemetry import Feedback, TelemetryEvent
from schemas.windows import LevelWindow, MetricWindow

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class TopicRow:
    """One topic: its contract, its key, how long it is kept and who writes it."""

    name: str
    schema: type[BaseModel]
    key: str
    retention_ms: int
    cleanup: Literal["delete", "compact", "compact,delete"]
    owner: str
    help: str


TELEMETRY = TopicRow("telemetry", TelemetryEvent, "model", 7 * DAY_MS, "delete", "producers",
                     "what models did: one event a record, or an array of events")
FEEDBACK = TopicRow("feedback", Feedback, "model", 7 * DAY_MS, "delete", "producers", "late labels")
REJECTED = TopicRow("telemetry-rejected", RejectedRecord, "rejected_id", 30 * DAY_MS, "delete", "agents.ingest",
                    "records that broke the contract, with reason and bytes")
ANOMALIES = TopicRow("anomalies", Anomaly, "model", 30 * DAY_MS, "delete", "agents.scoring",
                     "events above their detector's threshold")
METRICS = TopicRow("metrics", MetricWindow, "window_id", 7 * DAY_MS, "compact,delete", "agents.aggregation",
                   "closed windows; the record with the largest count is the newest of its id")
LEVELS = TopicRow("metrics-levels", LevelWindow, "window_id", 7 * DAY_MS, "compact,delete", "agents.aggregation",
                  "closed windows of environments, segments and late labels; read like those of metrics")
DRIFT_EVENTS = TopicRow("drift-events", DriftEvent, "model", 90 * DAY_MS, "delete", "agents.drift",
                        "what moved, from what to what, since when")
ALERTS = TopicRow("alerts", Alert, "model", 90 * DAY_MS, "delete", "agents.alerts",
                  "incidents that open, escalate, resolve")
ALERT_COMMANDS = TopicRow("alert-commands", AlertCommand, "incident_id", 365 * DAY_MS, "delete", "dashboards.api",
                          "decisions about incidents, silences and rules")
UNDELIVERED = TopicRow("alerts-undelivered", UndeliveredAlert, "model", 30 * DAY_MS, "delete", "agents.alerts",
                       "alerts that a webhook's receiver did not take")
RETRAINING_REQUESTS = TopicRow("retraining-requests", RetrainingRequest, "model", 90 * DAY_MS, "delete",
                               "agents.retraining", "wishes to retrain, one open a model")
LIFECYCLE_EVENTS = TopicRow("lifecycle-events", LifecycleEvent, "model", 365 * DAY_MS, "delete",
                            "agents.versioning", "versions registered, promoted, rolled back")

TOPICS: tuple[TopicRow, ...] = (
    TELEMETRY, FEEDBACK, REJECTED, ANOMALIES, METRICS, LEVELS, DRIFT_EVENTS, ALERTS, ALERT_COMMANDS, UNDELIVERED,
    RETRAINING_REQUESTS, LIFECYCLE_EVENTS,
)
