"""otlp_metrics -> telemetry. A producer like others: what a crash leaves uncommitted is sent again, under the same ids.

What cannot be telemetry goes to telemetry-rejected: the record's bytes where it is no OTLP, else the event that the
contract refused, or nothing but the reason where there is no event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from pydantic import ValidationError

from agents.otlp.mapping import OtlpError, decoded, events
from schemas.telemetry import TelemetryEvent
from streams import metrics
from streams.batch import fault_of, rejected_record
from streams.kafka import client_options
from streams.messages import to_bytes
from streams.settings import Settings
from streams.stores.sink import CLOSE_SECONDS, Sink, Write
from streams.topics import DAY_MS, REJECTED, TELEMETRY, TopicRow

#: What the exporter writes. It is the collector's topic, not ours: it has no prefix, and any number of partitions.
OTLP = TopicRow("otlp_metrics", TelemetryEvent, "", 7 * DAY_MS, "delete", "collector", "OTLP metrics, JSON or protobuf")
MAX_REQUEST_BYTES = 16 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class OtlpBridge(Sink):
    """Reads the topic that STREAMGAUGE_OTLP_TOPIC names, and writes telemetry."""

    name = "otlp"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [OTLP])
        self.rows = {settings.otlp_topic: OTLP}
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> Mapping[str, Write]:
        self._producer = AIOKafkaProducer(**client_options(self.settings), linger_ms=5,
                                          max_request_size=MAX_REQUEST_BYTES)
        await self._producer.start()
        return {OTLP.name: self._pass_on}

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.wait_for(producer.stop(), CLOSE_SECONDS)

    def _read(self, tp: TopicPartition, records: Sequence[Any]) -> Sequence[Any]:
        return records

    async def _pass_on(self, records: Sequence[Any]) -> None:
        """Send what the records hold, and wait until the broker has it."""
        assert self._producer is not None
        sent = [await self._producer.send(self.settings.topic(row), value, key=key.encode())
                for record in records for row, key, value in messages(record, self.settings.max_record_bytes)]
        await asyncio.gather(*sent)


def messages(record: Any, most_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """(topic, key, value) of everything that a record of the collector becomes."""
    value = record.value or b""
    source = f"{record.topic}-{record.partition}-{record.offset}"
    try:
        if not value:
            raise OtlpError("empty", "", "the record has no value")
        if len(value) > most_bytes:
            raise OtlpError("too_large", "", f"{len(value)} bytes: a record may have {most_bytes}; let the collector's "
                            "processor `batch` send smaller ones")
        found = list(events(decoded(value), source))
    except OtlpError as error:
        yield _rejected(record, error, -1, value, most_bytes)
        return
    for position, one in enumerate(found):
        if isinstance(one, OtlpError):
            yield _rejected(record, one, position, b"", most_bytes)
            continue
        payload = _encode(one)
        try:
            event = TelemetryEvent.model_validate_json(payload)
            yield TELEMETRY.name, event.model, payload
        except ValidationError as error:
            yield _rejected(record, OtlpError(*fault_of(error)), position, payload, most_bytes)


def _rejected(record: Any, error: OtlpError, position: int, payload: bytes, most: int) -> tuple[str, str, bytes]:
    metrics.REJECTED.labels(error.reason).inc()
    kept = rejected_record(record.topic, record.partition, record, error.reason, error.field, str(error), position,
                           payload, most)
    return REJECTED.name, kept.rejected_id, to_bytes(kept)
