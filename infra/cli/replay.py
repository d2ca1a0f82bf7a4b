"""`streamgauge replay FILE...`: play your own data through the pipeline."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.cli.duration import parse_ms
from infra.publisher import Publisher
from infra.reached import newest_ms
from infra.replay.mapping import Faults, Mapper, Mapping
from infra.replay.play import Choice, Timed, merged, play, restamped, shift_to_now_ms, span_ms
from infra.replay.refused import Refused
from infra.replay.sources import SourceError, open_source
from streams.kafka import create_topics
from streams.settings import Settings, settings

_STDERR = Console(stderr=True)
_DRY_EVENTS = 3
_COLUMNS = "Columns, comma-separated"


def command(
    files: Annotated[list[Path], typer.Argument(help="CSV, NDJSON, Parquet or npz files.", metavar="FILE...")],
    time_column: Annotated[str, typer.Option("--time", help="Column of the time. Default: timestamp, ts, time, ... "
                                             "Seconds to nanoseconds since 1970 or ISO 8601; without a zone: UTC.")] = "",  # noqa: E501
    time_format: Annotated[str, typer.Option(help="How times are written, as for strptime: %d/%m/%Y %H:%M.")] = "",
    interval: Annotated[str, typer.Option(help="For files without a time: rows this far apart, the last one now. "
                                               "60s, 5m.")] = "",
    environment: Annotated[str, typer.Option(help="Environment of the events.")] = "replay",
    model: Annotated[str, typer.Option(help="Model of the events. Default: the file's name.")] = "",
    version: Annotated[str, typer.Option(help="Version of the events.")] = "v1",
    component: Annotated[str, typer.Option(help="Component of the events.")] = "model",
    features: Annotated[str, typer.Option(help=f"{_COLUMNS}. Default: all numeric ones without another use.")] = "",
    metrics: Annotated[str, typer.Option(help=f"{_COLUMNS}.")] = "",
    segment: Annotated[str, typer.Option(help=f"{_COLUMNS}.")] = "",
    prediction: Annotated[str, typer.Option(help="Column of the prediction.")] = "",
    label: Annotated[str, typer.Option(help="Column of the truth.")] = "",
    classes: Annotated[bool, typer.Option(help="Predictions and labels that look like numbers are class names.")] = False,  # noqa: E501
    confidence: Annotated[str, typer.Option(help="Column of the confidence, 0 to 1.")] = "",
    latency: Annotated[str, typer.Option(help="Column of the latency in milliseconds.")] = "",
    error: Annotated[str, typer.Option(help="Column of the error's text; empty: no error.")] = "",
    event_id: Annotated[str, typer.Option("--id", help="Column of the event's id. Default: model and row number.")] = "",  # noqa: E501
    array: Annotated[str | None, typer.Option(help="Array of an npz file. Default: X_test, or the only table.")] = None,
    speed: Annotated[float, typer.Option(min=0.0, help="0: as fast as possible; 1: as they came; 60: a minute a "
                                                       "second.")] = 0.0,
    shift_to_now: Annotated[bool, typer.Option("--shift-to-now", help="Move all times so that the last event is sent "
                                               "at its own time. Default: times stay as they are.")] = False,
    restamp: Annotated[bool, typer.Option("--restamp", help="Give each event the time at which it is sent, --speed "
                                          "times faster than it came: so old data runs beside live telemetry.")]
    = False,
    start: Annotated[int, typer.Option(min=0, help="Rows of each file to skip.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Events of each file to send at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the first events and send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
) -> None:
    """Publish files as telemetry. Several files are merged by time; each is a model of its own unless --model says so.

    Rows that cannot be an event are counted and the first ones shown; the rest goes on. Events older than what the
    pipeline has had from anybody count in no window: play old data with --restamp, or on a pipeline of its own
    (`streamgauge up --no-demo` with another STREAMGAUGE_DATA_DIR).
    """
    if restamp and (shift_to_now or not speed):
        _STDERR.print("replay: --restamp needs a --speed, and excludes --shift-to-now", style="red", markup=False)
        raise typer.Exit(2)
    try:
        mapping = Mapping(
            environment=environment, model=model, version=version, component=component, time=time_column,
            time_format=time_format, interval_ms=parse_ms(interval) if interval else 0,
            features=_names(features) or None, metrics=_names(metrics), segment=_names(segment),
            prediction=prediction, label=label, confidence=confidence, latency=latency, error=error, id=event_id,
            classes=classes)
        now_ms = int(time.time() * 1000)
        mappers = [Mapper(open_source(path, array), mapping, now_ms) for path in files]
        choice = Choice(start, limit)
        span = span_ms(mappers, choice) if shift_to_now else None
        shift_ms = shift_to_now_ms(span, speed, now_ms) if span else 0
        faults = Faults()
        for mapper in mappers:
            mapper.without_zone = mapper.disordered = 0
        events = merged(mappers, choice, faults, shift_ms)
        if restamp:
            events, speed = restamped(events, speed, now_ms), 1.0
        if dry_run:
            sent = _dry(events)
        else:
            total = sum(_rows(mapper, choice) for mapper in mappers)
            sent = asyncio.run(_send(settings(), events, [mapper.model for mapper in mappers], speed, total, quiet))
    except (SourceError, ValueError) as failure:
        _STDERR.print(f"replay: {failure}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    _report(mappers, faults, sent, dry_run, quiet, as_json)
    raise typer.Exit(0 if sent else 1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _rows(mapper: Mapper, choice: Choice) -> int:
    left = max(0, mapper.source.count - choice.start)
    return left if choice.limit is None else min(left, choice.limit)


def _dry(events: Iterator[Timed]) -> int:
    shown = [event for _, event in islice(events, _DRY_EVENTS)]
    for event in shown:
        print(json.dumps(event, indent=2))
    return len(shown)


async def _send(configured: Settings, events: Iterator[Timed], models: list[str], speed: float, total: int,
                quiet: bool) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await create_topics(configured)
    refused = Refused(configured, await newest_ms(configured, models))
    async with Publisher(configured) as publisher:
        with _telling(total, quiet) as tell:
            sent = await play(refused.watch(events), publisher, speed, tell, stop)
    if not quiet:
        for text in refused.texts():
            _note(text)
    return sent


@contextmanager
def _telling(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not _STDERR.is_terminal:
        yield lambda sent: None
        return
    with Progress(TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_STDERR,
                  transient=True) as bar:
        task = bar.add_task("replay", total=total or None)
        yield lambda sent: bar.update(task, completed=sent)


def _note(text: str) -> None:
    print(f"replay: {text}", file=sys.stderr)


def _report(mappers: list[Mapper], faults: Faults, sent: int, dry_run: bool, quiet: bool, as_json: bool) -> None:
    if not quiet:
        without_zone = sum(mapper.without_zone for mapper in mappers)
        disordered = sum(mapper.disordered for mapper in mappers)
        if without_zone:
            _note(f"{without_zone:,} times name no zone; taken as UTC")
        if disordered:
            _note(f"{disordered:,} rows are earlier than the row before; the pipeline may count them as late")
        if not dry_run:
            _note(f"{sent:,} events published as {', '.join(sorted({mapper.model for mapper in mappers}))[:200]}")
        if faults.total:
            kinds = ", ".join(f"{kind} ({count:,})" for kind, count in faults.kinds.items())
            _note(f"{faults.total:,} bad rows left out: {kinds[:500]}")
            for text in faults.shown:
                _note(f"  {text[:300]}")
    if as_json:
        print(json.dumps({"published": 0 if dry_run else sent, "bad_rows": faults.total, "files": len(mappers)}))
