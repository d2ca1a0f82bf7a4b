"""`streamgauge topics`: what there is, making it, and what the broker has of it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.kafka import KafkaSetupError, create_topics
from streams.settings import settings
from streams.topics import DAY_MS, TOPICS, TopicRow

app = typer.Typer(help="List, create and describe the topics.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON each.")]


@app.command("list")
def list_topics(as_json: AsJson = False) -> None:
    """Show every topic as declared: key, contract, how long it is kept, who writes it. Asks no broker."""
    if as_json:
        for row in TOPICS:
            typer.echo(json.dumps(declared(row)))
        return
    table = Table("topic", "key", "contract", "kept", "cleanup", "written by", "what", header_style="bold", box=None)
    for row in TOPICS:
        table.add_row(settings().topic(row.name), row.key, row.schema.__name__, f"{row.retention_ms // DAY_MS} d",
                      row.cleanup, row.owner, row.help)
    _print(table)


@app.command()
def create() -> None:
    """Create the topics that do not exist yet. Safe to repeat."""
    made = asyncio.run(create_topics(settings()))
    typer.echo(f"Created: {', '.join(made)}." if made else "All topics exist.")


@app.command()
def describe(name: Annotated[str, typer.Argument(help="Topic, with or without the prefix; default: all.")] = "",
             as_json: AsJson = False) -> None:
    """Show what the broker has: records by partition, from which offset to which."""
    rows = [row for row in TOPICS if name in ("", row.name, settings().topic(row.name))]
    if not rows:
        raise typer.BadParameter(f"{name} is none of ours; they are {', '.join(row.name for row in TOPICS)}")
    found = asyncio.run(_offsets([settings().topic(row.name) for row in rows]))
    if as_json:
        for row in found:
            typer.echo(json.dumps(row))
        return
    table = Table("topic", "partition", "first offset", "next offset", "records", header_style="bold", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found:
        table.add_row(row["topic"], str(row["partition"]), f"{row['first']:,}", f"{row['next']:,}",
                      f"{row['next'] - row['first']:,}")
    _print(table)


def declared(row: TopicRow) -> dict[str, Any]:
    """A topic as declared and configured."""
    return {"name": settings().topic(row.name), "key": row.key, "contract": row.schema.__name__,
            "partitions": settings().partitions, "replication": settings().replication,
            "retention_ms": row.retention_ms, "cleanup": row.cleanup, "owner": row.owner, "help": row.help}


async def _offsets(names: list[str]) -> list[dict[str, Any]]:
    """First and next offset of each partition.

    Raises:
        KafkaSetupError: a topic does not exist.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from streams.kafka import client_options, end_offsets
    consumer = AIOKafkaConsumer(**client_options(settings()), enable_auto_commit=False)
    await consumer.start()
    try:
        existing = await consumer.topics()
        missing = [name for name in names if name not in existing]
        if missing:
            raise KafkaSetupError(f"the broker has no topic {', '.join(missing)}: run `streamgauge topics create`")
        tps = [TopicPartition(name, number) for name in names
               for number in sorted(consumer.partitions_for_topic(name) or range(settings().partitions))]
        first = await consumer.beginning_offsets(tps)
    finally:
        await consumer.stop()
    ends = await end_offsets(client_options(settings()), tps)
    return [{"topic": tp.topic, "partition": tp.partition, "first": first[tp], "next": max(ends[tp], first[tp])}
            for tp in tps]


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table, markup=False)
