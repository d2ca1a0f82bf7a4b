"""A window as it travels through a worker: the contract `MetricWindow`, read and written ten times as fast.

Windows are the only messages of ours with a body that grows with the model, and the most frequent but for anomalies in
a storm. What this reads, the contract reads too; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from schemas.base import MAX_TIMESTAMP_MS
from schemas.windows import MetricWindow
from streams import metrics

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Timestamp = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$", max_length=128)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]

#: A sketch of nothing.
NO_BUCKETS = b"[]"


class SummaryRecord(msgspec.Struct, frozen=True, dict=True):
    """See `schemas.windows.Summary`. Its sketch stays JSON until somebody looks at it: few do, and it is most of it."""

    count: _Count
    schema_version: int = 1
    missing: _Count = 0
    sum: float = 0.0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    m2: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    sketched: _Count | msgspec.UnsetType | None = msgspec.UNSET
    buckets: msgspec.Raw = msgspec.field(default=msgspec.Raw(NO_BUCKETS), name="sketch")

    @property
    def sketch(self) -> list[tuple[int, int]]:
        """(code, count) ascending. A damaged one is counted, and read as empty, as that of a category is."""
        found: list[tuple[int, int]] | None = self.__dict__.get("sketch")     # `cached_property` takes a lock for it
        if found is None:
            try:
                found = _pairs.decode(self.buckets)
            except msgspec.MsgspecError:
                metrics.SKIPPED.labels("sketch").inc()
                found = []
            self.__dict__["sketch"] = found
        return found


def buckets(sketch: Sequence[tuple[int, int]]) -> msgspec.Raw:
    """A sketch for a `SummaryRecord`."""
    return msgspec.Raw(_encoder.encode(sketch))


def joined(sketches: Sequence[bytes]) -> list[tuple[int, int]]:
    """(code, count) of sketches, one after the other, from their JSON. A damaged one is counted, and left out."""
    try:
        return _pairs.decode(b"[%s]" % b",".join([sketch.strip()[1:-1] for sketch in sketches]))
    except msgspec.MsgspecError:
        return [pair for sketch in sketches for pair in SummaryRecord(count=0, buckets=msgspec.Raw(sketch)).sketch]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A window but for its fields."""

    schema_version: int = 1
    environment: _Name
    model: _Name
    version: _Name
    component: _Name
    window_id: _Text
    start_ms: _Timestamp
    size_ms: Annotated[int, msgspec.Meta(ge=1)]
    partition: _Count
    count: _Count
    errors: _Count
    revision: _Count = 0
    closed_ms: _Timestamp


class WindowRecord(Window, frozen=True, kw_only=True):
    """See `schemas.windows.MetricWindow`."""

    fields: dict[str, SummaryRecord] = {}

    def summary(self, name: str) -> SummaryRecord | None:
        """One of its fields; None if it is not there."""
        return self.fields.get(name)

    def fields_json(self) -> str:
        """The JSON of its fields alone."""
        return _encoder.encode(self.fields).decode()


class WindowHead(Window, frozen=True, kw_only=True):
    """A window whose summaries stay as they came, for those who only pass them on: most of it is sketches."""

    fields: dict[str, msgspec.Raw] = {}

    def fields_json(self) -> str:
        """The JSON of its fields alone."""
        return _encoder.encode(self.fields).decode()


_pairs = msgspec.json.Decoder(list[tuple[int, int]])
_decoder = msgspec.json.Decoder(WindowRecord)
_head_decoder = msgspec.json.Decoder(WindowHead)
_encoder = msgspec.json.Encoder()


def read_window(value: bytes) -> WindowRecord:
    """A record of `metrics`; of sketches only that they are JSON.

    Raises:
        ValueError: it breaks the contract; the contract's own error where that has one.
    """
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return _decoder.decode(MetricWindow.model_validate_json(value).model_dump_json(exclude_none=True))


def write_window(window: Window) -> bytes:
    """Its JSON."""
    return _encoder.encode(window)


def read_head(value: bytes) -> WindowHead:
    """The same, its summaries only looked at as far as they are JSON.

    Raises:
        ValueError: it breaks the contract.
    """
    try:
        return _head_decoder.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return _head_decoder.decode(write_window(read_window(value)))
