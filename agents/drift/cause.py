"""What a drift comes from, as far as its own numbers say.

data_quality: what feeds the model is broken. A unit changed: all values went by one factor, so that the sketch before,
moved by it, is the sketch after. A column went null or got stuck at one value; or numbers became text. Predictions and
confidence that move while a feature of the same component is broken follow from that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from agents.drift.distance import Sketch, on_edges_of
from agents.drift.level import INCUMBENT, Change
from agents.drift.options import FEATURE, MEAN, MISSING, RATE, Statistic
from schemas.drift import Breakage, DriftCause, DriftKind
from streams.windows.sketch import BIAS, LOG_GAMMA

#: A factor from which on a change is taken for one of unit by itself; so is one by so many standard deviations.
#: A mean within a tenth of a standard deviation of 0 has no factor to speak of.
UNIT_FACTOR, UNIT_SPREADS, NEAR_ZERO = 100.0, 30.0, 0.1
#: A smaller factor is one of unit if the values it moved are still distributed as they were: by so much, with so many
#: values to tell, and so alike (besides what chance does, in its standard deviations).
MOVED_FACTOR, LEAST_VALUES, ALIKE, CHANCE = 20.0, 20, 0.05, 1.4
#: Values, all of them alike, of a column that is stuck.
STUCK_VALUES = 60


class Verdict(NamedTuple):
    """A cause, and what is broken where, if it is data_quality."""

    cause: DriftCause
    breakage: Breakage | None = None
    broken_field: str | None = None


def judge(kind: DriftKind, statistic: Statistic, change: Change, numeric: bool = False,
          broken: Sequence[Verdict] = (), has_features: bool = True) -> Verdict:
    """The verdict on a drift that begins.

    `numeric`: the field was known as a number (of a category of it). `broken`: verdicts on features of the same
    component that are broken now. `has_features`: it reports its inputs; otherwise nobody here knows what predictions
    follow from.
    """
    name, of = statistic
    if change.detector == INCUMBENT:
        return Verdict("new_version")
    if kind == "operational":
        return Verdict("operational")
    if name.startswith(FEATURE):
        breakage = _breakage(of, change, numeric)
        return Verdict("real_change") if breakage is None else Verdict("data_quality", breakage, name.partition("=")[0])
    if kind == "prediction" and broken:
        return broken[0]
    return Verdict("real_change" if has_features or kind != "prediction" else "unknown")


def _breakage(of: str, change: Change, numeric: bool) -> Breakage | None:
    if of == MISSING:
        return "null_column" if change.after > change.before else None
    if of == RATE:
        return "schema" if numeric and change.after > change.before else None
    if of != MEAN:
        return None
    if is_unit(change):
        return "unit_change"
    values = sum(count for _, count in change.after_sketch)
    was_varied = len(change.before_sketch) > 3
    return "constant_column" if was_varied and len(change.after_sketch) == 1 and values >= STUCK_VALUES else None


def is_unit(change: Change) -> bool:
    """True if the values of a mean that moved are the same ones in another unit."""
    if 0.0 < UNIT_SPREADS * change.scale <= abs(change.after - change.before):
        return True
    if _is_moved_by_a_factor(change.before_sketch, change.after_sketch):
        return True
    if change.before == 0.0 or abs(change.before) < NEAR_ZERO * change.scale:
        return False
    factor = change.after / change.before
    return factor > 0.0 and max(factor, 1.0 / factor) >= UNIT_FACTOR


def _is_moved_by_a_factor(before: Sketch, after: Sketch) -> bool:
    n = sum(count for _, count in after)
    if n < LEAST_VALUES or not before:
        return False
    by = _median(after) - _median(before)
    if abs(by) * LOG_GAMMA < math.log(MOVED_FACTOR):
        return False
    moved = [(code + by if code > 0 else code - by if code < 0 else 0, count) for code, count in before]
    return on_edges_of(sorted(moved), after) <= ALIKE + CHANCE / math.sqrt(n)


def _median(sketch: Sketch) -> int:
    """Of the sizes of the values that are not 0, as their bucket."""
    sizes = sorted((abs(code) - BIAS, count) for code, count in sketch if code)
    half, seen = sum(count for _, count in sizes) / 2, 0
    for size, count in sizes:
        seen += count
        if seen >= half:
            return size
    return 0
