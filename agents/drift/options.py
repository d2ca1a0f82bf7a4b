"""What is watched, what counts as a change of it, and how much is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from schemas.drift import DriftKind
from streams.settings import Settings

ERROR_RATE = "error_rate"
LATENCY = "latency_ms"
CONFIDENCE = "confidence"
PREDICTION = "prediction"
FEATURE = "feature."
METRIC = "metric."
#: Statistic of a field: its mean, its share of events, or its share of nulls.
MEAN, RATE, MISSING = "mean", "rate", "missing_share"

#: (field, statistic)
Statistic = tuple[str, str]
#: sd: standard deviations of single events; share: absolute; ratio: one geometric mean over the other.
Measure = Literal["sd", "share", "ratio"]


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """Event time in milliseconds.

    `budget_per_day`: false alarms that a component of a model may give in a day. `least_events` and
    `longest_group_ms` bound a point, `least_labels` one of late labels. Bounds of memory: versions a component,
    statistics a version, categories a field, values a segment key, slices of labels a component.
    """

    granularity_ms: int = 1_000
    delta: float = 1e-5
    budget_per_day: float = 0.01
    least_events: int = 20
    longest_group_ms: int = 30_000
    least_labels: int = 20
    most_versions: int = 16
    most_statistics: int = 1_024
    most_categories: int = 32
    most_values: int = 32
    most_slices: int = 256

    @classmethod
    def from_settings(cls, settings: Settings) -> DriftOptions:
        return cls(settings.drift_granularity_ms, settings.drift_delta, settings.drift_false_alarms_per_day)


class Effect(NamedTuple):
    """What counts as a change: at least `least`, critical from `large`.

    `worse`: only a rise is one. `vanishes`: so is a smaller fall that leaves nearly nothing of what was not rare.
    `counts`: a share of events that have something, so that how many have it is binomial.
    """

    measure: Measure
    least: float
    large: float
    worse: bool = False
    vanishes: bool = False
    counts: bool = False


#: Means are winsorised at three standard deviations of the reference: 2.5 is nearly as far as they can move.
NUMERIC = Effect("sd", 0.5, 2.5)
SHARE = Effect("share", 0.15, 0.4, vanishes=True, counts=True)
NULLS = Effect("share", 0.10, 0.5, counts=True)
LABELS = Effect("share", 0.10, 0.4, worse=True, counts=True)
#: Share of right predictions less their mean confidence.
GAPS = Effect("share", 0.10, 0.3)
DISTANCES = Effect("sd", 0.5, 2.5, worse=True)
NAMED = {
    CONFIDENCE: Effect("share", 0.08, 0.25),
    ERROR_RATE: Effect("share", 0.03, 0.4, worse=True, counts=True),
    LATENCY: Effect("ratio", 2.0, 10.0, worse=True),
}


def effect_of(statistic: Statistic) -> Effect:
    """The effect that matters for a statistic of a window."""
    name, kind = statistic
    if kind == MISSING:
        return NULLS
    return NAMED.get(name) or (SHARE if kind == RATE else NUMERIC)


def kind_of(name: str) -> DriftKind:
    """data, prediction or operational."""
    if name.startswith(FEATURE):
        return "data"
    return "prediction" if name.startswith((PREDICTION, CONFIDENCE)) else "operational"
