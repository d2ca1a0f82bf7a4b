"""`streamgauge`: everything from the shell.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a service is away.
A command's module is imported when the command is called, so that help comes at once and a missing optional package
concerns only the command that needs it.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

FAILED, USAGE, AWAY = 1, 2, 3
#: Packages whose errors mean that a service is away.
CLIENTS = {"aiokafka", "redis", "asyncpg"}


@dataclass(frozen=True, slots=True)
class Room:
    """Where a command lives: a function, or a typer.Typer with commands of its own."""

    module: str
    attribute: str
    help: str
    #: Uses the services of a running `streamgauge up` where the settings name none.
    joins: bool = False


ROOMS = {
    "up": Room("infra.cli.up", "command", "Start everything on this machine, and show it live until Ctrl-C."),
    "demo": Room("infra.cli.demo", "command", "Run a fleet of real models that publish telemetry, with scripted "
                                              "incidents.", True),
    "alerts": Room("infra.cli.life", "app", "Follow alerts, list open incidents, answer and silence them.", True),
    "rules": Room("infra.cli.rules", "app", "Show, replace and try out alert rules.", True),
    "tokens": Room("infra.cli.tokens", "app", "Make, list and withdraw tokens of the gateway."),
    "replay": Room("infra.cli.replay", "command", "Publish your own CSV, NDJSON or Parquet files as telemetry.", True),
    "profile": Room("infra.cli.profile", "command", "Make a version's profile from what it was trained on.", True),
    "detect": Room("infra.cli.detect", "command", "Find the anomalies in a file, and plot them."),
    "rejected": Room("infra.cli.rejected", "app", "See what was refused and why, mend it, send it again.", True),
    "worker": Room("infra.cli.serve", "worker", "Run a worker: all agents on its share of the partitions.", True),
    "gateway": Room("infra.cli.serve", "gateway", "Run the gateway: REST, WebSocket and the start page.", True),
    "setup": Room("infra.cli.serve", "setup", "Create the topics, and bring the database to this release's shape.",
                  True),
    "topics": Room("infra.cli.topics", "app", "List, create and describe the topics.", True),
    "schemas": Room("infra.cli.schemas", "command", "Write the contracts: JSON Schema per topic, and AsyncAPI."),
    "settings": Room("infra.cli.show", "settings_table", "List every setting: variable, unit, default, value."),
    "version": Room("infra.cli.show", "version", "Print the version."),
}


class Rooms(TyperGroup):
    """The commands of ROOMS, each imported when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(ROOMS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in ROOMS:
            return None
        if ctx.meta.get("listing"):
            return TyperCommand(cmd_name, help=ROOMS[cmd_name].help)
        return _load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta["listing"] = True
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        room = ROOMS.get(args[0]) if args else None
        if room is not None and room.joins and not {"--help", "--score"} & set(args):
            from infra.cli.running import join
            join()
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    found = getattr(import_module(ROOMS[name].module), ROOMS[name].attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(found)
        return typer.main.get_command(single)
    group: Any = typer.main.get_group(found)
    group.name = name
    return group


app = typer.Typer(cls=Rooms, no_args_is_help=True, pretty_exceptions_enable=False,
                  epilog="Settings come from the environment: `streamgauge settings` lists them. "
                         "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a service is away.")


def _print_version(wanted: bool) -> None:
    if wanted:
        _load("version").main([], standalone_mode=False)
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version,
                                               help="Print the version.")] = False) -> None:
    """Watch machine-learning models in production: telemetry in from Kafka; anomalies, windows, drift and alerts out.

    `streamgauge up` runs all of it on this machine; `streamgauge alerts tail` follows the alerts.
    """


def main() -> None:
    """The entry point: one sentence for an error, a traceback only with STREAMGAUGE_LOG_LEVEL=debug."""
    debug = os.environ.get("STREAMGAUGE_LOG_LEVEL") == "debug"
    if not debug:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)    # what it warns of comes as an error too
    try:
        app()
    except Exception as error:
        if debug:
            raise
        print(sentence(error), file=sys.stderr)
        sys.exit(exit_code(error))


def sentence(error: Exception) -> str:
    """What went wrong and what to do, on one line."""
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"][:1]).upper()
        return f"STREAMGAUGE_{name}: {first['msg']}; `streamgauge settings` lists what may be set."
    if isinstance(error, ModuleNotFoundError):
        from infra.embedded.process import INSTALL
        return f"The package {error.name} is not installed: {INSTALL}."
    text = " ".join(str(error).split()) or type(error).__name__
    if getattr(error, "code", None) is None and exit_code(error) == AWAY:
        return f"A service does not answer ({text}): start it, or correct its STREAMGAUGE_*_URL."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if getattr(error, "code", None) is None:
        return f"{type(error).__name__}: {text} (STREAMGAUGE_LOG_LEVEL=debug shows where)."
    return text


def exit_code(error: Exception) -> int:
    """2: the settings are wrong; 3: a service is away; 1: anything else."""
    if (type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic")) \
            or getattr(error, "code", None) == "wrong_setting":
        return USAGE
    away = (isinstance(error, ConnectionError | TimeoutError) or type(error).__name__ == "gaierror"
            or type(error).__module__.split(".")[0] in CLIENTS
            or getattr(error, "code", None) in ("kafka_setup", "service_away", "publish"))
    return AWAY if away else FAILED


if __name__ == "__main__":
    main()
