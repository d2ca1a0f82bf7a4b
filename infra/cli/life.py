"""`streamgauge alerts ack | note | silence | silences | unsilence | groups`: people's answers, through the gateway."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.alerts import URL, AsJson, Environment, Token, Url, app, ask, checked, find_token
from infra.cli.duration import parse_ms
from schemas.base import iso

IncidentId = Annotated[str, typer.Argument(help="As `streamgauge alerts list --json` has it: incident_id.")]
Text = Annotated[str, typer.Option(help="Words that go with it.", show_default=False)]


@app.command("ack")
def acknowledge(incident_id: IncidentId, text: Text = "", url: Url = URL, token: Token = "") -> None:
    """Say that you look after an incident: it stops escalating, and everybody sees by whom."""
    _send(url, token, f"/api/incidents/{incident_id}/acknowledge", {"text": text})


@app.command()
def note(incident_id: IncidentId, text: Annotated[str, typer.Argument(help="What others should know.")],
         url: Url = URL, token: Token = "") -> None:
    """Write a note to an open incident."""
    _send(url, token, f"/api/incidents/{incident_id}/notes", {"text": text})


@app.command()
def silence(reason: Annotated[str, typer.Argument(help="Why; everybody sees it.")],
            duration: Annotated[str, typer.Option("--for", help="How long: 30m, 2h.")] = "1h",
            environment: Environment = "", model: Annotated[str, typer.Option(help="A name, or fra*.")] = "",
            component: str = "", cause: str = "", url: Url = URL, token: Token = "") -> None:
    """Tell nobody of matching incidents for a while; they are kept, and marked."""
    found = _send(url, token, "/api/silences", {
        "environment": environment, "model": model, "component": component, "cause": cause, "reason": reason,
        "seconds": parse_ms(duration) // 1000})
    typer.echo(found["silence_id"])


@app.command()
def unsilence(silence_id: str, url: Url = URL, token: Token = "") -> None:
    """End a silence before its time."""
    ask(checked(url), f"/api/silences/{silence_id}", find_token(token), method="DELETE")


@app.command()
def silences(url: Url = URL, token: Token = "", as_json: AsJson = False) -> None:
    """Show silences that hold."""
    found = ask(checked(url), "/api/silences", find_token(token))
    _shown(found, as_json, f"{len(found)} silence{'' if len(found) == 1 else 's'}", {
        "id": lambda one: one["silence_id"], "until": lambda one: iso(one["until_ms"]),
        "about": lambda one: " ".join(f"{name}={one[name]}" for name in ("environment", "model", "component", "cause")
                                      if one[name]) or "everything",
        "by": lambda one: one["actor"], "reason": lambda one: one["reason"]})


@app.command()
def groups(url: Url = URL, token: Token = "", as_json: AsJson = False) -> None:
    """Show open incidents by cause."""
    found = ask(checked(url), "/api/groups", find_token(token))
    _shown(found, as_json, f"{len(found)} group{'' if len(found) == 1 else 's'} of open incidents", {
        "since": lambda one: iso(one["onset_ms"]), "incidents": lambda one: str(one["size"]),
        "models": lambda one: ", ".join(one["models"]), "what": lambda one: one["title"]})


def _send(url: str, token: str, path: str, body: dict[str, Any]) -> Any:
    return ask(checked(url), path, find_token(token), method="POST", body=body)


def _shown(found: list[dict[str, Any]], as_json: bool, title: str, columns: dict[str, Any]) -> None:
    if as_json:
        for one in found:
            typer.echo(json.dumps(one))
        return
    table = Table(title=title)
    for name in columns:
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(*(escape(value(one)) for value in columns.values()))
    Console(highlight=False).print(table)
