"""REST for alert rules: read them, replace them as a whole, and try one against history before it is in force."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from agents.alerts import ruleset
from agents.alerts.rehearsal import rehearse
from agents.alerts.ruleset import Rule, RuleSet
from dashboards.api.auth import needs
from dashboards.api.life import allowed, command, send
from dashboards.api.queries import history_of
from dashboards.api.tokens import Grant
from schemas.anomalies import Anomaly
from schemas.base import TimestampMs
from schemas.drift import DriftEvent
from streams.windows.packed import unpacked
from streams.windows.record import WindowRecord, read_window

WEEK_MS = 7 * 24 * 3_600_000
#: Windows, and events of each kind, that one dry run reads.
MOST = 200_000
SHOWN = 200
router = APIRouter(prefix="/api/rules", tags=["rules"])
_trying = asyncio.Lock()
Reader = Annotated[Grant, Depends(needs("read"))]
Admin = Annotated[Grant, Depends(needs("admin"))]


class Replacement(BaseModel):
    """All rules from now on. `version` is the one that was read: somebody else's change is not lost."""

    rules: list[Any] = Field(max_length=ruleset.MAX_RULES)
    version: int = Field(ge=0)


class Trial(BaseModel):
    """A rule, and the time that it is tried on: by default the last week."""

    rule: Rule
    from_ms: TimestampMs | None = None
    to_ms: TimestampMs | None = None
    granularity_ms: int | None = Field(default=None, description="Of the windows read; default: the coarsest")


@router.get("")
async def rules(request: Request, grant: Reader) -> dict[str, Any]:
    """The rules that were set here, and their version. Those of STREAMGAUGE_RULES_FILE come on top of them."""
    version, body = await request.app.state.hot.rules()
    return {"version": version, "rules": json.loads(body)["rules"] if body else []}


@router.put("", status_code=202)
async def replace(request: Request, wanted: Replacement, grant: Admin) -> dict[str, Any]:
    """Put rules in force, all or none. Workers have them within a second; incidents of rules that are gone end."""
    try:
        found = await asyncio.to_thread(ruleset.read, json.dumps({"rules": wanted.rules}))
    except ValueError as error:
        raise HTTPException(422, {"code": "bad_rules", "message": str(error)[:2_000]}) from None
    version, _ = await request.app.state.hot.rules()
    if wanted.version != version:
        raise HTTPException(409, {"code": "changed_meanwhile", "message":
                                  f"the rules have version {version} by now: read them again, then repeat the change"})
    body = found.model_dump_json()
    said = await send(request, command(grant, "rules", rules=body, version=version + 1))
    return said | {"version": version + 1}


@router.post("/dry-run")
async def dry_run(request: Request, trial: Trial, grant: Reader) -> dict[str, Any]:
    """What the rule would have done: how often it would have fired, when, for whom, for how long. Nothing is sent."""
    if grant.environments:
        allowed(grant, trial.rule.environment)
    reader = history_of(request)
    settings = request.app.state.settings
    size, to_ms = trial.granularity_ms or settings.granularities_ms[-1], trial.to_ms or time.time_ns() // 1_000_000
    if size not in settings.granularities_ms:
        raise HTTPException(422, {"code": "no_such_granularity", "message":
                                  f"granularity_ms is one of {', '.join(map(str, settings.granularities_ms))}"})
    span = (trial.from_ms if trial.from_ms is not None else max(0, to_ms - WEEK_MS), to_ms)
    about = trial.rule.environment, trial.rule.model
    windows = await reader.stretch(*about, size, span, MOST + 1)
    anomalies = await reader.bodies("anomalies", *about, span, MOST + 1) if trial.rule.kind == "anomaly_rate" else []
    drifts = await reader.bodies("drift_events", *about, span, MOST + 1) if trial.rule.kind == "drift" else []
    if max(len(windows), len(anomalies), len(drifts)) > MOST:
        raise HTTPException(422, {"code": "too_much", "message": f"more than {MOST:,} windows or events: name a model, "
                                                                 "or take a shorter time"})
    async with _trying:             # one at a time: sockets share the process
        return await asyncio.to_thread(_tried, trial.rule, windows, anomalies, drifts, size, span)


def _tried(rule: Any, rows: list[dict[str, Any]], anomalies: list[str], drifts: list[str], size: int,
           span: tuple[int, int]) -> dict[str, Any]:
    told = rehearse(RuleSet(rules=(rule,)), [_window(row) for row in rows],
                    [Anomaly.model_validate_json(body) for body in anomalies],
                    [DriftEvent.model_validate_json(body) for body in drifts], size, span[1])
    ends = {alert.incident_id: alert.ts for alert in told if alert.state == "resolved"}
    opened = [alert for alert in told if alert.state == "open"]
    return {"rule": rule.name, "from_ms": span[0], "to_ms": span[1], "windows": len(rows), "fired": len(opened),
            "models": sorted({f"{alert.environment}/{alert.model}" for alert in opened}),
            "incidents": [{"environment": alert.environment, "model": alert.model, "component": alert.component,
                           "severity": alert.severity, "title": alert.title, "opened_ms": alert.opened_ms,
                           "resolved_ms": ends.get(alert.incident_id)} for alert in opened[:SHOWN]]}


def _window(row: dict[str, Any]) -> WindowRecord:
    names = ("window_id", "start_ms", "size_ms", "environment", "model", "version", "component", "partition", "count",
             "errors", "revision")
    head = json.dumps({name: row[name] for name in names} | {"closed_ms": row["start_ms"] + row["size_ms"]})
    return read_window(f'{head[:-1]}, "fields": {unpacked(row["fields"])}}}'.encode())
