"""`streamgauge schemas`: JSON Schema of every topic's records, and AsyncAPI 3.0 of all topics and of the sockets.

The documents come from the contracts and `streams.topics` alone, so they are the same on every machine and can be kept
under version control; `--check` says whether they still agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.json_schema import models_json_schema

from infra.cli import schemas_sockets
from streams.settings import Settings
from streams.topics import FEEDBACK, TELEMETRY, TOPICS, TopicRow

ASYNCAPI = "asyncapi.json"
GATEWAY = "gateway-asyncapi.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_FOLDER = Path("streamgauge-schemas")
_REFERENCE = "#/components/schemas/{model}"


def command(folder: Annotated[Path, typer.Argument(help="Folder to write to, or with --check to compare.")]
            = DEFAULT_FOLDER,
            check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is missing or differs "
                                                                "from the contracts.")] = False) -> None:
    """Write the contracts: JSON Schema per topic (TOPIC.schema.json), asyncapi.json of all topics, and
    gateway-asyncapi.json of the gateway's WebSockets.

    Generate classes or validators for any language from them.
    """
    if check:
        wrong = differing(folder)
        if wrong:
            typer.echo(f"{folder}: {', '.join(wrong)} differ from the contracts; run `streamgauge schemas {folder}`.",
                       err=True)
            raise typer.Exit(1)
        typer.echo(f"{folder} agrees with the contracts.")
        return
    found = documents()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")
    typer.echo(f"Wrote {len(found)} files to {folder}.")


def documents() -> dict[str, str]:
    """File name -> text."""
    found = {f"{row.name}.schema.json": _text(_topic_schema(row)) for row in TOPICS}
    return found | {ASYNCAPI: _text(_asyncapi()), GATEWAY: _text(schemas_sockets.asyncapi())}


def differing(folder: Path) -> list[str]:
    """Names of files that are missing, stale or no longer made."""
    found = documents()
    kept = {path.name for path in folder.glob("*.json")} if folder.is_dir() else set()
    stale = {name for name, text in found.items()
             if name not in kept or (folder / name).read_text(encoding="utf-8") != text}
    return sorted(stale | (kept - set(found)))


def _topic_schema(row: TopicRow) -> dict[str, Any]:
    """What a record of the topic may be."""
    own = row.schema.model_json_schema(mode="validation")
    if row is not TELEMETRY:
        return {"$schema": DIALECT, **own}
    defs = own.pop("$defs", {})
    return {"$schema": DIALECT, "title": "TelemetryRecord", "description": "One event, or an array of events",
            **_one_or_many(f"#/$defs/{row.schema.__name__}"), "$defs": {**defs, row.schema.__name__: own}}


def _one_or_many(reference: str) -> dict[str, Any]:
    most = Settings.model_fields["max_events_per_record"].default
    return {"oneOf": [{"$ref": reference}, {"type": "array", "items": {"$ref": reference}, "maxItems": most}]}


def _asyncapi() -> dict[str, Any]:
    names, defs = models_json_schema([(row.schema, "validation") for row in TOPICS], ref_template=_REFERENCE)
    references = {row.name: names[(row.schema, "validation")]["$ref"] for row in TOPICS}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Streamgauge", "version": "1", "license": {"name": "Apache-2.0"},
                 "description": "Telemetry of machine-learning models in; anomalies, windows, drift and alerts out. "
                                "Values are JSON. Readers ignore fields they do not know; a change that old readers "
                                "would misread raises schema_version."},
        "defaultContentType": "application/json",
        "channels": {row.name: _channel(row) for row in TOPICS},
        "operations": {_operation_name(row): _operation(row) for row in TOPICS},
        "components": {"messages": {row.schema.__name__: _message(row, references[row.name]) for row in TOPICS},
                       "schemas": defs["$defs"]},
    }


def _channel(row: TopicRow) -> dict[str, Any]:
    name = row.schema.__name__
    return {"address": row.name, "description": row.help,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {"kafka": {
                "topic": row.name, "partitions": Settings.model_fields["partitions"].default,
                "topicConfiguration": {"cleanup.policy": row.cleanup.split(","), "retention.ms": row.retention_ms},
                "bindingVersion": "0.5.0"}}}


def _message(row: TopicRow, reference: str) -> dict[str, Any]:
    payload = _one_or_many(reference) if row is TELEMETRY else {"$ref": reference}
    return {"name": row.schema.__name__, "summary": row.help, "contentType": "application/json", "payload": payload,
            "bindings": {"kafka": {"key": {"type": "string", "description": row.key}, "bindingVersion": "0.5.0"}}}


def _operation_name(row: TopicRow) -> str:
    return f"{_action(row)}.{row.name}"


def _action(row: TopicRow) -> str:
    """From our side: what producers write we receive, the rest we send."""
    return "receive" if row in (TELEMETRY, FEEDBACK) else "send"


def _operation(row: TopicRow) -> dict[str, Any]:
    return {"action": _action(row), "channel": {"$ref": f"#/channels/{row.name}"},
            "messages": [{"$ref": f"#/channels/{row.name}/messages/{row.schema.__name__}"}],
            "summary": f"{row.help} (written by {row.owner})"}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
