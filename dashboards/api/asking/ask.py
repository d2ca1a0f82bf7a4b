"""A question answered: lines, windows of both stores, joined, as points, with where to go on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import RedisError

from dashboards.api.asking import answer, stored
from dashboards.api.asking.join import Line, Part, joined
from dashboards.api.asking.question import Question, QuestionError, aligned
from dashboards.api.asking.summary import Summary
from dashboards.api.history import HistoryReader
from streams import log
from streams.stores.redis import RECENT, Hot, RecentWindow

logger = log.get(__name__)
#: With more series than this, rings are not read: the history alone is at most a second behind.
MOST_IN_RINGS = 200
_summary = msgspec.json.Decoder(Summary).decode

Row = dict[str, Any]


class Asked(NamedTuple):
    """The points of a question, the windows they were made of, and where to go on; None after the last."""

    points: list[Row]
    parts: list[Part]
    next_from_ms: int | None


async def ask(history: HistoryReader, hot: Hot, sizes_ms: Sequence[int], question: Question, limit: int) -> Asked:
    """At most `limit` points, a step as a whole.

    Raises:
        QuestionError: it would read too much.
        asyncpg errors, OSError: PostgreSQL is away. Without Redis it is answered from the history alone.
    """
    down = [size for size in reversed(sizes_ms) if size <= question.size_ms]
    read = question.reading
    known = await stored.known(history, read, down)
    tails = known.tails(read, down[1:])
    (found, more), tail, recent = await asyncio.gather(
        stored.windows(history, read, _rows_for(read, known, limit)),
        stored.tail_windows(history, read, tails), _recent(hot, known, read, down))
    both = joined([*found, *tail], recent, known.ends_ms, down, RECENT)
    end_ms = found[-1].start_ms - found[-1].start_ms % question.step_ms if more else question.to_ms
    parts = [part for part in both.parts if read.from_ms <= part.start_ms < end_ms]
    if more and (question.session_gap_ms or end_ms <= question.from_ms):
        raise QuestionError("too_much", f"more than {stored.MOST_ROWS} windows: ask for a shorter span, or a coarser "
                                        "granularity")
    slides = max(1, question.sliding_ms // question.step_ms)
    if len(parts) * slides > stored.MOST_ROWS:
        raise QuestionError("too_much", f"{len(parts)} windows, each in {slides} points that slide: ask for a shorter "
                                        "span or `sliding_ms`, or a longer `step_ms`")
    points = answer.points(parts, question, both.known_to_ms, end_ms)
    if question.session_gap_ms and len(points) > limit:     # others run on where the next page would begin
        raise QuestionError("too_much", f"more than {limit} sessions: raise `limit`, or ask for a shorter span")
    parts = [part for part in parts if part.start_ms >= question.from_ms]
    kept, following = _whole_starts(points, limit)
    return Asked(kept, parts, following if following is not None else end_ms if more else None)


def _rows_for(read: Question, known: stored.Known, limit: int) -> int:
    """Windows to read for so many points; sessions and what slides need not only those of the first points."""
    if read.session_gap_ms:
        return stored.MOST_ROWS
    return stored.rows_for(read, known.lines, limit + read.sliding_ms // read.step_ms)


async def settled(history: HistoryReader, sizes_ms: Sequence[int], question: Question) -> Question:
    """The question at the granularity that there is: where windows so fine are gone, the next coarser ones."""
    if question.fixed:
        return question
    there = await stored.sizes_ms(history, question)
    if not there or min(there) <= question.size_ms:
        return question
    size = min(there & set(sizes_ms), default=question.size_ms)
    from_ms, to_ms = aligned(question.from_ms, question.to_ms, size)
    return replace(question, size_ms=size, step_ms=size, from_ms=from_ms, to_ms=to_ms)


async def everything(history: HistoryReader, hot: Hot, sizes_ms: Sequence[int], question: Question) -> list[Part]:
    """All windows of a question, joined.

    Raises:
        QuestionError: there are more than one question may read.
    """
    plain = replace(question, sliding_ms=0, session_gap_ms=0)
    asked = await ask(history, hot, sizes_ms, plain, stored.MOST_ROWS)
    if asked.next_from_ms is not None:
        raise QuestionError("too_much", f"more than {stored.MOST_ROWS} windows: ask for a shorter span, or a "
                                   "coarser granularity")
    return asked.parts


async def _recent(hot: Hot, known: stored.Known, question: Question, sizes_ms: Sequence[int]) -> list[Part]:
    """What the rings have of the lines that the history does not know up to the end of the span."""
    if question.level:      # the rings are the series'
        return []
    heads: dict[Line, int] = {}
    for (line, _), end_ms in known.ends_ms.items():
        heads[line] = max(end_ms, heads.get(line, end_ms))
    series = stored.series_of(line for line, head_ms in heads.items() if head_ms < question.to_ms)
    if not series or len(series) > MOST_IN_RINGS:
        return []
    try:
        rings = await hot.recent(list(series), sizes_ms)
    except (RedisError, OSError) as error:
        logger.warning("rings.away", error=type(error).__name__)
        return []
    return [_part(lines, found, question) for lines, ring in zip(series.values(), rings, strict=True) for found in ring]


def _part(lines: Sequence[Line], found: RecentWindow, question: Question) -> Part:
    names = () if question.no_fields else question.fields or tuple(found.fields)
    return Part(lines[0]._replace(partition=found.partition), found.size_ms, found.start_ms, found.count, found.errors,
                found.revision, {name: _summary(found.fields[name]) for name in names if name in found.fields})


def _whole_starts(found: list[Row], limit: int) -> tuple[list[Row], int | None]:
    """At most `limit` points, and where to go on. A start is kept or left as a whole.

    Raises:
        QuestionError: the first start alone has more.
    """
    if len(found) <= limit:
        return found, None
    cut = int(found[limit]["start_ms"])
    kept = list(itertools.takewhile(lambda point: point["start_ms"] < cut, found))
    if not kept:
        raise QuestionError("too_much", f"one step has more than {limit} points: raise `limit`, or group by less")
    return kept, cut
