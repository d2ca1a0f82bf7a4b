"""A batch as a matrix for each detector: a few compiled passes over all of it, and little Python for a key.

Most keys of a batch have the same features as others, in the same order: a layout. What is worked out by name is worked
out once a layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.scoring import columns
from agents.scoring.detectors.by_name import MAX_FEATURES
from agents.scoring.detectors.clocked import TIME, Clocked
from agents.scoring.detectors.registry import Made
from agents.scoring.state import CONFIDENCE
from streams.batch import TelemetryBatch

FEATURE = "feature."
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def is_input(field: str) -> bool:
    """True for the fields that are scored: numeric features, and confidence. Categories (NAME=VALUE) are not."""
    return field == CONFIDENCE or (field.startswith(FEATURE) and "=" not in field)


class Inputs:
    """What the detectors of a batch's keys take: row i of key g's matrix is row `order[bounds[g] + i]` of the batch."""

    def __init__(self, batch: TelemetryBatch, key_of_row: IntArray, detectors: Sequence[Made]) -> None:
        """key_of_row (n,): index into `detectors`, -1: the row is left out. New features get columns."""
        self.order, bounds = columns.group(key_of_row, len(detectors))
        self.bounds: list[int] = bounds.tolist()
        wanted = np.array([is_input(name) for name in batch.fields], np.bool_)
        self._clocked = any(issubclass(kind, Clocked) for kind in set(map(type, detectors)))
        for detector in detectors if self._clocked else ():
            if isinstance(detector, Clocked):
                detector.column(TIME)
        layouts = _Layouts(detectors, batch.fields, wanted)
        lacking = columns.lacking(self.order, bounds, layouts.of, layouts.column, wanted, batch.start, batch.field)
        lacking &= layouts.width < MAX_FEATURES
        if lacking.any():
            for at in np.flatnonzero(lacking).tolist():
                rows = self.order[self.bounds[at]:self.bounds[at + 1]]
                found = columns.distinct(rows, batch.start, batch.field, wanted)
                detectors[at].extend(batch.fields[field] for field in found.tolist())
            layouts = _Layouts(detectors, batch.fields, wanted)
        self._width: list[int] = layouts.width.tolist()
        self._flat, begin = columns.scatter(self.order, bounds, layouts.of, layouts.column, layouts.width, batch.start,
                                            batch.field, batch.value)
        self._begin: list[int] = begin.tolist()
        self._ts_ms = batch.ts_ms

    def rows(self, at: int) -> IntArray:
        """The batch's rows of a key, in log order."""
        return self.order[self.bounds[at]:self.bounds[at + 1]]

    def matrix(self, at: int, detector: Made) -> FloatArray:
        """A key's rows (n, k) in its detector's columns; a view."""
        found = self._flat[self._begin[at]:self._begin[at + 1]].reshape(self.bounds[at + 1] - self.bounds[at],
                                                                        self._width[at])
        if self._clocked and isinstance(detector, Clocked):
            found[:, detector.columns[TIME]] = self._ts_ms[self.rows(at)]
        return found


class _Layouts:
    """of (keys,): the number of each key's layout; column (layouts, fields): -1 is none; width (keys,): columns."""

    def __init__(self, detectors: Sequence[Made], fields: list[str], wanted: NDArray[np.bool_]) -> None:
        numbers: dict[tuple[str, ...], int] = {}
        self.of = np.array([numbers.setdefault(tuple(detector.columns), len(numbers)) for detector in detectors],
                           np.int64)
        self.width = np.array([len(names) for names in numbers], np.int64)[self.of]
        self.column = np.full((len(numbers), len(fields)), -1, np.int64)
        for number, names in enumerate(numbers):
            places = {name: place for place, name in enumerate(names)}
            self.column[number] = [places.get(name, -1) if known else -1
                                   for name, known in zip(fields, wanted.tolist(), strict=True)]


def warm() -> None:
    """Compile, or load from the cache."""
    key, start, field, value = np.zeros(1, np.int64), np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1)
    order, bounds = columns.group(key, 1)
    column, wanted = np.zeros((1, 1), np.int64), np.ones(1, np.bool_)
    columns.lacking(order, bounds, key, column, wanted, start, field)
    columns.distinct(order, start, field, wanted)
    columns.scatter(order, bounds, key, column, np.ones(1, np.int64), start, field, value)
