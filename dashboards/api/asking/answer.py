"""Windows into points for people: those of a group and a step merged, sketches turned into quantiles."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dashboards.api.asking.join import Part
from dashboards.api.asking.question import Question, label
from streams.windows.sketch import quantiles

Row = dict[str, Any]
#: Windows merged, by group and step.
Groups = dict[tuple[int, tuple[str, ...]], list[Part]]


def points(parts: Iterable[Part], question: Question, known_to_ms: int) -> list[Row]:
    """A point for each step and group, in this order.

    `open`: its step reaches beyond what is known, so that more may come. With one field, its figures are under `value`
    (null where no window has it); with several or all, under `fields`.
    """
    groups: Groups = defaultdict(list)
    for part in parts:
        group = tuple(getattr(part.line, key) for key in question.group_by)
        groups[part.start_ms - part.start_ms % question.step_ms, group].append(part)
    return [point(start, group, found, question) | {"open": start + question.step_ms > known_to_ms}
            for (start, group), found in sorted(groups.items(), key=lambda item: item[0])]


def point(start_ms: int, group: tuple[str, ...], parts: Sequence[Part], question: Question,
          span_ms: int | None = None) -> Row:
    """Windows as one point; `span_ms` is what they span together (default: a step)."""
    count, errors = sum(part.count for part in parts), sum(part.errors for part in parts)
    found: Row = {"start_ms": start_ms, **dict(zip(question.group_by, group, strict=True)), "count": count,
                  "errors": errors, "error_rate": errors / count if count else None,
                  "events_per_s": count / (span_ms or question.step_ms) * 1000,
                  "partitions": len({part.line.partition for part in parts})}
    if question.no_fields:
        return found
    merged = summaries(parts)
    if len(question.fields) == 1:
        (field,) = question.fields
        return found | {"value": figures(merged[field], question) if field in merged else None}
    return found | {"fields": {name: figures(summary, question) for name, summary in sorted(merged.items())}}


def summaries(parts: Iterable[Part]) -> dict[str, Row]:
    """The fields of windows, merged in this order."""
    merged: dict[str, Row] = {}
    for part in parts:
        for name, summary in part.fields.items():
            merged[name] = merge(merged[name], summary) if name in merged else summary
    return merged


def merge(a: Row, b: Row) -> Row:
    """Two summaries as one; without a sketch if either has none.

    Source: Chan, Golub, LeVeque, Stanford STAN-CS-79-773 (1979), for mean and m2. Deviations: none.
    """
    count = a["count"] + b["count"]
    both: Row = {"count": count, "missing": a["missing"] + b["missing"], "sum": a["sum"] + b["sum"]}
    if "sketch" in a and "sketch" in b:
        both["sketch"] = merged_sketch(a["sketch"], b["sketch"])
    if a["mean"] is None or b["mean"] is None:
        other = b if a["mean"] is None else a
        return both | {name: other[name] for name in ("mean", "m2", "min", "max")}
    step = b["mean"] - a["mean"]
    return both | {"mean": a["mean"] + step * b["count"] / count,
                   "m2": a["m2"] + b["m2"] + step * step * a["count"] * b["count"] / count,
                   "min": min(a["min"], b["min"]), "max": max(a["max"], b["max"])}


def merged_sketch(*sketches: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Sketches as one: (code, count), ascending."""
    counts: dict[int, int] = {}
    for sketch in sketches:
        for code, many in sketch:
            counts[code] = counts.get(code, 0) + many
    return sorted(counts.items())


def figures(summary: Row, question: Question) -> Row:
    """The statistics and quantiles (within 1%) that are asked for. null where nothing is known."""
    count = summary["count"]
    known = summary["mean"] is not None
    found: Row = {name: summary[name] for name in question.statistics if name != "std"}
    if "std" in question.statistics:
        found["std"] = math.sqrt(summary["m2"] / (count - 1)) if known and count > 1 else None
    if question.quantiles:
        found |= dict(zip(map(label, question.quantiles),
                          quantiles(summary.get("sketch", ()), question.quantiles), strict=True))
    return found
