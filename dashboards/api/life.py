"""REST for people who answer an alert: acknowledge, note, silence. Each is a command; the agent answers by an alert."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from dashboards.api import metrics
from dashboards.api.auth import needs
from dashboards.api.commands import CommandsAwayError, new_id
from dashboards.api.tokens import Grant
from schemas.alerts import AlertCommand, Pattern, Silence
from schemas.base import MAX_TEXT

LONGEST_SILENCE_S = 30 * 24 * 3600
router = APIRouter(prefix="/api", tags=["incidents"])
Reader = Annotated[Grant, Depends(needs("read"))]
Answerer = Annotated[Grant, Depends(needs("acknowledge"))]
Environment = Annotated[str, Query(description="Only this environment")]
IncidentId = Annotated[str, InPath(max_length=128)]


class Said(BaseModel):
    """Words that go with it."""

    text: str = Field(default="", max_length=MAX_TEXT)


class Wish(BaseModel):
    """A silence that is asked for: whom it is about (a name, the beginning of one and `*`, or any), and how long."""

    environment: Pattern = ""
    model: Pattern = ""
    component: Pattern = ""
    cause: Pattern = ""
    seconds: int = Field(ge=1, le=LONGEST_SILENCE_S, description="From now on")
    reason: str = Field(min_length=1, max_length=MAX_TEXT)


async def send(request: Request, command: AlertCommand, partition: int | None = None) -> dict[str, str]:
    """Onto the topic; what the caller is told."""
    try:
        await request.app.state.commands.send(command, partition)
    except CommandsAwayError as error:
        raise HTTPException(503, {"code": "commands_away", "message": str(error)}) from None
    return {"command_id": command.command_id}


def command(grant: Grant, action: str, **more: Any) -> AlertCommand:
    """A command by the holder of that token, now."""
    return AlertCommand.model_validate(
        {"command_id": new_id(), "ts": time.time_ns() // 1_000_000, "actor": grant.name, "action": action} | more)


def allowed(grant: Grant, environment: str) -> None:
    """Refuse what is about an environment that the token does not see.

    Raises:
        HTTPException: 403.
    """
    if grant.environments and not grant.sees(environment):
        metrics.REFUSED.labels("environment").inc()
        raise HTTPException(403, {"code": "environment_denied", "message":
                                  f"the token {grant.name} sees {', '.join(grant.environments)} only"})


async def _about(request: Request, grant: Grant, incident_id: str, action: str, text: str) -> dict[str, str]:
    found = await request.app.state.hot.open_alert(incident_id)
    if found is None:
        raise HTTPException(404, {"code": "no_open_incident", "message":
                                  f"no incident {incident_id} is open; GET /api/incidents?state=open lists them"})
    allowed(grant, found["environment"])
    about = {name: found[name] for name in ("environment", "model", "incident_id")}
    return await send(request, command(grant, action, text=text, **about), int(found.get("partition", 0)))


@router.post("/incidents/{incident_id}/acknowledge", status_code=202)
async def acknowledge(request: Request, incident_id: IncidentId, grant: Answerer, said: Said | None = None
                      ) -> dict[str, str]:
    """Say that somebody looks after it, so that it does not escalate; the alert `acknowledged` says that it is so."""
    return await _about(request, grant, incident_id, "acknowledge", said.text if said else "")


@router.post("/incidents/{incident_id}/notes", status_code=202)
async def note(request: Request, incident_id: IncidentId, said: Said, grant: Answerer) -> dict[str, str]:
    """Write a note to an open incident; it comes as the alert `noted`."""
    if not said.text.strip():
        raise HTTPException(422, {"code": "no_text", "message": "a note has a text"})
    return await _about(request, grant, incident_id, "note", said.text)


@router.get("/groups")
async def groups(request: Request, grant: Reader, environment: Environment = "") -> list[dict[str, Any]]:
    """Open incidents by cause: one upstream fault that hits five models is one group of five. The largest first."""
    hot = request.app.state.hot
    group_of = await hot.groups()
    found: dict[str, list[dict[str, Any]]] = {}
    for alert in sorted(await hot.open_alerts(), key=lambda alert: int(alert["onset_ms"])):
        if environment in ("", alert["environment"]):
            found.setdefault(group_of.get(alert["incident_id"], alert["incident_id"]), []).append(alert)
    return [{"group": name, "size": len(alerts), "onset_ms": alerts[0]["onset_ms"], "title": alerts[0]["title"],
             "models": sorted({f"{alert['environment']}/{alert['model']}" for alert in alerts}), "incidents": alerts}
            for name, alerts in sorted(found.items(), key=lambda item: (-len(item[1]), item[1][0]["onset_ms"]))]


@router.get("/silences")
async def silences(request: Request, grant: Reader, environment: Environment = "") -> list[dict[str, Any]]:
    """Silences that have neither ended nor expired, those that end first first."""
    now = time.time_ns() // 1_000_000
    found = [one for one in await request.app.state.hot.silences() if one["until_ms"] > now
             and (not environment or one["environment"] in ("", environment))]
    return sorted(found, key=lambda one: int(one["until_ms"]))


@router.post("/silences", status_code=202)
async def silence(request: Request, wish: Wish, grant: Answerer) -> dict[str, str]:
    """Tell nobody of matching incidents for a while. They are kept, marked `silenced_by`, and their sockets may ask."""
    allowed(grant, wish.environment)
    now = time.time_ns() // 1_000_000
    wanted = Silence(silence_id=new_id(), from_ms=now, until_ms=now + 1000 * wish.seconds, actor=grant.name,
                     **wish.model_dump(exclude={"seconds"}))
    return await send(request, command(grant, "silence", silence=json.loads(wanted.model_dump_json()))) | {
        "silence_id": wanted.silence_id}


@router.delete("/silences/{silence_id}", status_code=202)
async def unsilence(request: Request, silence_id: Annotated[str, InPath(max_length=128)], grant: Answerer
                    ) -> dict[str, str]:
    """End a silence before its time."""
    found = next((one for one in await request.app.state.hot.silences() if one["silence_id"] == silence_id), None)
    if found is None:
        raise HTTPException(404, {"code": "no_such_silence", "message": "GET /api/silences lists them"})
    allowed(grant, found["environment"])
    return await send(request, command(grant, "unsilence", text=silence_id))
