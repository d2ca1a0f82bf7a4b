"""What counts as a change, for each kind of statistic."""

from __future__ import annotations

from dataclasses import dataclass

from agents.drift.watch import Effect
from schemas.drift import DriftKind
from streams.settings import Settings

ERROR_RATE = "error_rate"
LATENCY = "latency_ms"
CONFIDENCE = "confidence"
#: Statistic of a field: its mean, its share of events, or its share of nulls.
MISSING = "missing_share"


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """Event time in milliseconds; shares from 0 to 1."""

    granularity_ms: int = 1_000
    delta: float = 1e-5
    least_events: int = 30
    longest_group_ms: int = 30_000
    most_versions: int = 16
    most_fields: int = 256

    @classmethod
    def from_settings(cls, settings: Settings) -> DriftOptions:
        return cls(settings.drift_granularity_ms, settings.drift_delta)


EFFECTS: dict[str, Effect] = {
    "numeric": Effect("sd", 0.5, 3.0),
    "share": Effect("share", 0.15, 0.4),
    MISSING: Effect("share", 0.10, 0.5),
    CONFIDENCE: Effect("share", 0.08, 0.25),
    ERROR_RATE: Effect("share", 0.05, 0.4),
    LATENCY: Effect("ratio", 2.0, 10.0),
    "labels": Effect("share", 0.12, 0.4),
    "labels_numeric": Effect("sd", 0.5, 3.0),
}


def effect_of(name: str, statistic: str) -> Effect:
    """The effect that matters for a field's statistic."""
    if statistic == MISSING:
        return EFFECTS[MISSING]
    if name in EFFECTS:
        return EFFECTS[name]
    return EFFECTS["share" if "=" in name else "numeric"]


def kind_of(name: str) -> DriftKind:
    """data, prediction or operational."""
    if name in (ERROR_RATE, LATENCY):
        return "operational"
    return "prediction" if name.startswith(("prediction", CONFIDENCE)) else "data"
