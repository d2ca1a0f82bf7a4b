"""Which drift asks for retraining, how long it has to last, and how often a model may be retrained.

A broken feed does not ask: its owner mends it, and a new model would learn the breakage. While one is open, what it
does to predictions and errors asks for nothing either, and what had asked shortly before takes that back. A new
version that differs from the incumbent does not: it is rolled back. Operational drift does not: no model learns to be
fast.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.base import Severity
from schemas.drift import DriftEvent
from streams.settings import Settings

#: For events of before causes were told: a mean that moves by this factor, with its sign kept, is a unit that changed;
#: so is one that moves by so many standard deviations. A mean within a tenth of one of 0 has no factor to speak of.
UNIT_FACTOR, UNIT_SPREADS, NEAR_ZERO = 100.0, 30.0, 0.1
#: The detector of a new version against the incumbent's reference.
INCUMBENT = "incumbent"
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
WEEK_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class RetrainingOptions:
    """Event time in milliseconds.

    A drift asks from `least_severity` on, once it has lasted `persistence_ms`. After a request its model gets no other
    for `cooldown_ms`, and no more than `most_a_week` in any seven days.
    """

    cooldown_ms: int = 6 * 3_600_000
    persistence_ms: int = 60_000
    most_a_week: int = 7
    least_severity: Severity = "warning"
    granularity_ms: int = 1_000

    @classmethod
    def from_settings(cls, settings: Settings) -> RetrainingOptions:
        return cls(settings.retraining_cooldown_ms, settings.retraining_persistence_ms, settings.retraining_most_a_week,
                   settings.retraining_least_severity, settings.drift_granularity_ms)


def asks(event: DriftEvent, options: RetrainingOptions) -> bool:
    """True for a real change of data, predictions or performance that matters."""
    return (event.state == "drifted" and event.kind != "operational"
            and SEVERITIES.index(event.severity) >= SEVERITIES.index(options.least_severity)
            and event.statistic != "missing_share" and event.detector != INCUMBENT
            and event.cause in ("real_change", "unknown") and not is_broken_feed(event))


def is_broken_feed(event: DriftEvent) -> bool:
    """True for a feature whose feed is broken; what follows from it elsewhere is none by itself."""
    if event.kind != "data":
        return False
    return event.cause == "data_quality" or (event.cause == "unknown" and _looks_broken(event))


def _looks_broken(event: DriftEvent) -> bool:
    """Nulls that were not there before, or a changed unit."""
    if event.statistic == "missing_share":
        return event.after > event.before
    if event.statistic != "mean":
        return False
    if 0.0 < UNIT_SPREADS * event.scale <= abs(event.after - event.before):
        return True
    if event.before == 0.0 or abs(event.before) < NEAR_ZERO * event.scale:
        return False
    factor = event.after / event.before
    return factor >= UNIT_FACTOR or 0.0 < factor <= 1.0 / UNIT_FACTOR
