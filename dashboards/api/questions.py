"""REST about windows: `/api/metrics` asks for figures of any series, `/api/series` says which there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from dashboards.api.asking import compare, question, stored, table
from dashboards.api.asking.ask import Asked, ask, everything, settled
from dashboards.api.asking.question import ANY, GROUPS, KEYS, STATISTICS, Level, Question, QuestionError
from dashboards.api.auth import required
from dashboards.api.queries import (
    FAULTS,
    Environment,
    Instant,
    Limit,
    Model,
    history_of,
    instant,
    now_ms,
    unclear,
    unclear_question,
)
from streams.settings import Settings

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
POINTS = 60
NEXT_FROM = "X-Next-From-Ms"
router = APIRouter(prefix="/api", dependencies=[required], responses=FAULTS)


def asked(request: Request,
          environment: Annotated[str, Query(min_length=1, description="*: all")],
          model: Annotated[str, Query(min_length=1, description="*: all")] = ANY,
          version: str = "", component: str = "",
          field: Annotated[list[str] | None, Query(description="As latency_ms or feature.age; may be repeated; none: "
                                                               "counts only; absent: all")] = None,
          from_: Annotated[str, Query(alias="from", description="Default: an hour before `to`")] = "",
          to: Annotated[str, Query(description="Default: now")] = "",
          granularity_ms: Annotated[int | None, Query(description="Of the windows that are read; default: the coarsest "
                                                                  "that answers")] = None,
          step_ms: Annotated[int | None, Query(description="Between two points; default: the granularity")] = None,
          sliding_ms: Annotated[int | None, Query(description="Each point tells of so much time up to its step's end")
                                ] = None,
          session_gap_ms: Annotated[int | None, Query(description="Points are sessions, with at least so much time "
                                                                  "without events between them")] = None,
          points: Annotated[int, Query(ge=1, le=10_000, description="So many at least, where neither granularity nor "
                                                                    "step is said")] = POINTS,
          level: Annotated[Level | None, Query(description="What a point is of: component, version, model, "
                                               "environment, fleet; values of a segment key; late labels, by the time "
                                               "of the prediction")] = None,
          segment: Annotated[str, Query(description="With level=segment: a key, or KEY=VALUE")] = "",
          group_by: Annotated[str, Query(description=f"{', '.join(GROUPS)}; or none")] = "",
          statistics: Annotated[str, Query(description=", ".join(STATISTICS))] = ",".join(
              question.USUAL_STATISTICS),
          quantiles: Annotated[str, Query(description="Numbers from 0 to 1; or none")] = ",".join(
              map(str, question.USUAL_QUANTILES))) -> Question:
    """The question of a query."""
    sizes_ms = _sizes_ms(request.app.state.settings, level or "")
    if session_gap_ms is not None and granularity_ms is None and step_ms is None:
        granularity_ms = max((size for size in sizes_ms if size <= session_gap_ms), default=sizes_ms[0])
    to_ms = instant(to, now_ms())
    from_ms = instant(from_, max(0, to_ms - HOUR_MS))
    fields = tuple(dict.fromkeys(field or ()))
    settings: Settings = request.app.state.settings
    try:
        size, step = question.granularity(sizes_ms, to_ms - from_ms, points, granularity_ms, step_ms)
        from_ms, to_ms = question.aligned(from_ms, to_ms, step)
        if len(fields) > question.MOST_FIELDS:
            raise QuestionError("too_many_fields", f"at most {question.MOST_FIELDS} fields; or none is named for all")
        groups = question.chosen(group_by, GROUPS, "group_by") if group_by else question.grouped(
            level, environment, model)
        asked = Question(
            environment, model, from_ms, to_ms, size, step, groups,  # type: ignore[arg-type]
            version, component, fields if fields != ("none",) else (), fields == ("none",),
            question.chosen(statistics, STATISTICS, "statistics"), question.quantiles(quantiles),  # type: ignore[arg-type]
            any(said is not None for said in (granularity_ms, step_ms, sliding_ms)), segment=segment)
        return question.viewed(question.read_as(asked, level, settings.environment_windows), sliding_ms, session_gap_ms)
    except QuestionError as error:
        raise unclear_question(error) from None


Wanted = Annotated[Question, Depends(asked)]


def _sizes_ms(settings: Settings, level: str) -> tuple[int, ...]:
    """The sizes of windows that there are of a level."""
    return {"labels": settings.label_granularities_ms, "segment": settings.segment_granularities_ms}.get(
        level, settings.granularities_ms)


@router.get("/metrics")
async def metrics(request: Request, wanted: Wanted,
                  compare_version: Annotated[str, Query(description="Beside `version`: another one")] = "",
                  compare_from: Annotated[str, Query(description="Another period of the same length")] = "",
                  format_: Annotated[Literal["json", "csv", "arrow"], Query(alias="format")] = "json",
                  limit: Annotated[int, Query(ge=1, le=10_000, description="Points")] = 1_000) -> Any:
    """Figures of windows in time order: closed ones, and those under way as far as their parts have closed (`open`).

    A point is a step of a group: its windows merged; each component counts its own events. A `level` groups by what is
    above it, and environments and the fleet are read from windows of their own, unless more is asked than latency and
    confidence; the answer's `level` is that of the windows that were read, null where they are the series'. Late labels
    have `quality` and `classes` in the place of fields. Sliding points overlap; sessions have an `end_ms`, and come all
    at once. With `compare_version` or `compare_from` the same question is asked of another version or period, whose
    points are under `compare.windows`, moved to the asked times; beside them both as wholes, their difference, and the
    Kolmogorov-Smirnov distance of every number. More: ask again from `next_from_ms`, with the `step_ms` of this answer.
    Tables have it in the header X-Next-From-Ms. Quantiles of a hot feature rest on a sample: `sampling_rate` of its
    values.
    """
    wanted = await settled(history_of(request), _sizes_ms(request.app.state.settings, wanted.level), wanted)
    other = _other(wanted, compare_version, compare_from)
    if other is not None and compare_version:
        group_by = tuple(key for key in wanted.group_by if key != "version")
        wanted, other = replace(wanted, group_by=group_by), replace(other, group_by=group_by)
    try:
        found = await _ask(request, wanted, limit)
        compared = None if other is None else await _ask(request, other, limit)
    except QuestionError as error:
        raise unclear_question(error) from None
    if format_ != "json":
        return _table(wanted, found, compared, format_)
    body: dict[str, Any] = {
        "environment": wanted.environment, "model": wanted.model, "level": wanted.level or None,
        "granularity_ms": wanted.size_ms, "step_ms": wanted.step_ms, "from_ms": wanted.from_ms,
        "to_ms": wanted.to_ms, "group_by": wanted.group_by,
        "field": wanted.fields[0] if len(wanted.fields) == 1 else None, "windows": found.points,
        "next_from_ms": found.next_from_ms}
    if other is not None and compared is not None:
        body["compare"] = {"version": other.version, "from_ms": other.from_ms, "to_ms": other.to_ms,
                           "windows": _moved(compared, wanted.from_ms - other.from_ms),
                           **await _wholes(request, wanted, other)}
    return Response(msgspec.json.encode(body), media_type="application/json")      # FastAPI's own takes longer than all


async def _ask(request: Request, wanted: Question, limit: int) -> Asked:
    state = request.app.state
    return await ask(history_of(request), state.hot, _sizes_ms(state.settings, wanted.level), wanted, limit)


def _other(wanted: Question, version: str, from_: str) -> Question | None:
    """The question to compare with."""
    if wanted.session_gap_ms and (version or from_):
        raise unclear("bad_comparison", "sessions are not compared: they are at no common times")
    if version and from_:
        raise unclear("bad_comparison", "compare with another version or with another period, not with both")
    if version:
        if not wanted.version or wanted.version == version:
            raise unclear("bad_comparison", "compare_version takes a `version` to compare with, and another one")
        return replace(wanted, version=version)
    if from_:
        step, length = wanted.step_ms, wanted.to_ms - wanted.from_ms
        begin = instant(from_, 0)
        return replace(wanted, from_ms=begin - begin % step, to_ms=begin - begin % step + length)
    return None


def _moved(found: Asked, by_ms: int) -> list[dict[str, Any]]:
    """Points at the times of the question that they are compared with; `of_ms` is their own."""
    return [{"start_ms": point["start_ms"] + by_ms, "of_ms": point["start_ms"]}
            | {name: value for name, value in point.items() if name != "start_ms"} for point in found.points]


async def _wholes(request: Request, wanted: Question, other: Question) -> dict[str, Any]:
    """Both periods or versions as one point each, and how far apart they are."""
    state = request.app.state
    try:
        sides = [await everything(history_of(request), state.hot, _sizes_ms(state.settings, one.level), one)
                 for one in (wanted, other)]
    except QuestionError as error:
        raise unclear_question(error) from None
    mine, theirs = (compare.whole(parts, one) for parts, one in zip(sides, (wanted, other), strict=True))
    return {"asked_total": mine, "compared_total": theirs, "difference": compare.difference(mine, theirs),
            "ks_distance": compare.distances(*sides)}


def _table(wanted: Question, found: Asked, compared: Asked | None, format_: str) -> Response:
    field = wanted.fields[0] if len(wanted.fields) == 1 else ""
    rows = table.flat(found.points, field) if compared is None else [
        *table.flat(found.points, field, side="asked"), *table.flat(compared.points, field, side="compared")]
    following = {} if found.next_from_ms is None else {NEXT_FROM: str(found.next_from_ms)}
    if format_ == "csv":
        return Response(table.to_csv(rows), media_type=table.CSV_TYPE, headers=following | {
            "Content-Disposition": 'attachment; filename="metrics.csv"'})
    return Response(table.to_arrow(rows, (*GROUPS, "side")), media_type=table.ARROW_TYPE, headers=following | {
        "Content-Disposition": 'attachment; filename="metrics.arrows"'})


@router.get("/series")
async def series(request: Request, environment: Environment = "", model: Model = "",
                 granularity_ms: int | None = None,
                 since: Annotated[Instant, Query(description="Also series of the history since then")] = "",
                 limit: Limit = 100) -> list[dict[str, Any]]:
    """Series by name: of each, when its windows begin and end, its sizes and fields; of those in the hot view (an hour)
    the newest closed window (of a minute, unless a granularity is said) a partition, and the newest anomaly."""
    state = request.app.state
    known_sizes: tuple[int, ...] = state.settings.granularities_ms
    try:
        size, _ = question.granularity(known_sizes, MINUTE_MS, 1, granularity_ms)
    except QuestionError as error:
        raise unclear_question(error) from None
    hot = [tuple(name.split("|")) for name in await state.hot.series()]
    try:
        old = await stored.catalogue(history_of(request), environment, model, instant(since, now_ms() - HOUR_MS))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, HTTPException):
        if since:
            raise
        old = {}        # the hot view answers without the history
    chosen = sorted({row for row in [*hot, *old] if environment in ("", row[0]) and model in ("", row[1])})[:limit]
    newest = await state.hot.newest(["|".join(row) for row in chosen], size)
    return [dict(zip(KEYS, row, strict=True)) | old.get(row, stored.UNKNOWN)
            | {"fields": sorted({name for window in found["windows"] for name in window["fields"]})} | found
            for row, found in zip(chosen, newest, strict=True)]
