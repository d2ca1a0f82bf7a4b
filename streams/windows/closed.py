"""Closed windows as those who watch them read them: heads as objects, fields as columns of a whole batch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.lean.names import Names
from streams.records import RecordBatch
from streams.windows import reading
from streams.windows.reading import Columns
from streams.windows.record import SummaryRecord, WindowRecord, read_head, read_window, write_window
from streams.windows.sketch import SPAN
from streams.wire import Block, WireRecord

#: (environment, model, version, component)
_Subject: TypeAlias = tuple[str, str, str, str]
_MOST_HEADS = 65_536
_fields = msgspec.json.Decoder(WindowRecord)


class FieldNames:
    """The names of fields by their number in columns: each once, new ones at the end."""

    def __init__(self) -> None:
        self.names, self.texts = Names(), list[str]()

    def add(self, text: str) -> int:
        """The number of a name."""
        number = self.names.add(reading.FIELD, text)
        if number == len(self.texts):
            self.texts.append(text)
        return number


class Fields(msgspec.Struct, frozen=True):
    """Fields of windows as columns, and what their names are."""

    columns: Columns
    known: FieldNames


class ReadWindow(msgspec.Struct, frozen=True, dict=True):
    """See `schemas.windows.MetricWindow`. Its fields are rows `low` to `high` of a batch's; `at` is its own."""

    environment: str
    model: str
    version: str
    component: str
    start_ms: int
    size_ms: int
    partition: int
    count: int
    errors: int
    revision: int
    closed_ms: int
    low: int
    high: int
    at: int
    value: NDArray[np.int64]
    read: Fields

    @property
    def window_id(self) -> str:
        columns = self.read.columns
        begin, end = columns.window[self.at, reading.ID:reading.ID_END + 1].tolist()
        return columns.data[begin:end].tobytes().decode()

    @property
    def fields(self) -> dict[str, SummaryRecord]:
        """All of them as objects, made when they are first asked for."""
        found = cast("dict[str, SummaryRecord] | None", self.__dict__.get("fields_made"))
        if found is None:
            begin, end = self.value[self.at].tolist()
            found = self.__dict__["fields_made"] = _fields.decode(self.read.columns.data[begin:end].data).fields
        return found

    def summary(self, name: str) -> SummaryRecord | None:
        """One of them; None if it is not there."""
        texts, columns = self.read.known.texts, self.read.columns
        for row, number in enumerate(columns.field[self.low:self.high, reading.NAME].tolist(), self.low):
            if texts[number] == name:
                return _summary(columns, row)
        return None


def warm() -> None:
    """Compile the reader, or load it from its cache."""
    value = write_window(WindowRecord(environment="e", model="m", version="1", component="c", window_id="w", start_ms=0,
                                      size_ms=1, partition=0, count=0, errors=0, closed_ms=0))
    list(WindowReader(1).read(RecordBatch("", 0, [WireRecord(0, 0, None, value)])))


#: What `messages.windows` reads.
ClosedWindow: TypeAlias = WindowRecord | ReadWindow


def _summary(columns: Columns, row: int) -> SummaryRecord:
    _, count, missing, begin, end = columns.field[row].tolist()
    total, least, most, mean, m2 = columns.number[row].tolist()
    return SummaryRecord(count=count, missing=missing, sum=total, min=_known(least), max=_known(most),
                         mean=_known(mean), m2=m2, buckets=msgspec.Raw(columns.data[begin:end].tobytes()))


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


