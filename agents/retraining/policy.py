"""Which drift asks for retraining.

A broken feed does not: its owner mends it, and a new model would learn the breakage. While one is open, what it does to
predictions and errors asks for nothing either. A new version that differs from the incumbent does not: it is rolled
back.
"""

from __future__ import annotations

from schemas.drift import DriftEvent

#: A mean that moves by this factor, with its sign kept, is a unit that changed; so is one that moves by so many
#: standard deviations. A mean within a tenth of a standard deviation of 0 has no factor to speak of.
UNIT_FACTOR, UNIT_SPREADS, NEAR_ZERO = 100.0, 30.0, 0.1
#: The detectors of a new version against the incumbent's reference.
INCUMBENT = "incumbent"


def asks(event: DriftEvent) -> bool:
    """True for a real change of data, predictions or performance that matters."""
    return (event.state == "drifted" and event.kind != "operational" and event.severity != "info"
            and event.statistic != "missing_share" and event.detector != INCUMBENT and not is_broken_feed(event))


def is_broken_feed(event: DriftEvent) -> bool:
    """True for nulls that were not there before, and for a changed unit."""
    if event.statistic == "missing_share":
        return event.after > event.before
    if event.kind != "data" or event.statistic != "mean":
        return False
    if 0.0 < UNIT_SPREADS * event.scale <= abs(event.after - event.before):
        return True
    if event.before == 0.0 or abs(event.before) < NEAR_ZERO * event.scale:
        return False
    factor = event.after / event.before
    return factor >= UNIT_FACTOR or 0.0 < factor <= 1.0 / UNIT_FACTOR
