"""`alerts`: an incident opens, gets worse, resolves. One record a transition, one id a record."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Contract, Count, Finite, Identifier, Severity, Subject, Text, TimestampMs

Cause = Literal["anomaly_rate", "drift", "error_rate", "latency", "silence", "performance"]
AlertState = Literal["open", "escalated", "resolved"]


class Evidence(Contract):
    """Something that speaks for the incident, with the id to look it up."""

    kind: Literal["anomaly", "drift", "window"]
    id: Identifier
    ts: TimestampMs
    text: Text = ""


class Alert(Subject):
    """A transition of an incident. `version` is the one that reported when it opened; `versions` are all it touched."""

    alert_id: Identifier = Field(description="Unique per transition; drop repeats by it")
    incident_id: Identifier = Field(description="The same from open to resolved")
    state: AlertState
    cause: Cause
    severity: Severity
    title: Text
    detail: Text = ""
    ts: TimestampMs = Field(description="Event time of this transition")
    opened_ms: TimestampMs
    onset_ms: TimestampMs = Field(description="When the trouble began, as far as the evidence says")
    published_ms: TimestampMs = Field(default=0, description="Wall clock when it was published")
    field: str | None = Field(default=None, max_length=160, description="The field at fault, if one is")
    value: Finite | None = None
    threshold: Finite | None = None
    versions: list[str] = Field(default_factory=list, max_length=32)
    evidence: list[Evidence] = Field(default_factory=list, max_length=16)
    evidence_total: Count = 0


class LifecycleEvent(Subject):
    """`lifecycle-events`: a version was registered, deployed, promoted, rolled back, retired."""

    lifecycle_id: Identifier
    ts: TimestampMs
    action: Literal["registered", "deployed", "promoted", "rolled_back", "retired"]
    actor: Text = ""
    reason: Text = ""
