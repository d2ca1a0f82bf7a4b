"""`telemetry`: what a model did, one event a prediction. `feedback`: the truth, when it arrives."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.base import (
    MAX_FEATURES,
    MAX_METRICS,
    MAX_SEGMENT_KEYS,
    Category,
    FieldName,
    Finite,
    Flag,
    Identifier,
    Share,
    Subject,
    Text,
    TimestampMs,
)

#: A class label, or a number for regression. Booleans are classes: send "true" or "false".
Outcome = Finite | Category
FeatureValue = Finite | Flag | Category | None
LatencyMs = Annotated[float, Field(strict=True, ge=0.0, le=1e9, allow_inf_nan=False)]


class TelemetryEvent(Subject):
    """One prediction and how it went."""

    event_id: Identifier = Field(description="Unique per event; feedback refers to it")
    ts: TimestampMs = Field(description="When the prediction was made")
    prediction: Outcome | None = Field(default=None, description="A class (text) or a value (number)")
    confidence: Share | None = Field(default=None, description="The model's probability for its prediction")
    label: Outcome | None = Field(default=None, description="The truth, if it is known at once")
    latency_ms: LatencyMs | None = Field(default=None, description="Time spent in this component")
    error: Text | None = Field(default=None, description="Why it failed; absent when it did not")
    features: dict[FieldName, FeatureValue] = Field(
        default_factory=dict, max_length=MAX_FEATURES, description="Model inputs; null means missing"
    )
    metrics: dict[FieldName, Finite] = Field(
        default_factory=dict, max_length=MAX_METRICS, description="Anything else worth averaging"
    )
    segment: dict[FieldName, Category] = Field(
        default_factory=dict, max_length=MAX_SEGMENT_KEYS, description="Slices to compare: country, plan, device"
    )
    trace_id: Identifier | None = Field(default=None, description="To find the request in a tracing system")


class Feedback(Subject):
    """A late label. It repeats the prediction it judges, so that nobody has to keep all predictions to join it."""

    event_id: Identifier = Field(description="The event it judges")
    ts: TimestampMs = Field(description="When the label became known")
    predicted_at: TimestampMs | None = Field(default=None, description="The event's ts, if known")
    prediction: Outcome = Field(description="What was predicted")
    label: Outcome = Field(description="What was true")
    confidence: Share | None = Field(default=None, description="That of the prediction: shows whether it is earned")
    segment: dict[FieldName, Category] = Field(default_factory=dict, max_length=MAX_SEGMENT_KEYS)
