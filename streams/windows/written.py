"""A closed pane straight to the JSON of its window: byte for byte what `write_window` makes of it, and quicker.

Numbers are written by msgspec, all of a pane's at once; one compiled pass weaves them between names, counts and sketch.
Sums that overflowed take the long way, over `Pane.summaries`.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.windows import series_digest
from streams.batch import SeriesKey
from streams.compiled import bare
from streams.windows import sketch, summary
from streams.windows.panes import Pane, PaneKey
from streams.windows.record import WindowRecord, write_window

Bytes = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]

#: Numbers of a field that are not counts: sum, min, max, mean, M2.
_NUMBERS = 5
#: Bytes that a field takes at the most, beside its name, its numbers and its sketch; and a bucket.
_FIELD_BYTES, _BUCKET_BYTES = 192, 32
#: The texts between a field's values, and where each begins.
_TEXTS = (b'{"count":', b',"schema_version":1,"missing":', b',"sum":', b',"min":', b',"max":', b',"mean":', b',"m2":',
          b',"sketch":[', b'0.0,"min":null,"max":null,"mean":null,"m2":0.0,"sketch":[', b',"sketched":')
_TEXT = np.frombuffer(b"".join(_TEXTS), np.uint8)
_AT = np.cumsum([0, *map(len, _TEXTS)])
_encode = msgspec.json.Encoder().encode
_kept = threading.local()
_NONE = np.empty(0, np.uint8)
digest = lru_cache(maxsize=65_536)(series_digest)


class WrittenWindow(NamedTuple):
    """A record of `metrics`: its key and its value."""

    window_id: str
    value: bytes


def written(key: PaneKey, closed: Pane, partition: int, closed_ms: int) -> WrittenWindow:
    """The record of a pane that closes, or is amended."""
    record = window(key, closed, partition, closed_ms, with_fields=False)
    fields = fields_json(closed)
    if fields is None:
        return WrittenWindow(record.window_id, write_window(window(key, closed, partition, closed_ms)))
    return WrittenWindow(record.window_id, write_window(record)[:-3] + fields + b"}")


def window(key: PaneKey, closed: Pane, partition: int, closed_ms: int, with_fields: bool = True) -> WindowRecord:
    """The same as an object."""
    return WindowRecord(
        schema_version=1, environment=key.series.environment, model=key.series.model, version=key.series.version,
        component=key.series.component, start_ms=key.start_ms, size_ms=key.size_ms,
        window_id=f"w-{_of(key.series)}-{key.size_ms}-{key.start_ms}-{partition}", partition=partition,
        count=closed.count, errors=closed.errors, revision=closed.revision, closed_ms=max(0, closed_ms),
        fields=closed.summaries() if with_fields else {})


def _of(series: SeriesKey) -> str:
    return digest(*series)


def fields_json(pane: Pane) -> bytes | None:
    """The JSON object of a pane's fields; None if some of its sums are not finite."""
    names, ends = pane.layout.quoted
    if not len(ends):
        return b"{}"
    numbers = np.empty(len(ends) * _NUMBERS)
    if not _numbers(pane.table, numbers):
        return None
    text = np.frombuffer(_encode(numbers.tolist()), np.uint8)
    keys, counts = pane.sketches.arrays()
    left = np.zeros(len(ends), np.int64)
    if pane.left is not None:
        left[:len(pane.left)] = pane.left
    out = _room(len(names) + len(text) + len(ends) * _FIELD_BYTES + len(keys) * _BUCKET_BYTES)
    return out[:_weave(names, ends, pane.table, left, text, keys, counts, _TEXT, _AT, out)].tobytes()


def _room(size: int) -> Bytes:
    """At least so many bytes, which are the next caller's afterwards: to get new ones takes as long as to fill them."""
    found: Bytes = getattr(_kept, "room", _NONE)
    if len(found) < size:
        found = _kept.room = np.empty(2 * size, np.uint8)
    return found


def warm() -> None:
    """Compile the kernels, or load them from their cache."""
    from streams.windows.layout import Layouts
    pane = Pane(Layouts().of(("a",)))
    pane.sketches.add(np.zeros(1, np.int32))
    fields_json(pane)


@bare
def _numbers(table: FloatArray, out: FloatArray) -> bool:
    """Sum, min, max, mean, M2 of every row into `out` (rows * 5,), 0 of an empty one; False if any is not finite."""
    for row in range(len(table)):
        for at in range(5):
            found = table[row, summary.SUM + at] if table[row, summary.COUNT] > 0 else 0.0
            if not np.isfinite(found):
                return False
            if at == 4 and not found > 0.0:
                found = 0.0
            out[row * 5 + at] = found
    return True


@bare
def _weave(names: Bytes, ends: IntArray, table: FloatArray, left: IntArray, text: Bytes, keys: KeyArray,
           counts: IntArray, texts: Bytes, at_text: IntArray, out: Bytes) -> int:
    """Write the object into `out`; its size. `names`: each as `"name":`, up to ends[i]; `text`: a JSON list."""
    out[0] = 123                                            # {
    size, name, number, key = 1, 0, 1, 0
    for row in range(len(ends)):
        if row:
            out[size] = 44                                  # ,
            size += 1
        size = _copy(names, name, ends[row], out, size)
        name = ends[row]
        size = _copy(texts, at_text[0], at_text[1], out, size)
        size = _integer(np.int64(table[row, summary.COUNT]), out, size)
        size = _copy(texts, at_text[1], at_text[2], out, size)
        size = _integer(np.int64(table[row, summary.MISSING]), out, size)
        size = _copy(texts, at_text[2], at_text[3], out, size)
        empty = table[row, summary.COUNT] == 0
        if empty:
            size = _copy(texts, at_text[8], at_text[9], out, size)
        for part in range(5):
            end = number
            while text[end] != 44 and text[end] != 93:      # , ]
                end += 1
            if not empty:
                size = _copy(text, number, end, out, size)
                if part == 4 and left[row]:
                    size = _copy(texts, at_text[9], at_text[10], out, size)
                    size = _integer(np.int64(table[row, summary.COUNT]) - left[row], out, size)
                size = _copy(texts, at_text[3 + part], at_text[4 + part], out, size)
            number = end + 1
        first = True
        while key < len(keys) and keys[key] >> sketch.CODE_BITS == row:
            if not first:
                out[size] = 44
                size += 1
            out[size] = 91                                  # [
            size = _integer(np.int64((keys[key] & sketch.CODE_MASK) - sketch.SPAN), out, size + 1)
            out[size] = 44
            size = _integer(counts[key], out, size + 1)
            out[size] = 93                                  # ]
            size, key, first = size + 1, key + 1, False
        out[size], out[size + 1] = 93, 125                  # ] }
        size += 2
    out[size] = 125                                         # }
    return size + 1


@bare
def _copy(source: Bytes, low: int, high: int, out: Bytes, size: int) -> int:
    for at in range(low, high):
        out[size + at - low] = source[at]
    return size + high - low


@bare
def _integer(value: int, out: Bytes, size: int) -> int:
    if value < 0:
        out[size] = 45                                      # -
        size, value = size + 1, -value
    if value < 10:
        out[size] = 48 + value
        return size + 1
    rest, digits, most = np.uint64(value), 2, np.uint64(100)    # division of unsigned ones is a multiplication
    while digits < 19 and rest >= most:
        digits, most = digits + 1, most * np.uint64(10)
    for at in range(size + digits - 1, size - 1, -1):
        left = rest // np.uint64(10)
        out[at] = 48 + (rest - left * np.uint64(10))
        rest = left
    return size + digits
