"""`streamgauge rules`: alert rules, through the gateway; `check` needs none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.alerts import ruleset
from infra.cli.alerts import URL, AsJson, Token, Url, ask, checked, fail, find_token
from infra.cli.duration import parse_ms
from schemas.base import iso

app = typer.Typer(help="Alert rules: anomaly rates, drift, objectives, silence, and conditions in CEL.",
                  no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="JSON: {\"rules\": [...]}.", exists=True, dir_okay=False)]
FAILED = 1


@app.command()
def check(file: File) -> None:
    """Say whether the rules of a file are right."""
    typer.echo(f"{len(_read(file).rules)} rules, all right.")


@app.command()
def show(url: Url = URL, token: Token = "") -> None:
    """Print the rules that were set through the gateway, as JSON that `apply` takes."""
    typer.echo(json.dumps(ask(checked(url), "/api/rules", find_token(token)), indent=1))


@app.command("apply")
def apply(file: File, url: Url = URL, token: Token = "") -> None:
    """Put the rules of a file in force, in place of all that were set before."""
    wanted = json.loads(_read(file).model_dump_json())
    have = ask(checked(url), "/api/rules", find_token(token))
    found = ask(checked(url), "/api/rules", find_token(token), method="PUT",
                body={"rules": wanted["rules"], "version": have["version"]})
    typer.echo(f"{len(wanted['rules'])} rules are version {found['version']}.")


@app.command("try")
def dry_run(file: File, last: Annotated[str, typer.Option(help="How far back: 1d, 7d.")] = "7d",
            name: Annotated[str, typer.Option(help="Only this rule.")] = "", url: Url = URL, token: Token = "",
            as_json: AsJson = False) -> None:
    """Say how often each rule of a file would have fired, over what is kept."""
    now = time.time_ns() // 1_000_000
    chosen = [rule for rule in _read(file).rules if name in ("", rule.name)]
    found = [ask(checked(url), "/api/rules/dry-run", find_token(token), method="POST",
                 body={"rule": json.loads(rule.model_dump_json()), "from_ms": now - parse_ms(last), "to_ms": now})
             for rule in chosen]
    if as_json:
        for one in found:
            typer.echo(json.dumps(one))
        return
    for one in found:
        _print(one, last)


def _print(found: dict[str, Any], last: str) -> None:
    times = "once" if found["fired"] == 1 else f"{found['fired']} times"
    table = Table(title=f"{found['rule']} would have fired {times} in the last {last} ({found['windows']:,} windows)")
    for column in ("from", "to", "severity", "where", "what"):
        table.add_column(column, overflow="fold")
    for one in found["incidents"]:
        table.add_row(iso(one["opened_ms"]), iso(one["resolved_ms"]) if one["resolved_ms"] else "still open",
                      one["severity"], f"{one['environment']}/{one['model']}", escape(one["title"]))
    Console(highlight=False).print(table)


def _read(file: Path) -> ruleset.RuleSet:
    try:
        return ruleset.read(file.read_bytes())
    except ValueError as error:
        fail(str(error), FAILED)
