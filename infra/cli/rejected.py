"""`streamgauge rejected`: see what was refused and why, mend it, send it again."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from typing import Annotated, Any

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.base import instant_ms, iso
from schemas.rejected import RejectedRecord
from streams.kafka import client_options, end_offsets
from streams.settings import settings
from streams.topics import REJECTED

app = typer.Typer(help="Show refused records with their reasons, or send them again.", no_args_is_help=True)
WAIT_MS = 200
SHOWN_BYTES = 120
Reason = Annotated[str, typer.Option(help="Only this reason: wrong_type, not_json, too_old, ...")]
Since = Annotated[str, typer.Option(help="Only records since this instant: ISO 8601 with a zone, or epoch ms.")]
Model = Annotated[str, typer.Option(help="Only records whose bytes name this model.")]


@app.command("list")
def list_rejected(reason: Reason = "", model: Model = "", since: Since = "",
                  limit: Annotated[int, typer.Option(min=1, help="Show at most so many, the newest.")] = 50,
                  as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a record.")] = False) -> None:
    """Show refused records: when, why, which field, the first bytes."""
    found = _chosen(reason, model, since)
    if as_json:
        for record in found[-limit:]:
            typer.echo(record.model_dump_json())
        return
    table = Table("when", "reason", "place", "what to change", "bytes", title=f"{len(found)} refused records")
    for record in found[-limit:]:
        shown = base64.b64decode(record.payload_base64)[:SHOWN_BYTES].decode(errors="replace")
        table.add_row(iso(record.ts), record.reason, f"{record.topic}/{record.partition}/{record.offset}",
                      escape(record.message), escape(shown))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name}: {count}" for name, count in Counter(r.reason for r in found).most_common()))


@app.command()
def replay(reason: Reason = "", model: Model = "", since: Since = "",
           change: Annotated[list[str] | None, typer.Option("--set", help="FIELD=JSON: put this value into each "
                                                                          "record first; may be repeated.")] = None,
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent.")] = False) -> None:
    """Send refused records again, with their key, to the topic they came from. Records cut short are left out."""
    chosen = [record for record in _chosen(reason, model, since) if not record.truncated]
    changes = dict(_change(text) for text in change or [])
    ready = [(record, bytes_of(record, changes)) for record in chosen]
    if not dry_run:
        asyncio.run(_send(ready))
    typer.echo(f"{'would send' if dry_run else 'sent'} {len(ready)} records again")


def bytes_of(record: RejectedRecord, changes: dict[str, Any]) -> bytes:
    """The original bytes, with fields changed if they are a JSON object."""
    payload = base64.b64decode(record.payload_base64)
    if not changes:
        return payload
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return payload
    return json.dumps(found | changes).encode() if isinstance(found, dict) else payload


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name, json.loads(value)
    except ValueError:
        raise typer.BadParameter(f"{text}: write FIELD=JSON, as --set 'version=\"3\"'") from None


def _chosen(reason: str, model: str, since: str) -> list[RejectedRecord]:
    from_ms = (int(since) if since.isdigit() else instant_ms(since)) if since else 0
    found = {record.rejected_id: record for record in asyncio.run(_read())}
    return sorted((record for record in found.values()
                   if reason in ("", record.reason) and record.ts >= from_ms
                   and (not model or f'"{model}"'.encode() in base64.b64decode(record.payload_base64))),
                  key=lambda record: record.ts)


async def _read() -> list[RejectedRecord]:
    chosen = settings()
    tps = [TopicPartition(chosen.topic(REJECTED.name), number) for number in range(chosen.partitions)]
    ends = await end_offsets(client_options(chosen), tps)
    wanted = [tp for tp in tps if ends[tp]]
    consumer = AIOKafkaConsumer(**client_options(chosen), enable_auto_commit=False, fetch_max_wait_ms=50)
    found: list[RejectedRecord] = []
    await consumer.start()
    try:
        consumer.assign(wanted)
        if wanted:
            await consumer.seek_to_beginning(*wanted)
        while [tp for tp in wanted if await consumer.position(tp) < ends[tp]]:
            for records in (await consumer.getmany(timeout_ms=WAIT_MS)).values():
                found += [RejectedRecord.model_validate_json(record.value) for record in records if record.value]
        return found
    finally:
        await consumer.stop()


async def _send(ready: list[tuple[RejectedRecord, bytes]]) -> None:
    producer = AIOKafkaProducer(**client_options(settings()), max_request_size=16 * 1024 * 1024)
    await producer.start()
    try:
        for record, payload in ready:
            key = base64.b64decode(record.key_base64) or None
            await producer.send_and_wait(record.topic, payload, key=key)
    finally:
        await producer.stop()
