"""Windows into points for people: those of a group and a step merged, sketches turned into quantiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dashboards.api.asking.join import Part
from dashboards.api.asking.quality import by_class, quality
from dashboards.api.asking.question import Question, label
from dashboards.api.asking.summary import Summary, merged, merged_sketch, quantiles

Row = dict[str, Any]
#: Windows merged, by group and step.
Groups = dict[tuple[int, tuple[str, ...]], list[Part]]


def points(parts: Iterable[Part], question: Question, known_to_ms: int, end_ms: int) -> list[Row]:
    """A point for each step and group, in this order; or for each session.

    `open`: its step reaches beyond what is known, so that more may come. With one field, its figures are under `value`
    (null where no window has it); with several or all, under `fields`. Of late labels: `quality`, and `classes`.
    """
    if question.session_gap_ms:
        return sessions(parts, question, known_to_ms)
    step = question.step_ms
    groups: Groups = defaultdict(list)
    for part in parts:
        first = part.start_ms - part.start_ms % step
        for start in range(first, first + max(question.sliding_ms, step), step):
            if question.from_ms <= start < end_ms:
                groups[start, _group(part, question)].append(part)
    return [point(start, group, found, question, max(1, min(max(question.sliding_ms, step), known_to_ms - start
                                                            + max(0, question.sliding_ms - step))))
            | {"open": start + step > known_to_ms}
            for (start, group), found in sorted(groups.items(), key=lambda item: item[0])]


def sessions(parts: Iterable[Part], question: Question, known_to_ms: int) -> list[Row]:
    """A point for each time with events of a group, by when it begins; as exact as the windows that are read.

    Two sessions have at least `session_gap_ms` between them. `open`: more may come.
    """
    of_group: dict[tuple[str, ...], list[list[Part]]] = defaultdict(list)
    ends: dict[tuple[str, ...], int] = {}
    for part in sorted(parts, key=lambda part: part.start_ms):
        group, end_ms = _group(part, question), part.start_ms + part.size_ms
        if group not in ends or part.start_ms - ends[group] >= question.session_gap_ms:
            of_group[group].append([])
        of_group[group][-1].append(part)
        ends[group] = max(end_ms, ends.get(group, end_ms))
    found = []
    for group, runs in of_group.items():
        for run in runs:
            start_ms, end_ms = run[0].start_ms, max(part.start_ms + part.size_ms for part in run)
            found.append(point(start_ms, group, run, question, end_ms - start_ms)
                         | {"end_ms": end_ms, "open": end_ms + question.session_gap_ms > known_to_ms})
    return sorted(found, key=lambda row: (row["start_ms"], *(row[key] for key in question.group_by)))


def _group(part: Part, question: Question) -> tuple[str, ...]:
    return tuple(getattr(part.line, key) for key in question.group_by)


def point(start_ms: int, group: tuple[str, ...], parts: Sequence[Part], question: Question,
          span_ms: int) -> Row:
    """Windows as one point; `span_ms` is how much of its step is known."""
    count, errors = sum(part.count for part in parts), sum(part.errors for part in parts)
    found: Row = {"start_ms": start_ms, **dict(zip(question.group_by, group, strict=True)), "count": count,
                  "errors": errors, "error_rate": errors / count if count else None,
                  "events_per_s": count / span_ms * 1000,
                  "partitions": len({part.line.partition for part in parts})}
    if question.no_fields:
        return found
    of_fields = summaries(parts)
    if question.level == "labels":
        return found | {"quality": quality(of_fields), "classes": by_class(
            {name: merged(several) for name, several in of_fields.items()})}
    if len(question.fields) == 1:
        (field,) = question.fields
        return found | {"value": figures(of_fields[field], question) if field in of_fields else None}
    return found | {"fields": {name: figures(several, question) for name, several in of_fields.items()}}


def summaries(parts: Iterable[Part]) -> dict[str, list[Summary]]:
    """The summaries of each field, by name."""
    found: dict[str, list[Summary]] = defaultdict(list)
    for part in parts:
        for name, summary in part.fields.items():
            found[name].append(summary)
    return dict(sorted(found.items()))


def figures(found: Sequence[Summary], question: Question) -> Row:
    """The statistics and quantiles (within 1%) that are asked for. null where nothing is known.

    `sampling_rate`: the share of the values that the quantiles rest on, where it is not all of them.
    """
    whole = merged(found)
    shown: Row = {name: getattr(whole, name) for name in question.statistics}
    if question.quantiles:
        shown |= zip(map(label, question.quantiles), quantiles(merged_sketch(found), question.quantiles), strict=True)
        if whole.sampling_rate is not None:
            shown["sampling_rate"] = whole.sampling_rate
    return shown
