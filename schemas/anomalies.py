"""`anomalies`: one event that a detector found unusual."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.base import Contract, Count, FieldName, Finite, Identifier, Share, Subject, TimestampMs


class Contribution(Contract):
    """How much one feature pushed a score."""

    feature: FieldName
    value: Finite | None = Field(description="null when the feature was missing")
    share: Share = Field(description="Of the score; the shares of an anomaly add up to at most 1")


class Anomaly(Subject):
    """An event above its detector's threshold, with what it takes to find the event again."""

    anomaly_id: Identifier = Field(description="Deterministic: the same event gives the same id after a restart")
    event_id: Identifier
    trace_id: Identifier | None = None
    ts: TimestampMs = Field(description="The event's ts")
    detector: Identifier = Field(description="half_space_trees, ...")
    score: Finite = Field(description="Higher is more anomalous")
    threshold: Finite
    contributions: list[Contribution] = Field(default_factory=list, max_length=16, description="Largest share first")
    partition: Count = Field(description="Of telemetry")
    offset: Count = Field(description="Of the record in that partition")
    position: Annotated[int, Field(ge=0)] = Field(default=0, description="In the record, if it held an array")
