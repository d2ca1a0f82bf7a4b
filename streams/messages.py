"""Reading and keying our own topics: each record one message of the topic's contract."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

from schemas.windows import LevelWindow, MetricWindow
from streams import log, metrics
from streams.records import Record, RecordBatch
from streams.windows.levels import read_level
from streams.windows.record import WindowRecord, read_head, read_window

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
logger = log.get(__name__)


@cache
def reader(model: type[M]) -> Callable[[RecordBatch], list[tuple[int, M]]]:
    """A decoder for `RecordBatch.decoded`: (offset, message) in log order.

    Records that do not read are skipped, counted and logged with their place: only our own agents write these topics,
    so they are a newer version's, or damage. Tombstones are passed over.
    """
    return _reader(model.model_validate_json)


def _reader(parse: Callable[[bytes], T], passed_over: Callable[[Record], bool] = lambda record: False
            ) -> Callable[[RecordBatch], list[tuple[int, T]]]:
    def read(batch: RecordBatch) -> list[tuple[int, T]]:
        found: list[tuple[int, T]] = []
        for record in batch.records:
            if record.value is None or passed_over(record):
                continue
            try:
                found.append((record.offset, parse(record.value)))
            except ValueError as error:             # pydantic's and msgspec's are
                metrics.SKIPPED.labels(batch.topic).inc()
                logger.warning("record.skipped", topic=batch.topic, partition=batch.partition, offset=record.offset,
                               error=str(error)[:300])
        return found

    return read



@cache
def windows(size_ms: int) -> Callable[[RecordBatch], list[tuple[int, WindowRecord]]]:
    """The same for `metrics`, of one granularity; the others' keys tell them apart, so that they are not read."""
    other = re.compile(rb"w-[0-9a-f]+-(?!%d-)" % size_ms).match

    return _reader(read_window, lambda record: record.key is not None and other(record.key) is not None)



def parser(model: type[BaseModel]) -> Callable[[bytes], Any]:
    """The quickest way to read a message of a contract that is passed on to a store; raises ValueError."""
    if model is LevelWindow:
        return read_level
    return read_head if model is MetricWindow else model.model_validate_json


def to_bytes(message: BaseModel) -> bytes:
    """The message as compact JSON."""
    return message.model_dump_json(exclude_defaults=False).encode()
