"""Two versions or two periods: aligned point by point by the caller, compared here as wholes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dashboards.api.asking.answer import point, summaries
from dashboards.api.asking.join import Part
from dashboards.api.asking.question import Question
from dashboards.api.asking.summary import Sketch, distance, merged_sketch

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
    """The Kolmogorov-Smirnov distance (0 to 1) of every number that both have, from their sketches."""
    one, two = (_sketches(parts) for parts in (asked, compared))
    return {name: distance(one[name], two[name]) for name in one if name in two}


def _sketches(parts: Sequence[Part]) -> dict[str, Sketch]:
    """Of fields that have one: classes have none."""
    return {name: sketch for name, found in summaries(parts).items() if len(sketch := merged_sketch(found))}
