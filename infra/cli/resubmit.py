"""Refused records: read, chosen, mended, tried against the contract, and sent again. What `rejected` is made of."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import ValidationError

from schemas.rejected import RejectedRecord
from streams.batch import Decoder, Limits, decode_feedback
from streams.kafka import MAX_MESSAGE_BYTES, client_options, end_offsets
from streams.records import RecordBatch
from streams.settings import Settings
from streams.topics import FEEDBACK, REJECTED, TELEMETRY

WAIT_MS = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """Which refused records. Empty: all."""

    reason: str = ""
    model: str = ""
    since_ms: int = 0
    ids: frozenset[str] = frozenset()

    def takes(self, record: RejectedRecord) -> bool:
        """True if it is one of them. A model is found in the key, or named in the bytes."""
        return (self.reason in ("", record.reason) and record.ts >= self.since_ms
                and (not self.ids or record.rejected_id in self.ids)
                and (not self.model or self._names(record)))

    def _names(self, record: RejectedRecord) -> bool:
        return self.model.encode() == key_of(record) or json.dumps(self.model).encode() in payload_of(record)


@dataclass(slots=True)
class Plan:
    """What can be sent, and what is left out with the reason."""

    ready: list[tuple[RejectedRecord, bytes]] = field(default_factory=list)
    left_out: list[tuple[RejectedRecord, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Again:
    """A record as the pipeline would read it now."""

    value: bytes
    timestamp: int
    key: bytes | None = None
    offset: int = 0


def payload_of(record: RejectedRecord) -> bytes:
    """The original bytes, as far as they were kept."""
    return base64.b64decode(record.payload_base64)


def key_of(record: RejectedRecord) -> bytes | None:
    """The original key."""
    return base64.b64decode(record.key_base64) or None


def mended(payload: bytes, changes: Mapping[str, Any]) -> bytes:
    """The bytes with fields of the JSON object changed; a dot leads into an object (`features.age`).

    Raises:
        ValueError: the bytes are not a JSON object, or a dot leads into something else.
    """
    if not changes:
        return payload
    try:
        whole = json.loads(payload)
    except (ValueError, RecursionError):
        raise ValueError("its bytes are not JSON, so no field can be set") from None
    for name, value in changes.items():
        *path, last = name.split(".")
        inner = whole
        for part in path:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise ValueError(f"{name} cannot be set: it is not in a JSON object")
        inner[last] = value
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def prepare(records: Iterable[RejectedRecord], changes: Mapping[str, Any], settings: Settings, force: bool = False,
            now_ms: int | None = None) -> Plan:
    """Mend each record and try it. What would be refused again is left out, unless `force`."""
    plan, now = Plan(), time.time_ns() // 1_000_000 if now_ms is None else now_ms
    refusal = _Trial(settings, now)
    for record in records:
        if record.truncated:
            plan.left_out.append((record, "its bytes were too many to be kept whole"))
            continue
        try:
            payload = mended(payload_of(record), changes)
        except ValueError as error:
            plan.left_out.append((record, str(error)))
            continue
        again = None if force else refusal(record.topic, payload)
        if again:
            plan.left_out.append((record, f"would be refused again: {again}"))
        else:
            plan.ready.append((record, payload))
    return plan


class _Trial:
    """The pipeline's own decoding, on one record."""

    def __init__(self, settings: Settings, now_ms: int) -> None:
        limits = Limits(settings.max_record_bytes, settings.max_events_per_record, settings.max_age_ms,
                        settings.max_ahead_ms)
        self._feedback_topic = settings.topic(FEEDBACK.name)
        self._telemetry = Decoder(limits)
        self._feedback = partial(decode_feedback, limits=limits)
        self._now_ms = now_ms

    def __call__(self, topic: str, payload: bytes) -> str:
        """Why it would be refused; empty if it would not."""
        batch = RecordBatch(topic, 0, [_Again(payload, self._now_ms)])
        decode: Any = self._feedback if topic == self._feedback_topic else self._telemetry
        refused: Sequence[RejectedRecord] = decode(batch).rejected
        return f"{refused[0].reason}, {refused[0].message}" if refused else ""


async def read(settings: Settings, choice: Choice) -> AsyncIterator[RejectedRecord]:
    """The chosen records, partition by partition as they come, each id once."""
    name = settings.topic(REJECTED.name)
    ends = await end_offsets(client_options(settings), [TopicPartition(name, p) for p in range(settings.partitions)])
    left = {tp: end for tp, end in ends.items() if end}
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest",
                                fetch_max_wait_ms=50)
    seen: set[str] = set()
    await consumer.start()
    try:
        consumer.assign(list(left))
        if left:
            await consumer.seek_to_beginning(*left)
        while left:
            for records in (await consumer.getmany(timeout_ms=WAIT_MS)).values():
                for found in map(_parsed, records):
                    if found is not None and found.rejected_id not in seen and choice.takes(found):
                        seen.add(found.rejected_id)
                        yield found
            for tp in [tp for tp, end in left.items() if await consumer.position(tp) >= end]:
                del left[tp]
    finally:
        await consumer.stop()


def _parsed(record: Any) -> RejectedRecord | None:
    """The record, or None for what a newer release wrote in another form."""
    try:
        return RejectedRecord.model_validate_json(record.value or b"")
    except ValidationError:
        return None


async def send(settings: Settings, ready: Sequence[tuple[RejectedRecord, bytes]]) -> dict[str, int]:
    """Send each to the topic it came from, under its original key; topic -> how many."""
    ours = {settings.topic(row.name) for row in (TELEMETRY, FEEDBACK)}
    sent: dict[str, int] = {}
    producer = AIOKafkaProducer(**client_options(settings), max_request_size=MAX_MESSAGE_BYTES, linger_ms=5)
    await producer.start()
    try:
        for record, payload in ready:
            topic = record.topic if record.topic in ours else settings.topic(TELEMETRY.name)
            await producer.send(topic, payload, key=key_of(record))
            sent[topic] = sent.get(topic, 0) + 1
        await producer.flush()
    finally:
        await producer.stop()
    return sent
