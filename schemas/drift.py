"""`drift-events` and what follows from them, `retraining-requests`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Count, FieldName, Finite, Identifier, Severity, Share, Subject, Text, TimestampMs

DriftKind = Literal["data", "prediction", "performance", "operational"]


class DriftEvent(Subject):
    """One series of numbers moved: what, from what to what, since when, how sure."""

    drift_id: Identifier = Field(description="Deterministic")
    kind: DriftKind
    state: Literal["drifted", "recovered"] = Field(description="recovered: back near the reference")
    field: FieldName = Field(description="feature.NAME, prediction, latency_ms, error_rate, error (late labels), ...")
    statistic: Literal["mean", "rate", "missing_share"] = "mean"
    before: Finite = Field(description="The statistic on the reference")
    after: Finite = Field(description="The statistic since the onset")
    scale: Finite = Field(default=0.0, description="Spread of the reference, in the field's unit")
    onset_ms: TimestampMs = Field(description="When it began, as the detector sees it")
    detected_ms: TimestampMs = Field(description="Event time at which it was sure")
    sureness: Share = Field(description="1 - the detector's false-alarm bound")
    detector: Identifier
    severity: Severity
    versions: list[str] = Field(default_factory=list, max_length=32, description="Versions affected")
    windows: Count = Field(default=0, description="Windows that the new level rests on")
    partition: Count = 0


class RetrainingRequest(Subject):
    """A wish to retrain, at most one open a model; the queue decides."""

    request_id: Identifier = Field(description="Deterministic")
    ts: TimestampMs
    reason: Text
    severity: Severity
    drift_ids: list[Identifier] = Field(max_length=64)
    dedupe_key: Identifier = Field(description="environment and model: one request at a time is open for it")
