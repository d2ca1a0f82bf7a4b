"""`streamgauge topics`: what there is, and making it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.kafka import create_topics
from streams.settings import settings
from streams.topics import DAY_MS, TOPICS

app = typer.Typer(help="Show the topics, or create them.", no_args_is_help=True)


@app.command("list")
def list_topics(as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a topic.")] = False) -> None:
    """Show every topic: key, contract, retention, who writes it."""
    table = Table("topic", "key", "contract", "kept", "cleanup", "written by", "what")
    for row in TOPICS:
        name, days = settings().topic(row.name), row.retention_ms // DAY_MS
        if as_json:
            typer.echo(json.dumps({"name": name, "key": row.key, "contract": row.schema.__name__,
                                   "partitions": settings().partitions, "retention_ms": row.retention_ms,
                                   "cleanup": row.cleanup, "owner": row.owner}))
        table.add_row(name, row.key, row.schema.__name__, f"{days} days", row.cleanup, row.owner, row.help)
    if not as_json:
        Console().print(table)


@app.command()
def create() -> None:
    """Create the topics that do not exist yet."""
    made = asyncio.run(create_topics(settings()))
    typer.echo(f"created: {', '.join(made)}" if made else "all topics exist")
