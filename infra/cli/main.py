"""`streamgauge`: everything from the shell.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a service is away.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from pydantic import ValidationError

from infra.cli import alerts, demo, rejected, replay, schemas, topics

FAILED, USAGE, AWAY = 1, 2, 3
app = typer.Typer(help="Watches machine-learning models in production: telemetry from Kafka in, anomalies, windows, "
                       "drift and alerts out.", no_args_is_help=True, pretty_exceptions_enable=False,
                  epilog="Settings come from the environment: `streamgauge settings` lists them. "
                         "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a service is away.")
app.add_typer(alerts.app, name="alerts")
app.add_typer(rejected.app, name="rejected")
app.add_typer(topics.app, name="topics")
app.command("demo")(demo.command)
app.command("replay")(replay.command)
app.command("schemas")(schemas.command)


@app.command()
def up(workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
       demo: Annotated[bool, typer.Option(help="Run the demo fleet.")] = True,
       rate: Annotated[float, typer.Option(min=1, help="Events a second of the demo fleet.")] = 120.0) -> None:
    """Start everything on this machine, and show it live until Ctrl-C.

    Services that STREAMGAUGE_KAFKA_URL, STREAMGAUGE_REDIS_URL and STREAMGAUGE_DATABASE_URL do not name are embedded.
    """
    from infra.cli.up import run
    from streams.settings import settings
    raise typer.Exit(run(settings(), workers, rate if demo else None))


@app.command()
def worker() -> None:
    """Run a worker: all agents on its share of the partitions. Ends with SIGTERM or Ctrl-C."""
    from agents.worker import run
    from streams.settings import settings
    run(settings())


@app.command()
def gateway() -> None:
    """Run the gateway: REST, WebSocket and the start page. Ends with SIGTERM or Ctrl-C."""
    from dashboards.api.server import serve
    from streams.settings import settings
    serve(settings())


@app.command()
def setup() -> None:
    """Create the topics and bring the database to this release's shape. Safe to repeat."""
    import asyncio

    from infra.migrations import FOLDER
    from streams.kafka import create_topics
    from streams.settings import settings
    from streams.stores.postgres import migrate
    made = asyncio.run(create_topics(settings()))
    applied = asyncio.run(migrate(settings(), FOLDER)) if settings().database_url.get_secret_value() else []
    typer.echo(f"topics created: {', '.join(made) or 'none'}; migrations applied: {', '.join(applied) or 'none'}")


@app.command("settings")
def show_settings() -> None:
    """List every setting: its variable, value, default and meaning. Secrets are masked."""
    from rich.console import Console
    from rich.table import Table

    from streams.settings import PREFIX, Settings, settings
    table = Table("variable", "value", "default", "meaning", title="Settings")
    for name, field in Settings.model_fields.items():
        table.add_row(f"{PREFIX}{name.upper()}", str(getattr(settings(), name)), str(field.default),
                      field.description or "")
    Console().print(table)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("streamgauge"))


def main() -> None:
    """The entry point: one sentence for an error that people can do something about, a traceback only at debug."""
    try:
        app()
    except Exception as error:
        if os.environ.get("STREAMGAUGE_LOG_LEVEL") == "debug":
            raise
        typer.echo(_sentence(error), err=True)
        sys.exit(_code(error))


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        return f"STREAMGAUGE_{name}: {first['msg']}; `streamgauge settings` lists what may be set."
    if isinstance(error, ModuleNotFoundError):
        return f"The package {error.name} is not installed: pip install 'streamgauge[embedded]'."
    return str(error) or type(error).__name__


def _code(error: Exception) -> int:
    if isinstance(error, ValidationError):
        return USAGE
    away = isinstance(error, OSError) or getattr(error, "code", "") in ("kafka_setup",)
    return AWAY if away else FAILED


if __name__ == "__main__":
    main()
