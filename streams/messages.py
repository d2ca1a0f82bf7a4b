"""Reading and keying our own topics: each record one message of the topic's contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

from schemas.windows import LevelWindow, MetricWindow
from streams import log, metrics
from streams.records import RecordBatch
from streams.windows.closed import ClosedWindow, WindowReader
from streams.windows.levels import read_level
from streams.windows.record import read_head

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


def _reader(parse: Callable[[bytes], T]) -> Callable[[RecordBatch], list[tuple[int, T]]]:
    def read(batch: RecordBatch) -> list[tuple[int, T]]:
        found: list[tuple[int, T]] = []
        for record in batch.records:
            if record.value is None:
                continue
            try:
                found.append((record.offset, parse(record.value)))
            except ValueError as error:             # pydantic's and msgspec's are
                _skipped(batch, record.offset, error)
        return found

    return read


def _skipped(batch: RecordBatch, offset: int, error: ValueError) -> None:
    metrics.SKIPPED.labels(batch.topic).inc()
    logger.warning("record.skipped", topic=batch.topic, partition=batch.partition, offset=offset,
                   error=str(error)[:300])


@cache
def windows(size_ms: int) -> Callable[[RecordBatch], list[tuple[int, ClosedWindow]]]:
    """The same for `metrics`, of one granularity; the others' keys tell them apart, so that they are not read."""
    reader = WindowReader(size_ms)

    def read(batch: RecordBatch) -> list[tuple[int, ClosedWindow]]:
        found: list[tuple[int, ClosedWindow]] = []
        for offset, window in reader.read(batch):
            if isinstance(window, ValueError):
                _skipped(batch, offset, window)
            else:
                found.append((offset, window))
        return found

    return read


def parser(model: type[BaseModel]) -> Callable[[bytes], Any]:
    """The quickest way to read a message of a contract that is passed on to a store; raises ValueError."""
    if model is LevelWindow:
        return read_level
    return read_head if model is MetricWindow else model.model_validate_json


def to_bytes(message: BaseModel) -> bytes:
    """The message as compact JSON."""
    return message.model_dump_json(exclude_defaults=False).encode()
