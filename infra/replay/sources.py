"""Files as rows: CSV, NDJSON, Parquet and npz, read one row at a time. A bad row is a value, a bad file an error."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infra.embedded.process import INSTALL

SAMPLE_ROWS = 200
_MOST_CSV_FIELD = 1_000_000


class SourceError(Exception):
    """A file that cannot be replayed; the text says what to do."""

    code = "replay_source"
    retriable = False


class Row(NamedTuple):
    """One row: its number from 1, and its values by column, or why it has none."""

    number: int
    values: dict[str, Any] | None
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """A readable file. `numeric` are the columns whose first rows hold numbers; `count` is about its rows."""

    path: Path
    columns: tuple[str, ...]
    numeric: tuple[str, ...]
    count: int
    read: Callable[[], Iterator[Row]]


def open_source(path: Path, array: str | None = None) -> Source:
    """Look at a file; its ending says what it is.

    Raises:
        SourceError: it is not there, not readable, or none of the kinds.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    kinds = {".csv": _csv, ".tsv": _csv, ".ndjson": _ndjson, ".jsonl": _ndjson, ".parquet": _parquet, ".pq": _parquet}
    ending = path.suffix.lower()
    try:
        if ending == ".npz":
            return _npz(path, array)
        if ending in kinds:
            return kinds[ending](path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    raise SourceError(f"{path}: what is it? Known endings: .csv .tsv .ndjson .jsonl .parquet .pq .npz")


def is_number(value: Any) -> bool:
    """True for what stands for a number: not booleans, not empty text."""
    if isinstance(value, bool) or value is None:
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _sampled(path: Path, count: int, read: Callable[[], Iterator[Row]], columns: tuple[str, ...] = ()) -> Source:
    """A source whose columns' kinds, and names if there is no header, are those of its first rows."""
    sample = [row.values for row in islice(read(), SAMPLE_ROWS) if row.values is not None]
    names = columns or tuple(dict.fromkeys(name for values in sample for name in values))
    if not names:
        raise SourceError(f"{path} holds no row with columns")

    def numeric(name: str) -> bool:
        present = [values[name] for values in sample if values.get(name) not in (None, "")]
        return bool(present) and all(is_number(value) for value in present)

    return Source(path, names, tuple(name for name in names if numeric(name)), count, read)


def _csv(path: Path) -> Source:
    csv.field_size_limit(_MOST_CSV_FIELD)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(_MOST_CSV_FIELD)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else "," if "," in first or ";" not in first else ";"
        file.seek(0)
        try:
            header = next(csv.reader(file, delimiter=delimiter), [])
        except csv.Error as error:
            raise SourceError(f"{path} has no header line: {error}") from error
    names = tuple(name.strip() for name in header)
    if not names or len(set(names)) != len(names) or "" in names:
        raise SourceError(f"{path}: the first line must name every column, each once; it is {','.join(header)[:100]!r}")
    return _sampled(path, max(0, _lines(path) - 1), lambda: _csv_rows(path, names, delimiter), names)


def _csv_rows(path: Path, names: tuple[str, ...], delimiter: str) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        number = 0
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Row(number, None, f"not CSV: {error}")
                continue
            if not values:
                continue
            number += 1
            if len(values) != len(names):
                yield Row(number, None, f"{len(values)} values for {len(names)} columns")
            else:
                yield Row(number, dict(zip(names, values, strict=True)))


def _ndjson(path: Path) -> Source:
    return _sampled(path, _lines(path), lambda: _ndjson_rows(path))


def _ndjson_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, None, f"not JSON: {error}"[:200])
                continue
            if isinstance(values, dict):
                yield Row(number, values)
            else:
                yield Row(number, None, "not a JSON object")


def _parquet(path: Path) -> Source:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise SourceError(f"Parquet needs pyarrow: {INSTALL}") from None
    try:
        with parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
    except arrow.ArrowException as error:
        raise SourceError(f"{path} is not a Parquet file: {error}") from error
    kinds = arrow.types
    numeric = tuple(field.name for field in schema if kinds.is_integer(field.type) or kinds.is_floating(field.type)
                    or kinds.is_decimal(field.type))
    return Source(path, tuple(schema.names), numeric, count, lambda: _parquet_rows(path))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    number = 0
    with parquet.ParquetFile(path) as file:
        try:
            for batch in file.iter_batches(batch_size=4_096):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
        except arrow.ArrowException as error:
            yield Row(number + 1, None, f"the file breaks off here: {error}"[:200])


def _npz(path: Path, array: str | None) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            if array is None:
                wide = [name for name in names if file[name].ndim == 2]
                array = "X_test" if "X_test" in wide else (wide[0] if len(wide) == 1 else None)
            if array is None or array not in names:
                raise SourceError(f"{path}: which array? Give --array, one of {', '.join(names)}")
            data = file[array]
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{path} is not a readable npz file: {error}") from error
    if data.ndim not in (1, 2) or data.dtype.kind not in "iufb":
        raise SourceError(f"{path}: {array} has shape {data.shape} and type {data.dtype}; "
                          "rows of numbers, (n,) or (n, k), are needed")
    table = np.asarray(data, np.float64).reshape(len(data), -1)
    columns = ("value",) if data.ndim == 1 else tuple(f"x{j:02d}" for j in range(table.shape[1]))

    def read() -> Iterator[Row]:
        for number, values in enumerate(table, 1):
            yield Row(number, dict(zip(columns, values.tolist(), strict=True)))

    return Source(path, columns, columns, len(table), read)
