"""`streamgauge schemas`: JSON Schema of every topic, and one AsyncAPI document of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.settings import Settings
from streams.topics import TOPICS, TopicRow

ASYNCAPI = "asyncapi.json"


def documents() -> dict[str, str]:
    """File name -> text, for every topic and for AsyncAPI."""
    found = {f"{row.name}.schema.json": _text(_schema(row)) for row in TOPICS}
    return found | {ASYNCAPI: _text(_asyncapi())}


def command(folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path("schemas-out"),
            check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file differs.")] = False
            ) -> None:
    """Write the contracts: JSON Schema per topic, and one AsyncAPI document."""
    wrong = [name for name, text in documents().items()
             if not (folder / name).exists() or (folder / name).read_text() != text]
    if check:
        if wrong:
            typer.echo(f"differs from the contracts: {', '.join(wrong)}; run `streamgauge schemas {folder}`", err=True)
            raise typer.Exit(1)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text)
    typer.echo(f"{len(documents())} files in {folder}")


def _schema(row: TopicRow) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **row.schema.model_json_schema()}


def _asyncapi() -> dict[str, Any]:
    partitions = Settings.model_fields["partitions"].default
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Streamgauge", "version": "1", "license": {"name": "Apache-2.0"},
                 "description": "Topics of Streamgauge. Values are JSON; a telemetry record holds an event or an array."},
        "defaultContentType": "application/json",
        "channels": {row.name: {
            "address": row.name, "description": row.help,
            "messages": {row.schema.__name__: {"$ref": f"#/components/messages/{row.schema.__name__}"}},
            "bindings": {"kafka": {"partitions": partitions, "topicConfiguration": {
                "cleanup.policy": row.cleanup.split(","), "retention.ms": row.retention_ms}}}} for row in TOPICS},
        "operations": {f"{'receive' if row.owner == 'producers' else 'send'}.{row.name}": {
            "action": "receive" if row.owner == "producers" else "send",
            "channel": {"$ref": f"#/channels/{row.name}"}} for row in TOPICS},
        "components": {"messages": {row.schema.__name__: {
            "name": row.schema.__name__, "summary": row.help,
            "bindings": {"kafka": {"key": {"type": "string", "description": row.key}}},
            "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12",
                        "schema": row.schema.model_json_schema()}} for row in TOPICS}},
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
