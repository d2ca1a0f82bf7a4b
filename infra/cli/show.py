"""`streamgauge settings` and `streamgauge version`."""

from __future__ import annotations

import json
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from streams.settings import PREFIX, Settings, settings


def settings_table(
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a setting.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from its default.")] = False,
) -> None:
    """List every setting: its variable, value, default, and what it means with its unit. Secrets are masked.

    Settings come from the environment alone, read once when a process starts.
    """
    from rich.console import Console
    from rich.table import Table
    table = Table("variable", "value", "default", "meaning", show_lines=False, header_style="bold", box=None)
    for name, field in Settings.model_fields.items():
        value, default = text_of(getattr(settings(), name)), text_of(field.default)
        if changed and value == default:
            continue
        row = (f"{PREFIX}{name.upper()}", value, default, field.description or "")
        if as_json:
            typer.echo(json.dumps(dict(zip(("variable", "value", "default", "meaning"), row, strict=True))))
        table.add_row(*row, style="bold" if value != default else None)
    if not as_json:
        console = Console()
        console = console if console.is_terminal else Console(width=200)
        console.print(table, markup=False)


def text_of(value: Any) -> str:
    """A value as it is written in the environment; a secret as stars."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def version() -> None:
    """Print the version."""
    typer.echo(installed("streamgauge"))
