"""`streamgauge alerts`: follow alerts on a terminal, list what is open. A client of the gateway like any other.

Exit codes: 0 done, 1 refused (token, question), 2 wrong usage, 3 no gateway answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn
from urllib.parse import urlencode, urlsplit

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.base import iso

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

app = typer.Typer(help="Follow alerts, list open incidents, and answer them, through the gateway.",
                  no_args_is_help=True)
console = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
MARKS = {"open": "●", "escalated": "▲", "acknowledged": "◉", "noted": "✎", "resolved": "✔"}
FIRST_WAIT_S, LONGEST_WAIT_S, OPEN_S = 0.5, 10.0, 10.0
REFUSED, USAGE, AWAY = 1, 2, 3
#: A gateway that says nothing for so many heartbeats is gone.
SILENT_HEARTBEATS = 3
URL = f"http://127.0.0.1:{os.environ.get('STREAMGAUGE_PORT', '8700')}"
REFUSES = ("The gateway refuses the token: give --token, set STREAMGAUGE_API_TOKEN, or run in the folder whose "
           ".streamgauge/token is the gateway's.")

Url = Annotated[str, typer.Option(help="Address of the gateway.", envvar="STREAMGAUGE_GATEWAY_URL")]
Token = Annotated[str, typer.Option(help="Token of the API. Default: STREAMGAUGE_API_TOKEN, else the file token in "
                                         "the data folder.", show_default=False)]
Environment = Annotated[str, typer.Option(help="Only this environment.", show_default=False)]
Model = Annotated[str, typer.Option(help="Only this model.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON an alert.")]
Message = dict[str, Any]


class RefusedError(Exception):
    """The gateway will not have us; trying again will not help."""


@app.command()
def tail(url: Url = URL, token: Token = "", environment: Environment = "", model: Model = "",
         severity: Annotated[Literal["info", "warning", "critical"], typer.Option(help="At least.")] = "info",
         since: Annotated[str, typer.Option(help="Resume after this id; 0 begins with the oldest that is kept, "
                                                 "`now` with the next one.")] = "0",
         leads: Annotated[bool, typer.Option("--leads", help="Of incidents of one cause, only the first.")] = False,
         silenced: Annotated[bool, typer.Option("--silenced", help="Also what falls under a silence.")] = False,
         as_json: AsJson = False,
         count: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: never.")] = 0,
         wait: Annotated[bool, typer.Option(help="Wait for a gateway that does not answer yet.")] = True) -> None:
    """Print alerts as they come; reconnects and resumes where it was. Ctrl-C ends it."""
    query = {"environment": environment, "model": model, "severity": severity, "leads": str(leads).lower(),
             "silenced": str(silenced).lower()} | (
        {} if since == "now" else {"last_id": since})
    tailing = Tail(checked(url), find_token(token), query, as_json, count, wait)
    try:
        asyncio.run(tailing.run())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:             # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except RefusedError as error:
        fail(str(error), REFUSED)
    except OSError:
        fail(_nobody(url), AWAY)


@app.command("list")
def list_open(url: Url = URL, token: Token = "", environment: Environment = "", model: Model = "",
              as_json: AsJson = False) -> None:
    """Show open incidents."""
    query = urlencode({"state": "open", "environment": environment, "model": model, "limit": 1000})
    found = ask(checked(url), f"/api/incidents?{query}", find_token(token))
    if as_json:
        for alert in found:
            typer.echo(json.dumps(alert))
        return
    table = Table(title=f"{len(found)} open incident{'' if len(found) == 1 else 's'}")
    for column in ("since", "severity", "where", "cause", "what"):
        table.add_column(column, overflow="fold")
    for alert in found:
        table.add_row(iso(alert["opened_ms"]), f"[{COLOURS[alert['severity']]}]{alert['severity']}[/]",
                      escape(f"{alert['environment']}/{alert['model']}"), alert["cause"], escape(alert["title"]))
    Console(highlight=False).print(table)


def find_token(given: str) -> str:
    """The token from the option, the environment, or the data folder's file."""
    from streams.settings import settings
    path = Path(settings().data_dir) / "token"
    found = given or settings().api_token.get_secret_value().strip()
    if not found and path.exists():
        found = path.read_text(encoding="utf-8").strip()
    if not found:
        fail(f"No token: give --token, set STREAMGAUGE_API_TOKEN, or run where {path} is.", REFUSED)
    return found


