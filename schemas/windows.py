"""`metrics`: a closed window of one series. `metrics-levels`: of an environment, a segment, or late labels."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Contract, Count, Finite, Identifier, Subject, TimestampMs


class Summary(Contract):
    """A mergeable summary of one field over one window."""

    count: Count = Field(description="Values present")
    missing: Count = Field(default=0, description="Nulls")
    sum: Finite = 0.0
    min: Finite | None = Field(default=None, description="null when no value was present")
    max: Finite | None = None
    mean: Finite | None = None
    m2: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0, description="Sum of squared deviations from the mean; m2 / (count - 1) is the variance"
    )
    sketched: Count | None = Field(
        default=None, description="Values in the sketch, where that is a sample of them, each counted as often as the "
        "values it stands for; absent or null: all of them")
    sketch: list[tuple[int, int]] = Field(
        default_factory=list,
        description="Log-bucket quantile sketch as (bucket, count), ascending; relative error 1%",
    )


class MetricWindow(Subject):
    """One closed window [start_ms, start_ms + size_ms) of one series, as one partition saw it."""

    window_id: Identifier = Field(description="The same for every revision and repeat of this window")
    start_ms: TimestampMs
    size_ms: Annotated[int, Field(ge=1)] = Field(description="Granularity")
    partition: Count = Field(description="The telemetry partition the events came through; windows of one series "
                             "from several partitions add up")
    count: Count = Field(description="Events. It only grows: of two copies with one id the larger count is newer")
    errors: Count = Field(description="Events with an error")
    revision: Count = Field(default=0, description="0 when first closed; raised by each amendment")
    closed_ms: TimestampMs = Field(description="Event time of the partition when this copy was emitted")
    fields: dict[str, Summary] = Field(
        default_factory=dict,
        description="latency_ms, confidence, prediction, feature.NAME, metric.NAME; classes as prediction=CLASS "
        "and feature.NAME=VALUE, each with count only",
    )


Level = Literal["environment", "segment", "labels"]
#: In a level's window, where a name is above the level: the model of an environment's, say.
ALL = "all"
#: What means the same in every model: the fields that windows of environments have.
COMMON = frozenset({"latency_ms", "confidence"})


class LevelWindow(MetricWindow):
    """A closed window beside those of the series, as one partition saw it. Partitions add up.

    environment: all events of an environment; model, version and component are `all`, and of the fields only those
    that mean the same in every model: latency_ms, confidence. The fleet is the sum of its environments.
    segment: a series' events with one value of a segment key; its features are left out.
    labels: late labels, in the window of the prediction that they judge. Fields: correct (0 or 1); error (of numbers:
    prediction - label); class=NAME (count: times predicted; sum: times rightly; missing: times true and not predicted);
    right=BIN and wrong=BIN (the confidence of right and of wrong predictions, in twentieths); log_odds.NAME (of the
    true class, by the confidence: of two classes these are the ROC curve).
    """

    level: Level
    segment: Annotated[str, Field(max_length=257)] = Field(default="", description="KEY=VALUE, or empty")


def window_id(environment: str, model: str, version: str, component: str,
              size_ms: int, start_ms: int, partition: int) -> str:
    """A deterministic, readable, bounded id of a window (at most 128 characters)."""
    return f"w-{series_digest(environment, model, version, component)}-{size_ms}-{start_ms}-{partition}"


def series_digest(environment: str, model: str, version: str, component: str) -> str:
    """What stands for a series in its windows' ids."""
    series = "\x1f".join((environment, model, version, component))
    return hashlib.blake2b(series.encode(), digest_size=12).hexdigest()
