"""Reading and keying our own topics: each record one message of the topic's contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from streams import log, metrics
from streams.records import RecordBatch

M = TypeVar("M", bound=BaseModel)
logger = log.get(__name__)


@cache
def reader(model: type[M]) -> Callable[[RecordBatch], list[tuple[int, M]]]:
    """A decoder for `RecordBatch.decoded`: (offset, message) in log order.

    Records that do not read are skipped, counted and logged with their place: only our own agents write these topics,
    so they are a newer version's, or damage. Tombstones are passed over.
    """
    def read(batch: RecordBatch) -> list[tuple[int, M]]:
        found: list[tuple[int, M]] = []
        for record in batch.records:
            if record.value is None:
                continue
            try:
                found.append((record.offset, model.model_validate_json(record.value)))
            except (ValidationError, ValueError) as error:
                metrics.SKIPPED.labels(batch.topic).inc()
                logger.warning("record.skipped", topic=batch.topic, partition=batch.partition, offset=record.offset,
                               error=str(error)[:300])
        return found

    return read


def to_bytes(message: BaseModel) -> bytes:
    """The message as compact JSON."""
    return message.model_dump_json(exclude_defaults=False).encode()