def checked(url: str) -> str:
    """The gateway's address without a slash at its end, or exit 2."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        fail(f"{url!r} is no address of a gateway: give --url as http://HOST:PORT.", USAGE)
    return url.rstrip("/")


class Tail:
    """One following of the alerts, over as many connections as it takes."""

    def __init__(self, url: str, token: str, query: dict[str, str], as_json: bool, count: int, wait: bool) -> None:
        self.url = url
        self.token = token
        self.query = query
        self.as_json = as_json
        self.left = count or -1
        self.wait = wait
        self._silent_s: float | None = None
        self._pause_s = FIRST_WAIT_S
        self._told = False

    async def run(self) -> None:
        """Until as many alerts as asked for were printed.

        Raises:
            RefusedError: the gateway refuses the token or the question.
            OSError: nobody answers, and we are not to wait.
        """
        while self.left:
            try:
                await self._listen()
            except BrokenPipeError:
                raise
            except OSError:
                if not self.wait:
                    raise
                self._tell(f"{_nobody(self.url)[:-1]}; waiting.")
            if self.left:
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, LONGEST_WAIT_S)

    async def _listen(self) -> None:
        """Print what one connection brings until it closes."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
        address = f"{self.url.replace('http', 'ws', 1)}/ws/alerts?{urlencode(self.query)}"
        try:
            async with connect(address, additional_headers={"Authorization": f"Bearer {self.token}"}, max_size=None,
                               open_timeout=OPEN_S, proxy=None if _is_local(self.url) else True) as socket:
                await self._converse(socket)
        except InvalidStatus as error:
            self._refused(error.response.status_code, error.response.body or b"")
        except (InvalidHandshake, InvalidMessage) as error:
            raise ConnectionError(str(error)) from error

    async def _converse(self, socket: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed
        try:
            while self.left:
                self._take(json.loads(await asyncio.wait_for(socket.recv(), self._silent_s)))
        except (ConnectionClosed, TimeoutError):
            self._tell("The gateway closed the connection; coming back.")

    def _refused(self, status: int, body: bytes | bytearray) -> None:
        if status == 401:
            raise RefusedError(REFUSES)
        if status >= 500:
            raise ConnectionError(f"status {status}")
        try:
            said = json.loads(body)["message"]
        except (ValueError, KeyError, TypeError):
            raise RefusedError(f"{self.url} answers {status}: is that a Streamgauge gateway?") from None
        raise RefusedError(f"The gateway refuses: {said}.")

    def _take(self, message: Message) -> None:
        if message["type"] == "hello":
            self._silent_s = SILENT_HEARTBEATS * message["heartbeat_ms"] / 1000
            self._pause_s, self._told = FIRST_WAIT_S, False
            self.query.setdefault("last_id", message["last_id"])
        elif message["type"] == "heartbeat":
            self.query["last_id"] = message["last_id"] or self.query.get("last_id", "0")
        elif message["type"] == "missed":
            many = "some" if message["count"] is None else message["count"]
            notes.print(f"[red]Missed {many} alerts ({message['reason']}), {message['from_id']} to {message['to_id']}: "
                        "GET /api/alerts has them.[/]")
        elif message["type"] == "alert":
            show(message, self.as_json)
            self.query["last_id"] = message["id"]
            self.left -= 1

    def _tell(self, text: str) -> None:
        if not self._told:
            notes.print(f"[dim]{escape(text)}[/]")
        self._told = True


def show(message: Message, as_json: bool) -> None:
    """Print an alert: one line, and its detail while it is not over."""
    alert = message["alert"]
    if as_json:
        typer.echo(json.dumps({"id": message["id"], **alert}))
        return
    colour = "green" if alert["state"] == "resolved" else COLOURS[alert["severity"]]
    moment = time.localtime(alert["ts"] / 1000)
    today = moment[:3] == time.localtime()[:3]
    clock = time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", moment)
    console.print(f"{clock} [{colour}]{MARKS.get(alert['state'], '·')} {alert['state']:<9} {alert['cause']:<12}[/] "
                  f"{escape(alert['title'])}")
    if alert.get("actor"):
        console.print(f"         by {escape(alert['actor'])}{': ' if alert['note'] else ''}{escape(alert['note'])}")
    elif alert["state"] != "resolved" and alert["detail"]:
        console.print(f"         [dim]{escape(alert['detail'])}[/]")


def ask(url: str, path: str, token: str, method: str = "GET", body: Any = None) -> Any:
    """The gateway's answer; exits with what it says if it refuses, or if nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} | ({} if body is None else {"Content-Type": "application/json"})
    request = urllib.request.Request(url + path, None if body is None else json.dumps(body).encode(),  # noqa: S310
                                     headers, method=method)
    proxies = [urllib.request.ProxyHandler({})] if _is_local(url) else []
    try:
        with urllib.request.build_opener(*proxies).open(request, timeout=OPEN_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 401:
            fail(REFUSES, REFUSED)
        said = _said(error)
        if said:
            fail(f"The gateway refuses: {said}.", AWAY if error.code >= 500 else REFUSED)
        fail(f"{url} answers {error.code}: look at {url}/readyz.", AWAY if error.code >= 500 else REFUSED)
    except OSError:
        fail(_nobody(url), AWAY)
    except ValueError:
        fail(f"{url} does not answer as a Streamgauge gateway does; correct --url.", REFUSED)


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _nobody(url: str) -> str:
    return f"No gateway answers at {url}: start one with `streamgauge up`, or give --url."


def fail(text: str, code: int) -> NoReturn:
    """Say it, and exit."""
    typer.echo(text, err=True)
    raise typer.Exit(code)
