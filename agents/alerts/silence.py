"""When is a model silent? Learnt from the gaps between its own windows.

The usual gap is what somebody who looks in at a random moment finds himself in: sum(g^2) / sum(g) (the inspection
paradox; Feller, Probability Theory II, I.4). For steady traffic it is the mean gap; for bursts with long pauses it
comes near the pauses, so that the end of each burst is no alarm.
"""

from __future__ import annotations

from agents.alerts.options import (
    GAP_MEMORY,
    KNOWN_PAUSE_FACTOR,
    KNOWN_PAUSES,
    SILENCE_GAPS,
    SILENCE_LEAST_WINDOWS,
    AlertOptions,
)
from agents.alerts.state import Pauses


def note_gap(pauses: Pauses, gap_ms: int, alarmed: bool) -> None:
    """Take in the time between two windows of a model. Pauses that raised an alarm do not count as usual at once."""
    pauses.windows += 1
    if alarmed:
        pauses.alarmed.append(gap_ms)
        del pauses.alarmed[:-KNOWN_PAUSES]
    elif gap_ms > 0:
        pauses.gaps += 1
        pauses.total += gap_ms
        pauses.squares += float(gap_ms) ** 2
        if pauses.gaps >= GAP_MEMORY:
            pauses.gaps, pauses.total, pauses.squares = pauses.gaps // 2, pauses.total / 2, pauses.squares / 2


def usual_gap_ms(pauses: Pauses) -> float:
    """0 while there is none."""
    return pauses.squares / pauses.total if pauses.total else 0.0


def limit_ms(pauses: Pauses, options: AlertOptions) -> int | None:
    """How long a model may be quiet; None: it has not shown enough of itself yet."""
    if pauses.windows < SILENCE_LEAST_WINDOWS:
        return None
    limit = max(float(options.silence_ms), SILENCE_GAPS * usual_gap_ms(pauses))
    if len(pauses.alarmed) == KNOWN_PAUSES:
        limit = max(limit, KNOWN_PAUSE_FACTOR * min(pauses.alarmed))
    return int(limit)
