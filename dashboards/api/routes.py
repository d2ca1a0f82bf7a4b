"""REST: what happened, to whom, when. Every route needs the token."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request

from dashboards.api.auth import required
from dashboards.api.history import HistoryReader
from schemas.base import MAX_TIMESTAMP_MS, instant_ms

router = APIRouter(prefix="/api", dependencies=[required])
Environment = Annotated[str, Query(description="Only this environment")]
Model = Annotated[str, Query(description="Only this model")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many")]
Before = Annotated[str, Query(description="Before this instant: epoch milliseconds, or ISO 8601 with a zone")]
DAY_MS = 86_400_000


def _history(request: Request) -> HistoryReader:
    reader: HistoryReader | None = request.app.state.history
    if reader is None:
        raise HTTPException(503, {"code": "database_away", "message": "PostgreSQL does not answer; try again soon"})
    return reader


def _instant(text: str, default: int) -> int:
    if not text:
        return default
    try:
        found = int(text) if text.lstrip("-").isdigit() else int(instant_ms(text))
    except ValueError as error:
        raise HTTPException(422, {"code": "bad_instant", "message": str(error)}) from None
    if not 0 <= found <= MAX_TIMESTAMP_MS:
        raise HTTPException(422, {"code": "bad_instant", "message": "the instant is out of range"})
    return found


@router.get("/overview")
async def overview(request: Request) -> dict[str, Any]:
    """Open incidents, models of the last day, series in the hot view."""
    hot = request.app.state.hot
    found = await hot.client.hgetall(hot.open_incidents)
    models = await _history(request).models(request.app.state.settings.granularities_ms[-1],
                                            int(time.time() * 1000) - DAY_MS)
    return {"open_incidents": [json.loads(body) for body in found.values()], "models": models,
            "series": len(await hot.series())}


@router.get("/models")
async def models(request: Request, since: Before = "") -> list[dict[str, Any]]:
    """Models that sent something since an instant (default: a day ago), with versions and totals."""
    since_ms = _instant(since, int(time.time() * 1000) - DAY_MS)
    return await _history(request).models(request.app.state.settings.granularities_ms[-1], since_ms)


@router.get("/series")
async def series(request: Request) -> dict[str, int]:
    """environment|model|version|component -> start of its newest closed window."""
    found: dict[str, int] = await request.app.state.hot.series()
    return found


@router.get("/incidents")
async def incidents(request: Request, state: Annotated[str, Query(pattern="^(open|resolved|)$")] = "",
                    environment: Environment = "", model: Model = "", severity: str = "",
                    limit: Limit = 100) -> list[dict[str, Any]]:
    """Incidents by their newest transition, newest first. Open ones come from Redis, as sockets see them."""
    if state == "open":
        hot = request.app.state.hot
        found = [json.loads(body) for body in (await hot.client.hgetall(hot.open_incidents)).values()]
        chosen = [alert for alert in found if environment in ("", alert["environment"])
                  and model in ("", alert["model"]) and severity in ("", alert["severity"])]
        return sorted(chosen, key=lambda alert: -int(alert["opened_ms"]))[:limit]
    return await _history(request).incidents(state, environment, model, severity, limit)


@router.get("/incidents/{incident_id}")
async def incident(request: Request, incident_id: str) -> list[dict[str, Any]]:
    """Every transition of one incident, oldest first."""
    found = await _history(request).incident(incident_id)
    if not found:
        raise HTTPException(404, {"code": "no_such_incident", "message": f"no incident {incident_id}"})
    return found


@router.get("/alerts")
async def alerts(request: Request, environment: Environment = "", model: Model = "", before: Before = "",
                 limit: Limit = 100) -> list[dict[str, Any]]:
    """Alert transitions, newest first."""
    return await _bodies(request, "alerts", environment, model, before, limit)


@router.get("/anomalies")
async def anomalies(request: Request, environment: Environment = "", model: Model = "", before: Before = "",
                    limit: Limit = 100) -> list[dict[str, Any]]:
    """Anomalous events, newest first."""
    return await _bodies(request, "anomalies", environment, model, before, limit)


@router.get("/drift")
async def drift(request: Request, environment: Environment = "", model: Model = "", before: Before = "",
                limit: Limit = 100) -> list[dict[str, Any]]:
    """Drift events, newest first."""
    return await _bodies(request, "drift_events", environment, model, before, limit)


@router.get("/retraining-requests")
async def retraining(request: Request, environment: Environment = "", model: Model = "", before: Before = "",
                     limit: Limit = 100) -> list[dict[str, Any]]:
    """Retraining requests, newest first."""
    return await _bodies(request, "retraining_requests", environment, model, before, limit)


@router.get("/metrics")
async def windows(request: Request, environment: str, model: str, granularity_ms: int | None = None,
                  from_: Annotated[str, Query(alias="from", description="Default: an hour before `to`")] = "",
                  to: Annotated[str, Query(description="Default: now")] = "", version: str = "", component: str = "",
                  field: Annotated[str, Query(description="Only this field, as latency_ms or feature.age")] = "",
                  limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000) -> dict[str, Any]:
    """Closed windows of a model, with mean, spread and quantiles of each field."""
    known = request.app.state.settings.granularities_ms
    size = granularity_ms or known[-1]
    if size not in known:
        raise HTTPException(422, {"code": "no_such_granularity", "message": f"granularities are {list(known)} ms"})
    to_ms = _instant(to, int(time.time() * 1000))
    from_ms = _instant(from_, max(0, to_ms - 3_600_000))
    found = await _history(request).windows(environment, model, size, from_ms, to_ms, version, component, field,
                                            limit)
    return {"environment": environment, "model": model, "granularity_ms": size, "from_ms": from_ms, "to_ms": to_ms,
            "windows": found}


async def _bodies(request: Request, table: str, environment: str, model: str, before: str,
                  limit: int) -> list[dict[str, Any]]:
    return await _history(request).bodies(table, environment, model, _instant(before, MAX_TIMESTAMP_MS), limit)
