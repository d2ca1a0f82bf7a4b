"""`streamgauge profile FILE`: what a version was trained on, so that drift is measured against it."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from infra.profile import Choice, make
from infra.publisher import PublishError
from infra.replay.sources import SourceError
from schemas.alerts import LifecycleEvent
from schemas.profiles import FieldProfile, Profile
from streams.batch import fault_of
from streams.kafka import client_options, create_topics
from streams.messages import to_bytes
from streams.settings import Settings, settings
from streams.topics import LIFECYCLE_EVENTS

_STDERR = Console(stderr=True)
_LISTED = 40
#: Bytes of a JSON file that are read at most.
_MOST_BYTES = 16_000_000


def command(
    file: Annotated[Path, typer.Argument(help="What the version was trained on: CSV, TSV, NDJSON, Parquet or npz; or a "
                                              "profile made elsewhere, as .json.", metavar="FILE")],
    model: Annotated[str, typer.Option(help="The model's name, as in its telemetry.")],
    version: Annotated[str, typer.Option(help="The version that was trained on it.")],
    environment: Annotated[str, typer.Option(help="Environment that it serves in.")] = "prod",
    component: Annotated[str, typer.Option(help="The part that reports the features.")] = "model",
    columns: Annotated[str, typer.Option(help="Columns that are features, comma-separated, named as in telemetry. "
                                              "Default: all but times and labels.")] = "",
    leave_out: Annotated[str, typer.Option(help="Columns that are no features, comma-separated.")] = "",
    prediction: Annotated[str, typer.Option(help="Column of what the model predicts, or of the truth in its place.")]
    = "",
    classes: Annotated[bool, typer.Option(help="Predictions that look like numbers are class names.")] = False,
    confidence: Annotated[str, typer.Option(help="Column of the confidence, 0 to 1.")] = "",
    array: Annotated[str | None, typer.Option(help="Array of an npz file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the event there. Default: to standard output, unless it is "
                                                  "published.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Send it to lifecycle-events: drift of the version is "
                                          "measured against it from then on.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No table and no notes.")] = False,
) -> None:
    """Make a version's profile from what it was trained on, and publish it as a lifecycle event.

    Publish it before the version serves. Without one, drift is measured against the first windows in which the version
    is stable. Needs no service unless it is published.
    """
    try:
        choice = Choice(_names(columns), _names(leave_out), prediction, confidence, classes, array)
        found, notes = (_read(file), []) if file.suffix.lower() == ".json" else _made(file, choice)
        event = _event(found, environment, model, version, component)
    except ValidationError as error:
        _fail(f"{file}: {fault_of(error)[2]}")
    except (SourceError, ValueError) as error:
        _fail(str(error))
    if not quiet:
        _report(found, notes)
    text = event.model_dump_json(exclude_defaults=True)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    elif not publish:
        print(text)
    if publish:
        sent = asyncio.run(_publish(settings(), event))
        if not quiet:
            print(f"profile: published to {sent} as {event.lifecycle_id}", file=sys.stderr)


def _fail(text: str) -> NoReturn:
    _STDERR.print(f"profile: {text}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _made(path: Path, choice: Choice) -> tuple[Profile, list[str]]:
    made = make(path, choice)
    return made.profile, made.notes


def _read(path: Path) -> Profile:
    """A profile made elsewhere: by itself, or within a lifecycle event."""
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    if not data:
        raise SourceError(f"{path} is empty, or too large for a profile")
    try:
        return Profile.model_validate_json(data)
    except ValidationError as error:
        if all(fault["loc"][:1] != ("rows",) for fault in error.errors(include_url=False, include_input=False)):
            raise
        event = LifecycleEvent.model_validate_json(data)
        if event.profile is None:
            raise SourceError(f"{path} is a lifecycle event without a profile") from None
        return event.profile


def _event(profile: Profile, environment: str, model: str, version: str, component: str) -> LifecycleEvent:
    ts = int(time.time() * 1000)
    content = f"{environment}\x1f{model}\x1f{version}\x1f{component}\x1f{profile.model_dump_json()}"
    return LifecycleEvent(
        lifecycle_id=f"p-{ts}-{hashlib.blake2b(content.encode(), digest_size=12).hexdigest()}", ts=ts,
        environment=environment, model=model, version=version, component=component, action="registered",
        reason="profile from training", profile=profile)


async def _publish(configured: Settings, event: LifecycleEvent) -> str:
    """To every partition: producers of telemetry may choose the model's by another hash than ours."""
    await create_topics(configured)
    topic, value = configured.topic(LIFECYCLE_EVENTS.name), to_bytes(event)
    if len(value) > configured.max_record_bytes:
        raise PublishError(f"the profile has {len(value):,} bytes, and STREAMGAUGE_MAX_RECORD_BYTES is "
                           f"{configured.max_record_bytes:,}: choose fewer --columns")
    producer = AIOKafkaProducer(**client_options(configured), max_request_size=2 * configured.max_record_bytes)
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key=event.model.encode(), partition=number)
                for number in range(configured.partitions)]
        await asyncio.gather(*sent)
    except KafkaError as error:
        raise PublishError(f"the broker did not take the profile: {error!r}") from error
    finally:
        await producer.stop()
    return topic


def _report(profile: Profile, notes: list[str]) -> None:
    table = Table("feature", "missing", "mean", "sd", "classes")
    named = [*profile.features.items()]
    named += [(name, found) for name, found in (("(prediction)", profile.prediction),
                                                ("(confidence)", profile.confidence)) if found is not None]
    for name, found in named[:_LISTED]:
        table.add_row(name[:40], f"{found.missing_share:.1%}", _figure(found.mean), _figure(found.sd), _shares(found))
    _STDERR.print(table)
    if len(named) > _LISTED:
        print(f"and {len(named) - _LISTED:,} more", file=sys.stderr)
    print(f"profile: {profile.rows:,} rows", file=sys.stderr)
    for note in notes:
        print(f"profile: {note}", file=sys.stderr)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"


def _shares(found: FieldProfile) -> str:
    total = sum(found.classes.values())
    most = sorted(found.classes.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name[:16]} {weight / total:.0%}" for name, weight in most[:4])
    return text + (f" and {len(most) - 4} more" if len(most) > 4 else "")
