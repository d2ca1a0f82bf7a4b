"""REST: what happened, to whom, when. Every route needs the token; every list is newest first unless it says so."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from redis.exceptions import RedisError

from dashboards.api.asking.question import granularity
from dashboards.api.auth import required
from dashboards.api.history import Cursor, Wanted, decoded
from dashboards.api.queries import (
    DAY_MS,
    FAULTS,
    Environment,
    Instant,
    Limit,
    Model,
    history_of,
    instant,
    now_ms,
    unclear,
)
from dashboards.api.subscriber import place
from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.base import MAX_TIMESTAMP_MS
from schemas.drift import DriftEvent, RetrainingRequest

NEXT = "X-Next-Cursor"
#: Totals are of windows so fine at least that they begin within this share of the span.
MODEL_POINTS = 24
router = APIRouter(prefix="/api", dependencies=[required], responses=FAULTS)

Severity = Annotated[Literal["", "info", "warning", "critical"], Query(description="Only this severity")]


def _shape(kind: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": list[kind], "description": "A list"}}


def wanted(environment: Environment = "", model: Model = "", before: Instant = "",
           cursor: Annotated[str, Query(description=f"The header {NEXT} of the page before")] = "",
           limit: Limit = 100) -> Wanted:
    """The query of every paged list."""
    try:
        after = decoded(cursor) if cursor else None
    except ValueError:
        raise unclear("bad_cursor", f"cursor is the header {NEXT} of the page before") from None
    return Wanted(environment, model, instant(before, MAX_TIMESTAMP_MS), after, limit)


Paged = Annotated[Wanted, Depends(wanted)]


def _json(bodies: Iterable[str], following: Cursor | None = None) -> Response:
    return Response(f"[{','.join(bodies)}]", media_type="application/json",
                    headers={NEXT: following.encoded()} if following else {})


async def _page(request: Request, table: str, found: Wanted) -> Response:
    return _json(*await history_of(request).page(table, found))


async def _open(request: Request) -> list[dict[str, Any]]:
    """Open incidents as sockets see them; from the history while Redis is away."""
    try:
        found: list[dict[str, Any]] = await request.app.state.hot.open_alerts()
    except (RedisError, OSError):
        found = [json.loads(body) for body in await history_of(request).incidents("open", "", "", "", 1_000)]
    return sorted(found, key=lambda alert: -int(alert["opened_ms"]))


@router.get("/overview")
async def overview(request: Request, since: Instant = "") -> dict[str, Any]:
    """Open incidents, models, and how much happened since an instant (default: a day ago)."""
    history, since_ms = history_of(request), instant(since, now_ms() - DAY_MS)
    return {"since_ms": since_ms, "open_incidents": await _open(request), "counts": await history.counts(since_ms),
            "models": await _models(request, since_ms)}


@router.get("/models")
async def models(request: Request, since: Instant = "") -> list[dict[str, Any]]:
    """Models that sent something since an instant (default: a day ago), with versions and totals; by name."""
    return await _models(request, instant(since, now_ms() - DAY_MS))


async def _models(request: Request, since_ms: int) -> list[dict[str, Any]]:
    sizes = request.app.state.settings.granularities_ms
    size, _ = granularity(sizes, max(1, now_ms() - since_ms), MODEL_POINTS)
    return await history_of(request).models(size, since_ms)


@router.get("/incidents", responses=_shape(Alert))
async def incidents(request: Request, state: Literal["", "open", "resolved"] = "", environment: Environment = "",
                    model: Model = "", severity: Severity = "", limit: Limit = 100) -> Response:
    """Incidents by their newest transition. Open ones come from Redis, as sockets see them."""
    if state == "open":
        chosen = [alert for alert in await _open(request) if environment in ("", alert["environment"])
                  and model in ("", alert["model"]) and severity in ("", alert["severity"])]
        return _json(json.dumps(alert) for alert in chosen[:limit])
    return _json(await history_of(request).incidents(state, environment, model, severity, limit))


@router.get("/incidents/{incident_id}", responses=_shape(Alert) | {404: {"description": "No such incident"}})
async def incident(request: Request, incident_id: str, environment: Environment = "") -> Response:
    """Every transition of one incident, oldest first."""
    found = await history_of(request).incident(incident_id)
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
        raise unclear("bad_id", str(error)) from None
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
