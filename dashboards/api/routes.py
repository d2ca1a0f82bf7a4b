"""REST: what happened, to whom, when. Every route needs the token; every list is newest first unless it says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from redis.exceptions import RedisError

from dashboards.api import windows as summaries
from dashboards.api.auth import required
from dashboards.api.history import Cursor, HistoryReader, Wanted, decoded
from dashboards.api.subscriber import place
from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.base import MAX_TIMESTAMP_MS, instant_ms
from schemas.drift import DriftEvent, RetrainingRequest

DAY_MS = 86_400_000
NEXT = "X-Next-Cursor"
_FAULT = {"content": {"application/json": {"example": {"code": "unauthorized", "message": "what to do"}}}}
router = APIRouter(prefix="/api", dependencies=[required], responses={
    401: {"description": "The token is missing or wrong", **_FAULT},
    422: {"description": "The question makes no sense", **_FAULT},
    503: {"description": "A store is away", **_FAULT}})

Environment = Annotated[str, Query(description="Only this environment")]
Model = Annotated[str, Query(description="Only this model")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many")]
Instant = Annotated[str, Query(description="Epoch milliseconds, or ISO 8601 with a zone")]
Severity = Annotated[Literal["", "info", "warning", "critical"], Query(description="Only this severity")]


def _shape(kind: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": list[kind], "description": "A list"}}


def _history(request: Request) -> HistoryReader:
    reader: HistoryReader | None = request.app.state.history
    if reader is None:
        raise HTTPException(503, {"code": "database_away", "message": "PostgreSQL does not answer; try again soon"})
    return reader


def _unclear(code: str, message: str) -> HTTPException:
    return HTTPException(422, {"code": code, "message": message})


def _instant(text: str, default: int) -> int:
    if not text:
        return default
    try:
        found = int(text) if text.lstrip("-").isdecimal() else int(instant_ms(text))
    except (ValueError, OverflowError):
        raise _unclear("bad_instant", "an instant is epoch milliseconds, or ISO 8601 with a zone: "
                                      "2026-05-01T10:00:00Z (a + must be sent as %2B)") from None
    if not 0 <= found <= MAX_TIMESTAMP_MS:
        raise _unclear("bad_instant", "the instant lies outside 1970 to 3000: milliseconds, not microseconds?")
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def wanted(environment: Environment = "", model: Model = "", before: Instant = "",
           cursor: Annotated[str, Query(description=f"The header {NEXT} of the page before")] = "",
           limit: Limit = 100) -> Wanted:
    """The query of every paged list."""
    try:
        after = decoded(cursor) if cursor else None
    except ValueError:
        raise _unclear("bad_cursor", f"cursor is the header {NEXT} of the page before") from None
    return Wanted(environment, model, _instant(before, MAX_TIMESTAMP_MS), after, limit)


Paged = Annotated[Wanted, Depends(wanted)]


def _json(bodies: Iterable[str], following: Cursor | None = None) -> Response:
    return Response(f"[{','.join(bodies)}]", media_type="application/json",
                    headers={NEXT: following.encoded()} if following else {})


async def _page(request: Request, table: str, found: Wanted) -> Response:
    return _json(*await _history(request).page(table, found))


async def _open(request: Request) -> list[dict[str, Any]]:
    """Open incidents as sockets see them; from the history while Redis is away."""
    try:
        found: list[dict[str, Any]] = await request.app.state.hot.open_alerts()
    except (RedisError, OSError):
        found = [json.loads(body) for body in await _history(request).incidents("open", "", "", "", 1_000)]
    return sorted(found, key=lambda alert: -int(alert["opened_ms"]))


@router.get("/overview")
async def overview(request: Request, since: Instant = "") -> dict[str, Any]:
    """Open incidents, models, and how much happened since an instant (default: a day ago)."""
    history, since_ms = _history(request), _instant(since, _now_ms() - DAY_MS)
    return {"since_ms": since_ms, "open_incidents": await _open(request), "counts": await history.counts(since_ms),
            "models": await history.models(request.app.state.settings.granularities_ms[-1], since_ms)}


@router.get("/models")
async def models(request: Request, since: Instant = "") -> list[dict[str, Any]]:
    """Models that sent something since an instant (default: a day ago), with versions and totals; by name."""
    since_ms = _instant(since, _now_ms() - DAY_MS)
    return await _history(request).models(request.app.state.settings.granularities_ms[-1], since_ms)


@router.get("/series")
async def series(request: Request, environment: Environment = "", model: Model = "", granularity_ms: int | None = None,
                 limit: Limit = 100) -> list[dict[str, Any]]:
    """The hot view, by name: of each series the newest closed window a partition, and the newest anomaly."""
    hot, size = request.app.state.hot, _granularity(request, granularity_ms)
    named = [(name, *name.split("|")) for name in await hot.series()]
    chosen = [row for row in named if environment in ("", row[1]) and model in ("", row[2])][:limit]
    newest = await hot.newest([row[0] for row in chosen], size)
    return [{"environment": env, "model": name, "version": version, "component": component, **found}
            for (_, env, name, version, component), found in zip(chosen, newest, strict=True)]


@router.get("/incidents", responses=_shape(Alert))
async def incidents(request: Request, state: Literal["", "open", "resolved"] = "", environment: Environment = "",
                    model: Model = "", severity: Severity = "", limit: Limit = 100) -> Response:
    """Incidents by their newest transition. Open ones come from Redis, as sockets see them."""
    if state == "open":
        chosen = [alert for alert in await _open(request) if environment in ("", alert["environment"])
                  and model in ("", alert["model"]) and severity in ("", alert["severity"])]
        return _json(json.dumps(alert) for alert in chosen[:limit])
    return _json(await _history(request).incidents(state, environment, model, severity, limit))


@router.get("/incidents/{incident_id}", responses=_shape(Alert) | {404: {"description": "No such incident"}})
async def incident(request: Request, incident_id: str, environment: Environment = "") -> Response:
    """Every transition of one incident, oldest first."""
    found = await _history(request).incident(incident_id)
    found = [body for body in found if environment in ("", json.loads(body)["environment"])]
    if not found:
        raise HTTPException(404, {"code": "no_such_incident", "message":
                                  f"no incident {incident_id[:128]}; GET /api/incidents lists them"})
    return _json(found)


@router.get("/alerts", responses=_shape(Alert))
async def alerts(request: Request, found: Paged) -> Response:
    """Alert transitions."""
    return await _page(request, "alerts", found)


@router.get("/alerts/stream")
async def stream(request: Request,
                 from_id: Annotated[str, Query(description="First id, as `missed` has it; 0: the oldest")] = "0",
                 to_id: Annotated[str, Query(description="Last id; empty: the newest")] = "",
                 environment: Environment = "", limit: Limit = 500) -> dict[str, Any]:
    """Alerts of the stream that sockets read, by their ids there, oldest first. For what a socket missed."""
    try:
        first, last = place(from_id), place(to_id) if to_id else None
    except ValueError as error:
        raise _unclear("bad_id", str(error)) from None
    before = first._replace(number=first.number - 1) if first.number else first._replace(
        ms=max(0, first.ms - 1), number=(1 << 64) - 1 if first.ms else 0)
    page = await request.app.state.feeds["alert"].between(before, last, limit)
    return {"alerts": [{"id": str(item.place), "alert": json.loads(item.text)["alert"]} for item in page.items
                       if environment in ("", item.body["environment"])],
            "trimmed": page.oldest is not None and (last is None or first < page.oldest)}


@router.get("/anomalies", responses=_shape(Anomaly))
async def anomalies(request: Request, found: Paged) -> Response:
    """Anomalous events."""
    return await _page(request, "anomalies", found)


@router.get("/drift", responses=_shape(DriftEvent))
async def drift(request: Request, found: Paged) -> Response:
    """Drift events."""
    return await _page(request, "drift_events", found)


@router.get("/retraining-requests", responses=_shape(RetrainingRequest))
async def retraining(request: Request, found: Paged) -> Response:
    """Retraining requests."""
    return await _page(request, "retraining_requests", found)


def _granularity(request: Request, asked: int | None) -> int:
    known: tuple[int, ...] = request.app.state.settings.granularities_ms
    if asked is not None and asked not in known:
        raise _unclear("no_such_granularity", f"granularity_ms is one of {', '.join(map(str, known))}")
    return asked or known[-1]


@router.get("/metrics")
async def metrics(request: Request, environment: Annotated[str, Query(min_length=1)],
                  model: Annotated[str, Query(min_length=1)], granularity_ms: int | None = None,
                  from_: Annotated[str, Query(alias="from", description="Default: an hour before `to`")] = "",
                  to: Annotated[str, Query(description="Default: now")] = "", version: str = "", component: str = "",
                  field: Annotated[str, Query(description="Only this field, as latency_ms or feature.age")] = "",
                  limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000) -> dict[str, Any]:
    """Closed windows of a model in time order, with mean, spread and quantiles. More: ask again from `next_from_ms`."""
    size, to_ms = _granularity(request, granularity_ms), _instant(to, _now_ms())
    from_ms = _instant(from_, max(0, to_ms - 3_600_000))
    rows = await _history(request).windows(environment, model, size, (from_ms, to_ms), version, component, field,
                                           limit + 1)
    found = summaries.series(rows, field)
    kept, following = _whole_starts(found, limit)
    return {"environment": environment, "model": model, "granularity_ms": size, "from_ms": from_ms, "to_ms": to_ms,
            "field": field or None, "windows": kept, "next_from_ms": following}


def _whole_starts(found: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """At most `limit` windows, and where to go on; a start is kept or left as a whole, unless it alone is too many."""
    if len(found) <= limit:
        return found, None
    cut = int(found[limit]["start_ms"])
    kept = [window for window in found[:limit] if window["start_ms"] < cut]
    return (kept, cut) if kept else (found[:limit], cut + 1)
