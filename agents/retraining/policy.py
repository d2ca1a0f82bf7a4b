"""Which drift asks for retraining.

A broken feed does not: its owner mends it, and a new model would learn the breakage. While one is open, what it does to
predictions and errors asks for nothing either. A new version that differs from the incumbent does not: it is rolled
back.
"""

from __future__ import annotations

from schemas.drift import DriftEvent

#: A mean that moves by this factor, with its sign kept, is a unit that changed.
UNIT_FACTOR = 100.0
#: The detectors of a new version against the incumbent's reference.
INCUMBENT = "incumbent"


def asks(event: DriftEvent) -> bool:
    """True for a real change of data, predictions or performance that matters."""
    return (event.state == "drifted" and event.kind != "operational" and event.severity != "info"
            and event.detector != INCUMBENT and not is_broken_feed(event))


def is_broken_feed(event: DriftEvent) -> bool:
    """True for nulls that were not there before, and for a changed unit."""
    if event.statistic == "missing_share":
        return event.after > event.before
    if event.kind != "data" or event.before == 0.0 or event.after == 0.0:
        return False
    factor = event.after / event.before
    return factor >= UNIT_FACTOR or 0 < factor <= 1 / UNIT_FACTOR
