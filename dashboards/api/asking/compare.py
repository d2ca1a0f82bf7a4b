"""Two versions or two periods: aligned point by point by the caller, compared here as wholes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dashboards.api.asking.answer import point, summaries
from dashboards.api.asking.join import Part
from dashboards.api.asking.question import Question

Row = dict[str, Any]


def whole(parts: Sequence[Part], question: Question) -> Row:
    """All windows of a question as one point."""
    one = replace(question, group_by=())
    return {name: value for name, value in
            point(question.from_ms, (), parts, one, question.to_ms - question.from_ms).items() if name != "start_ms"}


def difference(asked: Row, compared: Row) -> Row:
    """The asked less the compared, and relative to the compared (null where that is zero), for every number of both."""
    found: Row = {}
    for name, value in asked.items():
        other = compared.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found[name] = difference(value, other)
        elif isinstance(value, (int, float)) and isinstance(other, (int, float)):
            found[name] = {"absolute": value - other, "relative": (value - other) / abs(other) if other else None}
    return found


def distances(asked: Sequence[Part], compared: Sequence[Part]) -> dict[str, float]:
    """The Kolmogorov-Smirnov distance (0 to 1) of every number that both have, from their sketches.

    sup |F(x) - G(x)| over the buckets' upper ends: exact but for values that share a bucket (within 1%).
    """
    one, two = summaries(asked), summaries(compared)
    return {name: _distance(one[name]["sketch"], two[name]["sketch"])
            for name in sorted(one.keys() & two.keys()) if one[name].get("sketch") and two[name].get("sketch")}


def _distance(one: Sequence[Sequence[int]], two: Sequence[Sequence[int]]) -> float:
    totals = [sum(many for _, many in sketch) for sketch in (one, two)]
    steps: dict[int, float] = {}
    for sign, sketch, total in ((1, one, totals[0]), (-1, two, totals[1])):
        for code, many in sketch:
            steps[code] = steps.get(code, 0.0) + sign * many / total
    reached, furthest = 0.0, 0.0
    for code in sorted(steps):
        reached += steps[code]
        furthest = max(furthest, abs(reached))
    return min(furthest, 1.0)
