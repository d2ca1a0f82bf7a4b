"""`alerts`: an incident opens, gets worse, is acknowledged, resolves. One record a transition, one id a record.

`alert-commands`: what people decide about incidents, silences and rules; carried out by the agent that
owns the incident.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Contract, Count, Finite, Flag, Identifier, Severity, Subject, Text, TimestampMs
from schemas.profiles import Profile

Cause = Literal["anomaly_rate", "drift", "error_rate", "latency", "silence", "performance", "objective", "rule"]
AlertState = Literal["open", "escalated", "acknowledged", "noted", "resolved"]
#: A name, or the beginning of one and a star; empty: any.
Pattern = Annotated[str, StringConstraints(strict=True, max_length=128, pattern=r"^[^*|]*\*?$")]


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
    partition: Count = Field(default=0, description="Of the worker that owns the incident")
    level: Count = Field(default=0, description="How often it escalated because nobody acknowledged it")
    flapping: Flag = Field(default=False, description="It opens again and again; its cooldown has been lengthened")
    actor: Text = Field(default="", description="Who acknowledged it, or wrote the note")
    note: Text = ""
    silenced_by: str = Field(default="", max_length=128, description="The silence that it falls under; tell nobody")
    rule: str = Field(default="", max_length=128, description="The rule that raised it; empty: a built-in one")
    pending_ms: TimestampMs | None = Field(default=None, description="Since when its rule's condition has held")


class Silence(Contract):
    """Incidents of these are kept, and told to nobody, while their event time lies within."""

    silence_id: Identifier
    environment: Pattern = ""
    model: Pattern = ""
    component: Pattern = ""
    cause: Pattern = ""
    from_ms: TimestampMs
    until_ms: TimestampMs
    actor: Text = ""
    reason: Text = ""


class AlertCommand(Contract):
    """A decision. About an incident it goes to the partition that owns it; about silences or rules, to all."""

    command_id: Identifier = Field(description="Unique per decision; repeats are dropped by it")
    ts: TimestampMs
    actor: Text
    action: Literal["acknowledge", "note", "silence", "unsilence", "rules"]
    environment: str = Field(default="", max_length=128)
    model: str = Field(default="", max_length=128)
    incident_id: str = Field(default="", max_length=128)
    text: Text = ""
    silence: Silence | None = None
    rules: str = Field(default="", max_length=200_000, description="The rules as JSON text, with `rules`")
    version: Count = 0


class UndeliveredAlert(Contract):
    """An alert that a receiver did not take."""

    hook: Identifier
    ts: TimestampMs
    error: Text
    alert: Alert


class LifecycleEvent(Subject):
    """`lifecycle-events`: a version was registered, deployed, promoted, rolled back, retired."""

    lifecycle_id: Identifier = Field(description="Unique; drop repeats by it. One may be sent to every partition")
    ts: TimestampMs
    action: Literal["registered", "deployed", "promoted", "rolled_back", "retired"]
    actor: Text = ""
    reason: Text = ""
    profile: Profile | None = Field(default=None, description="What the version's inputs and outputs were like at "
                                    "training: drift is then measured against this. A later one replaces it")
