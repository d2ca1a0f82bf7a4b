"""`drift-events` and what follows from them, `retraining-requests`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import (
    MAX_SEGMENT_KEYS,
    Category,
    Contract,
    Count,
    FieldName,
    Finite,
    Identifier,
    Severity,
    Share,
    Subject,
    Text,
    TimestampMs,
)

DriftKind = Literal["data", "prediction", "performance", "operational"]
DriftCause = Literal["data_quality", "real_change", "new_version", "operational", "unknown"]
Breakage = Literal["unit_change", "null_column", "constant_column", "schema"]
#: What it moved from: the version's profile from training, windows in which it was stable, those of the version before
#: it, or what earlier days had at this hour.
DriftReference = Literal["profile", "stable_window", "incumbent", "earlier_days"]
#: (bucket, count), ascending, as in a window's summary but with wider buckets: a bucket's values end at it.
CoarseSketch = list[tuple[int, int]]


class Moved(Contract):
    """A field that moved at the time of a drift, with its share of all that moved."""

    field: FieldName
    statistic: Literal["mean", "rate", "missing_share"] = "mean"
    before: Finite
    after: Finite
    share: Share = Field(description="Of the sum of squared effects, each in units of the least that counts")


class DriftEvent(Subject):
    """One series of numbers moved: what, from what to what, since when, how sure."""

    drift_id: Identifier = Field(description="Deterministic")
    kind: DriftKind
    state: Literal["drifted", "recovered"] = Field(description="recovered: back near the reference")
    field: FieldName = Field(description="feature.NAME, features (how they go together), prediction, confidence, "
                             "latency_ms, error_rate, traffic (events a minute), error (late labels), calibration "
                             "(right less confidence), ...")
    statistic: Literal["mean", "rate", "missing_share"] = "mean"
    before: Finite = Field(description="The statistic on the reference")
    after: Finite = Field(description="The statistic since the onset")
    reference: DriftReference = Field(default="stable_window", description="What it is compared with")
    scale: Finite = Field(default=0.0, description="Spread of the reference, in the field's unit")
    onset_ms: TimestampMs = Field(description="When it began, as the detector sees it")
    detected_ms: TimestampMs = Field(description="Event time at which it was sure")
    sureness: Share = Field(description="1 - the detector's false-alarm bound")
    detector: Identifier
    severity: Severity
    versions: list[str] = Field(default_factory=list, max_length=32, description="Versions affected")
    windows: Count = Field(default=0, description="Windows that the new level rests on")
    partition: Count = 0
    onset_low_ms: TimestampMs | None = Field(default=None, description="It began hardly earlier than this")
    onset_high_ms: TimestampMs | None = Field(default=None, description="and hardly later than this")
    agreeing: list[Identifier] = Field(default_factory=list, max_length=8,
                                       description="All detectors and tests that see it, the deciding one first")
    cause: DriftCause = Field(default="unknown", description="data_quality: what feeds the model is broken; its owner "
                              "mends it, and a retrained model would learn the breakage")
    breakage: Breakage | None = Field(default=None, description="What is broken, if the cause is data_quality")
    broken_field: FieldName | None = Field(default=None, description="The feature whose feed is broken")
    ranked: list[Moved] = Field(default_factory=list, max_length=16,
                                description="What moved in this version by now, most first")
    segment: dict[FieldName, Category] = Field(default_factory=dict, max_length=MAX_SEGMENT_KEYS,
                                               description="Where it is concentrated; empty: everywhere, or unknown")
    before_sketch: CoarseSketch = Field(default_factory=list, max_length=64)
    after_sketch: CoarseSketch = Field(default_factory=list, max_length=64)
    distances: dict[Identifier, Finite] = Field(
        default_factory=dict, max_length=8,
        description="psi, jensen_shannon (bits), ks, wasserstein (the field's unit): after against before")
    expected_error_before: Share | None = Field(default=None, description="1 - mean confidence on the reference")
    expected_error_after: Share | None = Field(default=None, description="and since the drift: the error to expect "
                                               "while labels are late, if confidence is calibrated")


class RetrainingRequest(Subject):
    """A wish to retrain, at most one open a model; the queue decides."""

    request_id: Identifier = Field(description="Deterministic")
    ts: TimestampMs
    reason: Text
    severity: Severity
    drift_ids: list[Identifier] = Field(max_length=64)
    dedupe_key: Identifier = Field(description="environment and model: one request at a time is open for it")
