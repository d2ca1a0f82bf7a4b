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
from agents.drift.options import FEATURE, MEAN, MISSING, RATE, Statistic
from agents.drift.watch import INCUMBENT, Change
from schemas.drift import Breakage, DriftCause, DriftKind
from streams.windows.sketch import BIAS, LOG_GAMMA

#: A factor from which on a change is taken for one of unit by itself; so is one by so many standard deviations.
#: A mean within a tenth of a standard deviation of 0 has no factor to speak of.
UNIT_FACTOR, UNIT_SPREADS, NEAR_ZERO = 100.0, 30.0, 0.1
#: Factors of units that are mixed up: metric prefixes, percent, time, length, mass, volume, energy.
FACTORS = (10.0, 100.0, 1e3, 1e6, 60.0, 3600.0, 24.0, 7.0, 12.0, 2.54, 25.4, 30.48, 3.28084, 1.609344, 2.20462, 28.3495,
           3.78541, 4.184)
#: How near to such a factor, and how alike the moved sketch, for a change that is less than `UNIT_FACTOR`.
NEAR, ALIKE, LEAST_VALUES = math.log(1.02), 0.08, 100
#: Values, all of them alike, of a column that is stuck.
STUCK_VALUES = 60


class Verdict(NamedTuple):
    """A cause, and what is broken where, if it is data_quality."""

    cause: DriftCause
    breakage: Breakage | None = None
    broken_field: str | None = None


def judge(kind: DriftKind, statistic: Statistic, change: Change, numeric: bool, broken: Sequence[Verdict]) -> Verdict:
    """The verdict on a drift that begins.

    `numeric`: the field was known as a number (of a category of it). `broken`: verdicts on features of the same
    component that are broken now.
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
    return Verdict("real_change")


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
    if change.before == 0.0 or abs(change.before) < NEAR_ZERO * change.scale:
        return False
    factor = change.after / change.before
    if factor <= 0.0:
        return False
    if max(factor, 1.0 / factor) >= UNIT_FACTOR:
        return True
    return _is_moved_by_a_factor(change.before_sketch, change.after_sketch)


def _is_moved_by_a_factor(before: Sketch, after: Sketch) -> bool:
    if sum(count for _, count in after) < LEAST_VALUES or len(after) < 3 or not before:
        return False
    by = _median(after) - _median(before)
    log = abs(by) * LOG_GAMMA
    if not any(abs(log - math.log(factor)) <= NEAR for factor in FACTORS):
        return False
    moved = [(code + by if code > 0 else code - by if code < 0 else 0, count) for code, count in before]
    return on_edges_of(sorted(moved), after) <= ALIKE


def _median(sketch: Sketch) -> int:
    """Of the sizes of the values that are not 0, as their bucket."""
    sizes = sorted((abs(code) - BIAS, count) for code, count in sketch if code)
    half, seen = sum(count for _, count in sizes) / 2, 0
    for size, count in sizes:
        seen += count
        if seen >= half:
            return size
    return 0
