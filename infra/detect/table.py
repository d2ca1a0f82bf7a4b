"""A file's numeric columns and times as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.replay.mapping import TIME_NAMES, instant_ms
from infra.replay.sources import Row, Source, SourceError, is_number, open_source

Array = NDArray[np.float64]
#: Columns whose name says that they are the truth are not scored unless asked for.
LABEL_NAMES = ("label", "labels", "anomaly", "is_anomaly", "outlier", "target")
#: What a label says of an anomaly.
TRUE = ("1", "1.0", "true", "t", "yes", "y", "anomaly", "anomalous", "outlier")
EVERY_ROWS = 2_000


@dataclass(slots=True)
class Skipped:
    """Rows that were left out and values that were no numbers."""

    rows: int = 0
    values: int = 0
    first: str = ""
    disordered: int = 0

    def row(self, row: Row, why: str) -> None:
        self.rows += 1
        self.first = self.first or f"row {row.number}: {why}"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Values (n, k) by column, NaN where missing; times in epoch ms (n,), NaN without a clock; row numbers (n,)."""

    columns: tuple[str, ...]
    values: Array
    ts_ms: Array
    numbers: NDArray[np.int64]
    time: str = ""
    labels: NDArray[np.bool_] | None = None
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def has_clock(self) -> bool:
        return bool(len(self.ts_ms)) and not bool(np.isnan(self.ts_ms).all())


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user said about the file. Empty: find out."""

    columns: tuple[str, ...] = ()
    time: str = ""
    time_format: str = ""
    interval_ms: int = 0
    label: str = ""
    array: str | None = None


def read(path: Path, choice: Choice, tell: Callable[[int, int], None]) -> Series:
    """The file; `tell` is called with rows read and about how many there are.

    Raises:
        SourceError: it cannot be read, or has no such column, or no row of numbers.
    """
    source = open_source(path, choice.array)
    time = choice.time or _time_of(source, choice)
    label = choice.label or _label_of(source, choice)
    columns = choice.columns or tuple(name for name in source.numeric if name not in (time, label))
    missing = sorted({*columns, *filter(None, (time, choice.label))} - set(source.columns))
    if missing:
        raise SourceError(f"{path} has no column {', '.join(missing)}; it has {', '.join(source.columns[:20])}")
    if not columns:
        raise SourceError(f"{path} has no column of numbers to score; it has {', '.join(source.columns[:20])}")
    skipped, values, times, numbers, truths = Skipped(), [], [], [], []
    for row in source.read():
        if row.number % EVERY_ROWS == 0:
            tell(row.number, source.count)
        if row.values is None:
            skipped.row(row, row.fault)
            continue
        try:
            instant = instant_ms(row.values.get(time), choice.time_format)[0] if time else (
                row.number * choice.interval_ms if choice.interval_ms else np.nan)
        except ValueError as error:
            skipped.row(row, str(error))
            continue
        values.append([_number(row.values.get(name), skipped) for name in columns])
        times.append(instant)
        numbers.append(row.number)
        truths.append(str(row.values.get(label, "")).strip().lower() in TRUE)
    if not values:
        raise SourceError(f"{path} has no row to score" + (f"; {skipped.first}" if skipped.first else ""))
    ts_ms = np.array(times, np.float64)
    skipped.disordered = int((np.diff(ts_ms) < 0).sum())
    return Series(columns, np.array(values, np.float64), ts_ms, np.array(numbers), time or (
        "interval" if choice.interval_ms else ""), np.array(truths) if label else None, skipped)


def _time_of(source: Source, choice: Choice) -> str:
    by_name = {name.lower(): name for name in source.columns}
    return "" if choice.interval_ms else next((by_name[name] for name in TIME_NAMES if name in by_name), "")


def _label_of(source: Source, choice: Choice) -> str:
    return next((name for name in source.columns if name.lower() in LABEL_NAMES and name not in choice.columns), "")


def _number(value: object, skipped: Skipped) -> float:
    if is_number(value):
        return float(value)         # type: ignore[arg-type]
    skipped.values += value not in (None, "")
    return np.nan


def places(marks: NDArray[np.bool_]) -> Sequence[int]:
    """Where marks are True."""
    found: list[int] = np.flatnonzero(marks).tolist()
    return found
