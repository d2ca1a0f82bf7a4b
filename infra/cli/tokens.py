"""`streamgauge tokens`: further tokens of the gateway, in a file that all gateways read; it holds digests only."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dashboards.api.tokens import Grant, Scope, made, read, write
from infra.cli.duration import parse_ms
from schemas.base import iso
from streams.settings import settings

app = typer.Typer(help="Tokens with scopes, environments and an end. The file: STREAMGAUGE_TOKENS_FILE, else "
                       "tokens.json in the data folder.", no_args_is_help=True)
File = Annotated[Path | None, typer.Option("--file", help="Default: the setting's.", show_default=False)]
FAILED = 1


@app.command()
def create(name: Annotated[str, typer.Argument(help="Whose it is; alerts say who acknowledged them by it.")],
           scope: Annotated[Scope, typer.Option(help="What it may: read; acknowledge (and note, silence); admin (and "
                                                     "rules).")] = "read",
           environment: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
           days: Annotated[str, typer.Option("--for", help="Until when: 12h, 30d; empty: for ever.")] = "",
           max_sockets: Annotated[int, typer.Option(min=1, help="Sockets open at once, a gateway.")] = 100,
           file: File = None) -> None:
    """Make a token and print it: it is shown this once."""
    path = file or settings().tokens_path
    grants = read(path)
    if any(grant.name == name for grant in grants):
        typer.echo(f"There is a token {name} already: revoke it first, or take another name.", err=True)
        raise typer.Exit(FAILED)
    expires = time.time_ns() // 1_000_000 + parse_ms(days) if days else 0
    token, grant = made(Grant(name=name, scopes=(scope,), environments=tuple(environment or ()), expires_ms=expires,
                              max_sockets=max_sockets))
    write(path, [*grants, grant])
    typer.echo(token)


@app.command("list")
def list_tokens(file: File = None, as_json: Annotated[bool, typer.Option("--json", help="One line of JSON each.")] =
                False) -> None:
    """Show who has a token, and what it may."""
    grants = read(file or settings().tokens_path)
    if as_json:
        for grant in grants:
            typer.echo(json.dumps(grant.model_dump(mode="json", exclude={"sha256"})))
        return
    table = Table(title=f"{len(grants)} token{'' if len(grants) == 1 else 's'}")
    for column in ("name", "scope", "environments", "until", "sockets"):
        table.add_column(column)
    for grant in grants:
        table.add_row(grant.name, ", ".join(grant.scopes), ", ".join(grant.environments) or "all",
                      iso(grant.expires_ms) if grant.expires_ms else "for ever", str(grant.max_sockets))
    Console(highlight=False).print(table)


@app.command()
def revoke(name: str, file: File = None) -> None:
    """Withdraw a token; open sockets end at their next heartbeat."""
    path = file or settings().tokens_path
    grants = read(path)
    left = [grant for grant in grants if grant.name != name]
    if len(left) == len(grants):
        typer.echo(f"There is no token {name}: `streamgauge tokens list` shows them.", err=True)
        raise typer.Exit(FAILED)
    write(path, left)
