"""`streamgauge alerts`: follow alerts on a terminal, list what is open. A client of the gateway like any other."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.base import iso

app = typer.Typer(help="Follow alerts, and list open incidents, through the gateway.", no_args_is_help=True)
console = Console(highlight=False)
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
MARKS = {"open": "●", "escalated": "▲", "resolved": "✔"}
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
AWAY, WRONG = 3, 1
REFUSALS = {4401: "The gateway refuses the token.",
            4400: "The gateway refuses the question: look at --since and --severity."}

Url = Annotated[str, typer.Option(help="Address of the gateway.", envvar="STREAMGAUGE_GATEWAY_URL")]
Token = Annotated[str, typer.Option(help="Token of the API. Default: STREAMGAUGE_API_TOKEN, else the file token in "
                                         "the data folder.", show_default=False)]
Environment = Annotated[str, typer.Option(help="Only this environment.")]
Model = Annotated[str, typer.Option(help="Only this model.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON an alert.")]


class Refused(Exception):
    """The gateway will not have us; trying again will not help."""


URL = f"http://127.0.0.1:{os.environ.get('STREAMGAUGE_PORT', '8700')}"


def find_token(given: str) -> str:
    """The token from the option, the environment, or the data folder's file."""
    from streams.settings import settings
    found = given or settings().api_token.get_secret_value()
    path = Path(settings().data_dir) / "token"
    if not found and path.exists():
        found = path.read_text().strip()
    if not found:
        _fail(f"No token: give --token, set STREAMGAUGE_API_TOKEN, or run where {path} is.", WRONG)
    return found


@app.command()
def tail(url: Url = URL, token: Token = "", environment: Environment = "", model: Model = "",
         severity: Annotated[str, typer.Option(help="At least: info, warning or critical.")] = "info",
         since: Annotated[str, typer.Option(help="Resume after this id; 0, the default, begins with the oldest "
                                                 "that is kept.")] = "0",
         as_json: AsJson = False,
         count: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: never.")] = 0) -> None:
    """Print alerts as they come; reconnects and resumes where it was. Ctrl-C ends it."""
    query = {"environment": environment, "model": model, "severity": severity, "last_id": since}
    try:
        asyncio.run(_tail(url, find_token(token), query, as_json, count))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except Refused as error:
        _fail(str(error), WRONG)


@app.command("list")
def list_open(url: Url = URL, token: Token = "", environment: Environment = "", model: Model = "",
              as_json: AsJson = False) -> None:
    """Show open incidents."""
    import urllib.error
    import urllib.request
    query = urlencode({"state": "open", "environment": environment, "model": model})
    request = urllib.request.Request(f"{url}/api/incidents?{query}",  # noqa: S310  (the user's own address)
                                     headers={"Authorization": f"Bearer {find_token(token)}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)
    except urllib.error.HTTPError as error:
        _fail("The gateway refuses the token." if error.code == 401 else f"The gateway answered {error.code}.", WRONG)
    except OSError:
        _fail(f"No gateway answers at {url}; start one with `make run`, or give --url.", AWAY)
    if as_json:
        for alert in found:
            typer.echo(json.dumps(alert))
        return
    table = Table(title=f"{len(found)} open incidents")
    for column in ("since", "severity", "cause", "what"):
        table.add_column(column)
    for alert in found:
        table.add_row(iso(alert["opened_ms"]), f"[{COLOURS[alert['severity']]}]{alert['severity']}[/]", alert["cause"],
                      escape(alert["title"]))
    console.print(table)


async def _tail(url: str, token: str, query: dict[str, str], as_json: bool, count: int) -> None:
    wait, told, left = FIRST_WAIT_S, False, count or -1
    while left:
        try:
            left = await _listen(url, token, query, as_json, left)
            wait, told = FIRST_WAIT_S, False
        except (OSError, TimeoutError):
            if not told:
                console.print(f"[dim]No gateway answers at {url} yet; waiting. `make run` starts one.[/]")
                told = True
        if left:
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)


async def _listen(url: str, token: str, query: dict[str, str], as_json: bool, left: int) -> int:
    """Print what one connection brings until it closes; how many alerts are left to show.

    Raises:
        Refused: the gateway closed because of the token or the query.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake
    address = f"{url.replace('http', 'ws', 1)}/ws/alerts?{urlencode(query)}"
    try:
        async with connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "alert":
                    query["last_id"] = message["id"]
                left -= _show(message, as_json)
                if not left:
                    return 0
    except InvalidHandshake as error:
        raise OSError(str(error)) from error
    except ConnectionClosed:
        pass
    if socket.close_code in REFUSALS:
        raise Refused(REFUSALS[socket.close_code])
    return left


def _show(message: dict[str, Any], as_json: bool) -> bool:
    """Print a message; True if it was an alert."""
    if message["type"] == "missed":
        console.print(f"[red]missed alerts ({message['reason']}): see GET /api/alerts[/]")
    if message["type"] != "alert":
        return False
    alert = message["alert"]
    if as_json:
        typer.echo(json.dumps({"id": message["id"], **alert}))
        return True
    colour = "green" if alert["state"] == "resolved" else COLOURS[alert["severity"]]
    clock = time.strftime("%H:%M:%S", time.localtime(alert["ts"] / 1000))
    console.print(f"{clock} [{colour}]{MARKS[alert['state']]} {alert['state']:<9} {alert['cause']:<13}[/] "
                  f"{escape(alert['title'])}")
    if alert["state"] != "resolved" and alert["detail"]:
        console.print(f"         [dim]{escape(alert['detail'])}[/]")
    return True


def _fail(text: str, code: int) -> Any:
    typer.echo(text, err=True)
    raise typer.Exit(code)
