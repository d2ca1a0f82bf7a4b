"""`streamgauge rejected`: see what was refused and why, mend it, send it again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.duration import parse_ms
from infra.cli.live import clean
from infra.cli.resubmit import Choice, Plan, payload_of, prepare, read, send
from schemas.base import instant_ms, iso
from schemas.rejected import Reason as Reasons
from schemas.rejected import RejectedRecord
from streams.settings import settings

app = typer.Typer(help="See which records were refused and why; mend them and send them again.", no_args_is_help=True)
SHOWN_BYTES = 160
SHOWN_FAULTS = 5
Reason = Annotated[str, typer.Option(help=f"Only this reason: {', '.join(get_args(Reasons))}.")]
Since = Annotated[str, typer.Option(help="Only records since then: 10m or 2h ago, ISO 8601 with a zone, or epoch "
                                         "milliseconds.")]
Model = Annotated[str, typer.Option(help="Only records whose key is, or whose bytes name, this model.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this record; may be repeated. `list` shows ids.")]


@app.command("list")
def list_rejected(reason: Reason = "", model: Model = "", since: Since = "", ids: Ids = None,
                  limit: Annotated[int, typer.Option(min=1, help="Show at most so many, the newest.")] = 20,
                  as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a record, its bytes in "
                                                                       "base64.")] = False) -> None:
    """Show refused records, oldest first: when, why, where they were, what to change, how their bytes begin."""
    found = _chosen(_choice(reason, model, since, ids))
    if as_json:
        for record in found[-limit:]:
            typer.echo(record.model_dump_json())
        return
    console = Console()
    for record in found[-limit:]:
        console.print(_shown(record))
    counts = ", ".join(f"{name} {count:,}" for name, count in Counter(r.reason for r in found).most_common())
    console.print(f"{len(found):,} refused records{f': {counts}' if counts else ''}"
                  f"{f'; the newest {limit} are shown' if len(found) > limit else ''}", highlight=False)


@app.command()
def replay(reason: Reason = "", model: Model = "", since: Since = "", ids: Ids = None,
           change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=JSON", help="Put this value into "
                             "each record first: --set environment=prod, --set ts=1767225600000, --set "
                             "features.age=null. May be repeated.")] = None,
           force: Annotated[bool, typer.Option("--force", help="Send also what would be refused again.")] = False,
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")]
           = False) -> None:
    """Send refused records again: their original bytes, mended by --set, under their original key, to their topic.

    Records that would be refused again are left out and counted. Sending the same records twice counts them twice:
    choose by --id, --reason or --since.
    """
    try:
        changes = dict(_change(text) for text in change or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    plan = prepare(_chosen(_choice(reason, model, since, ids)), changes, settings(), force)
    sent = {} if dry_run else asyncio.run(send(settings(), plan.ready))
    _report(plan, sent, dry_run)
    raise typer.Exit(1 if plan.left_out and not plan.ready else 0)


def _choice(reason: str, model: str, since: str, ids: list[str] | None) -> Choice:
    if reason and reason not in get_args(Reasons):
        raise typer.BadParameter(f"{reason} is no reason; they are {', '.join(get_args(Reasons))}")
    try:
        return Choice(reason, model, since_ms(since, time.time_ns() // 1_000_000), frozenset(ids or ()))
    except ValueError as error:
        raise typer.BadParameter(f"--since {since}: {error}") from None


def since_ms(text: str, now_ms: int) -> int:
    """Epoch milliseconds of "10m" (ago), an ISO 8601 instant, or epoch milliseconds; 0 for nothing.

    Raises:
        ValueError: it is none of these.
    """
    if not text:
        return 0
    if text.isdigit():
        return int(text)
    try:
        return now_ms - parse_ms(text)
    except ValueError:
        try:
            return int(instant_ms(text))
        except ValidationError:
            raise ValueError("write 10m, 2026-05-01T10:00:00Z, or epoch milliseconds") from None


def _change(text: str) -> tuple[str, Any]:
    """FIELD=JSON; what is not JSON is taken as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: write FIELD=VALUE, as --set environment=prod or --set ts=1767225600000")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _chosen(choice: Choice) -> list[RejectedRecord]:
    async def collect() -> list[RejectedRecord]:
        return [record async for record in read(settings(), choice)]

    return sorted(asyncio.run(collect()), key=lambda record: (record.ts, record.partition, record.offset))


def _shown(record: RejectedRecord) -> Table:
    """Three lines: when and why; what to change; the beginning of the bytes."""
    place = f"{record.topic}[{record.partition}]@{record.offset}" + \
        (f" item {record.position}" if record.position >= 0 else "")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(iso(record.ts), Text.assemble((record.reason, "bold yellow"), f"  {clean(place)}",
                                               (f"  {clean(record.rejected_id)}", "dim")))
    grid.add_row("", Text(clean(record.message)))
    beginning = clean(payload_of(record)[:SHOWN_BYTES].decode(errors="replace"))
    more = "…" if record.payload_size_bytes > SHOWN_BYTES else ""
    grid.add_row(f"{record.payload_size_bytes:,} bytes", Text(f"{beginning}{more}", "dim"))
    return grid


def _report(plan: Plan, sent: dict[str, int], dry_run: bool) -> None:
    if dry_run:
        typer.echo(f"Would send {len(plan.ready):,} records again.")
    else:
        where = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(sent.items()))
        typer.echo(f"Sent {len(plan.ready):,} records again{f': {where}' if where else ''}.")
    if plan.left_out:
        typer.echo(f"Left out {len(plan.left_out):,}:", err=True)
        faults = Counter(text for _, text in plan.left_out).most_common()
        for text, count in faults[:SHOWN_FAULTS]:
            typer.echo(f"  {count:,} × {clean(text)}", err=True)
        if len(faults) > SHOWN_FAULTS:
            typer.echo(f"  and {len(faults) - SHOWN_FAULTS:,} other reasons", err=True)
