"""How far the pipeline's telemetry has come, so that a publisher of older events can say what will become of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from schemas.base import instant_ms
from streams.kafka import client_options, end_offsets
from streams.settings import Settings
from streams.topics import METRICS, TELEMETRY

#: Records looked at from the end of each partition: the newest need not be the last.
LOOKED_AT = 200
WAIT_S = 5.0


class _Stamped(msgspec.Struct):
    ts: int | str


class _Window(msgspec.Struct):
    start_ms: int


async def newest_ms(settings: Settings, models: Iterable[str]) -> dict[str, int]:
    """model -> the newest event time known of its partition; models whose partition had nothing are left out.

    A partition's watermark follows its newest event, whichever model sent it. Known are the last records in
    `telemetry`, read by the pipeline or not, and the last windows in `metrics`: an event lies in each. Both have the
    same partitions.
    """
    names = [settings.topic(TELEMETRY.name), settings.topic(METRICS.name)]
    numbers = list(range(settings.partitions))
    newest = await _newest(settings, [TopicPartition(name, number) for name in names for number in numbers])
    partition_of = DefaultPartitioner()
    found = {model: newest.get(int(partition_of(model.encode(), numbers, numbers)), -1) for model in models}
    return {model: ms for model, ms in found.items() if ms >= 0}


def too_late_before_ms(settings: Settings, newest: int) -> int:
    """Events before this instant lie in windows whose grace is over (0004)."""
    finest = settings.granularities_ms[0]
    return (newest - settings.watermark_delay_ms - settings.grace_ms) // finest * finest


async def _newest(settings: Settings, partitions: list[TopicPartition]) -> dict[int, int]:
    ends = {tp: end for tp, end in (await end_offsets(client_options(settings), partitions)).items() if end > 0}
    if not ends:
        return {}
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest",
                                fetch_max_wait_ms=50)
    found: dict[int, int] = {}
    await consumer.start()
    try:
        consumer.assign(list(ends))
        for tp, end in ends.items():
            consumer.seek(tp, max(0, end - LOOKED_AT))
        deadline = time.monotonic() + WAIT_S
        while ends and time.monotonic() < deadline:
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                for record in records:
                    instants = _instants(settings, record)
                    found[tp.partition] = max([found.get(tp.partition, -1), *instants])
            for tp in [tp for tp, end in ends.items() if await consumer.position(tp) >= end]:
                del ends[tp]
                consumer.pause(tp)
    finally:
        await consumer.stop()
    return found


def _instants(settings: Settings, record: Any) -> list[int]:
    """Times of events that a record tells of, but those from a future that is refused; none if it cannot be read."""
    ahead_ms = settings.max_ahead_ms
    try:
        if record.topic == settings.topic(METRICS.name):
            return [msgspec.json.decode(record.value or b"", type=_Window).start_ms]
        stamped = msgspec.json.decode(record.value or b"", type=_Stamped | list[_Stamped])
        times = [int(instant_ms(event.ts)) for event in (stamped if isinstance(stamped, list) else [stamped])]
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, OverflowError, RecursionError):
        return []
    return [ms for ms in times if not ahead_ms or ms <= record.timestamp + ahead_ms]