class WindowReader:
    """Reads the windows of one size from records of `metrics`. Remembers names, and what heads begin with."""

    def __init__(self, size_ms: int) -> None:
        self._size = np.frombuffer(b"%d-" % size_ms, np.uint8)
        self._other = re.compile(rb"w-[0-9a-f]+-(?!%d-)" % size_ms).match
        self._known = FieldNames()
        self._heads: dict[bytes, _Subject] = {}

    def read(self, batch: RecordBatch) -> Iterator[tuple[int, ClosedWindow | ValueError]]:
        """(offset, window, or why it does not read) in log order."""
        if self._known.names.full:
            self._known = FieldNames()
        records = batch.columns
        out, others = _room(records, self._known), dict[int, ClosedWindow | ValueError]()
        at, row = self._read(records, 0, 0, out)
        while at < len(records):
            others[at] = self._slow(records, at)
            out = self._fit(out)
            after, row = self._read(records, at, row, out)      # again: its names may be all that was new
            if after == at:
                at, row = self._read(records, at + 1, row, out)
            else:
                del others[at]
                at = after
        return self._windows(records, Fields(out, self._known), others)

    def _read(self, records: Block, first: int, row: int, out: Columns) -> tuple[int, int]:
        return reading.read(records.key, records.value, self._size, self._known.names.table, first, row, out)

    def _fit(self, out: Columns) -> Columns:
        more = len(self._known.names.table.parent) - len(out.seen)
        return out._replace(seen=np.concatenate([out.seen, np.full(more, -1)])) if more > 0 else out

    def _slow(self, records: Block, at: int) -> ClosedWindow | ValueError:
        """A record that was left: as the contract reads it."""
        try:
            found = read_window(records[at].value or b"")
        except ValueError as error:             # pydantic's and msgspec's are
            return error
        for name in found.fields:
            self._known.add(name)
        return found

    def _windows(self, records: Block, fields: Fields, others: dict[int, ClosedWindow | ValueError]
                 ) -> Iterator[tuple[int, ClosedWindow | ValueError]]:
        data, value = fields.columns.data, records.value
        for at, row in enumerate(fields.columns.window.tolist()):
            head, _, _, start_ms, size_ms, partition, count, errors, revision, closed_ms, low, high = row
            if head == reading.PASSED_OVER:
                if at in others:
                    yield int(records.offset[at]), others[at]
                continue
            subject = self._subject(data[value[at, 0]:head].tobytes(), records, at)
            yield int(records.offset[at]), subject if isinstance(subject, ValueError) else ReadWindow(
                *subject, start_ms, size_ms, partition, count, errors, revision, closed_ms, low, high, at, value,
                fields)

    def _subject(self, head: bytes, records: Block, at: int) -> _Subject | ValueError:
        """What the window is of; the contract judges a beginning that is new."""
        found = self._heads.get(head)
        if found is None:
            try:
                whole = read_head(records[at].value or b"")
            except ValueError as error:
                return error
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            found = self._heads[head] = whole.environment, whole.model, whole.version, whole.component
        return found


def _room(records: Block, known: FieldNames) -> Columns:
    length = int(np.maximum(0, records.value[:, 1] - records.value[:, 0]).sum())
    fields, buckets = length // reading.FIELD_BYTES + 2, length // reading.BUCKET_BYTES + 2
    return Columns(records.buffer, np.empty((len(records), 12), np.int64), np.empty((fields, 5), np.int64),
                   np.empty((fields, 5)), np.zeros(fields + 1, np.int64), np.empty(buckets, np.int32),
                   np.empty(buckets, np.int64), np.full(len(known.names.table.parent), -1))


def fields_of(fields: Mapping[str, SummaryRecord], known: FieldNames) -> tuple[Fields, int, int]:
    """Fields that were read by themselves as columns, and their rows. Buckets that no sketch of ours has are left out.
    """
    size = len(fields)
    field, number = np.zeros((size, 5), np.int64), np.empty((size, 5))
    edge, codes, counts = [0], list[int](), list[int]()
    for row, (name, summary) in enumerate(fields.items()):
        field[row, :3] = known.add(name), min(summary.count, reading.MOST), min(summary.missing, reading.MOST)
        number[row] = [np.nan if each is None else each
                       for each in (summary.sum, summary.min, summary.max, summary.mean, summary.m2)]
        for code, count in summary.sketch:
            if -SPAN < code < SPAN and 0 < count <= reading.MOST:
                codes.append(code)
                counts.append(count)
        edge.append(len(codes))
    none = np.empty(0, np.uint8)
    return Fields(Columns(none, np.empty((0, 12), np.int64), field, number, np.array(edge), np.array(codes, np.int32),
                          np.array(counts, np.int64), np.empty(0, np.int64)), known), 0, size
