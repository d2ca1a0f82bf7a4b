"""A batch seen otherwise: the same rows in the same order, of other series and with fewer fields.

An engine over it makes windows of environments or of segments with everything that holds for those of the series:
which events are late, when panes close, what a crash or another cutting of the log may change (nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.aggregation import hitters as hitting
from agents.aggregation.hitters import Hitters
from agents.aggregation.names import NONE, FirstNames, States, printable
from schemas.windows import ALL, COMMON
from streams.batch import SeriesKey, TelemetryBatch
from streams.compiled import compiled
from streams.windows import grouping
from streams.windows.layout import OTHER
from streams.windows.levels import in_segment

IntArray = NDArray[np.int64]
FieldArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]

SEGMENT, FEATURE = "segment.", "feature."
#: The model, version and component of series for which there is no room.
FOLDED = "other"


def environments(batch: TelemetryBatch) -> TelemetryBatch:
    """The rows by environment."""
    keys = [SeriesKey(series.environment, ALL, ALL, ALL) for series in batch.keys]
    found, of_series = _distinct(keys)
    return replace(_fewer(batch, lambda name: name in COMMON), keys=found, series=of_series[batch.series])


def without_segments(batch: TelemetryBatch) -> TelemetryBatch:
    """The rows without the fields that name their segments."""
    return _fewer(batch, lambda name: not name.startswith(SEGMENT))


def segments(batch: TelemetryBatch, key: str, hitters: Hitters, states: hitting.States, topic: str) -> TelemetryBatch:
    """The rows by series and value of a segment key; features are left out. Rows without the key are `<none>`."""
    if not len(batch):
        return batch
    texts, value = _values(batch, f"{SEGMENT}{key}=")
    families, of_series = _families(key, batch.keys)
    called = hitters.call(states, families, texts, hitting.Events(
        of_series[batch.series], batch.ts_ms // hitters.slot_ms, np.where(value < len(texts), value, -1), batch.offset),
        topic, batch.last_offset)
    names = [*texts, NONE, OTHER]
    called[called == hitting.OTHERS] = len(texts) + 1
    called[value == -1] = len(texts)
    ids, found = grouping.distinct(batch.series * np.int64(len(names)) + called)
    keys = [in_segment(batch.keys[code // len(names)], key, names[code % len(names)]) for code in found.tolist()]
    kept = _fewer(batch, lambda name: not name.startswith((SEGMENT, FEATURE)))
    return replace(kept, keys=keys, series=ids.astype(np.int32))


def capped(batch: TelemetryBatch, names: FirstNames, states: States) -> tuple[TelemetryBatch, int]:
    """The rows with at most so many series a partition and span, the others' as one of their environment; and how many
    rows that are."""
    if not len(batch):
        return batch, 0
    ids, found = _in_spans(batch.series.astype(np.int64), batch.ts_ms // names.span_ms)
    keys = [_named(batch.keys[number], span, names, states) for number, span in found]
    folded = np.array([key.model == FOLDED and key != batch.keys[number]
                       for key, (number, _) in zip(keys, found, strict=True)], np.bool_)
    if not folded.any():
        return batch, 0
    distinct, of_code = _distinct(keys)
    return replace(batch, keys=distinct, series=of_code[ids]), int(folded[ids].sum())


def _named(series: SeriesKey, span: int, names: FirstNames, states: States) -> SeriesKey:
    if names.name(states, ("series",), span, "\x1f".join(series)) != OTHER:
        return series
    return SeriesKey(series.environment, FOLDED, FOLDED, FOLDED)


def _in_spans(codes: IntArray, spans: IntArray) -> tuple[IntArray, list[tuple[int, int]]]:
    """(ids (n,), the distinct (code, span) in order of first appearance) of each row's code and span of time."""
    low = int(spans.min())
    width = int(spans.max()) - low + 1
    ids, found = grouping.distinct(codes * width + (spans - low))
    return ids, [(code // width, code % width + low) for code in found.tolist()]


def _values(batch: TelemetryBatch, prefix: str) -> tuple[list[str], IntArray]:
    """The distinct values of a segment key, and the number of each row's (n,): -1 of rows without the key; of those
    with a name of ours as many as there are values."""
    numbers: dict[str, int] = {}
    of_field = np.full(len(batch.fields), -1, np.int64)
    ours = []
    for at, name in enumerate(batch.fields):
        if name.startswith(prefix):
            text = printable(name.removeprefix(prefix))
            if text in (NONE, OTHER):
                ours.append(at)
            else:
                of_field[at] = numbers.setdefault(text, len(numbers))
    of_field[ours] = len(numbers)
    return list(numbers), of_rows(batch.start, batch.field, of_field)


def _families(key: str, keys: Sequence[SeriesKey]) -> tuple[list[str], IntArray]:
    """The families of a segment key's values: its models; and the number of each series' (keys,)."""
    numbers: dict[str, int] = {}
    of_series = [numbers.setdefault("\x1f".join((key, one.environment, one.model)), len(numbers)) for one in keys]
    return list(numbers), np.array(of_series, np.int64)


def _distinct(keys: Sequence[SeriesKey]) -> tuple[list[SeriesKey], FieldArray]:
    """The keys, each once in order of first appearance; and the place of each there (keys,)."""
    places: dict[SeriesKey, int] = {}
    where = np.array([places.setdefault(key, len(places)) for key in keys], np.int32)
    return list(places), where


def _fewer(batch: TelemetryBatch, wanted: Callable[[str], bool]) -> TelemetryBatch:
    """The rows with the wanted fields only."""
    names = [name for name in batch.fields if wanted(name)]
    if len(names) == len(batch.fields):
        return batch
    number = np.full(len(batch.fields), -1, np.int32)
    number[[at for at, name in enumerate(batch.fields) if wanted(name)]] = np.arange(len(names))
    start, field, value = kept(batch.start, batch.field, batch.value, number, len(names))
    return replace(batch, start=start, field=field, value=value, fields=names)


@compiled
def kept(start: IntArray, field: FieldArray, value: FloatArray, number: FieldArray, most: int
         ) -> tuple[IntArray, FieldArray, FloatArray]:
    """(start (n + 1,), field (k,), value (k,)) of the values whose field has a number, by that; a row has `most`."""
    out_start, out_field, out_value = np.zeros(len(start), np.int64), np.empty_like(field), np.empty_like(value)
    size = 0
    for row in range(len(start) - 1):
        for at in range(start[row], start[row + 1]):
            if number[field[at]] >= 0:
                out_field[size], out_value[size] = number[field[at]], value[at]
                size += 1
                if size - out_start[row] == most:
                    break
        out_start[row + 1] = size
    return out_start, out_field[:size].copy(), out_value[:size].copy()


@compiled
def of_rows(start: IntArray, field: FieldArray, of_field: IntArray) -> IntArray:
    """(n,) what the last of each row's values that means something means; -1 if none does."""
    found = np.full(len(start) - 1, -1, np.int64)
    for row in range(len(found)):
        for at in range(start[row], start[row + 1]):
            if of_field[field[at]] >= 0:
                found[row] = of_field[field[at]]
    return found


def warm() -> None:
    """Compile, or load from the cache."""
    start, field = np.array([0, 1]), np.zeros(1, np.int32)
    kept(start, field, np.zeros(1), np.zeros(1, np.int32), 1)
    of_rows(start, field, np.zeros(1, np.int64))
    hitting.warm()
