"""Points as a table: one row a point, one column a key or a figure (FIELD.STATISTIC); as CSV, or an Arrow stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
_NESTED = frozenset({"value", "fields", "quality", "classes"})
CSV_TYPE = "text/csv; charset=utf-8"
#: https://www.iana.org/assignments/media-types/application/vnd.apache.arrow.stream
ARROW_TYPE = "application/vnd.apache.arrow.stream"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def flat(points: Iterable[Row], field: str, **more: str) -> list[Row]:
    """Points without anything nested: `value` (of `field`), `fields` and `quality` become columns, `classes` go."""
    return [more | _flat(point, field) for point in points]


def _flat(point: Row, field: str) -> Row:
    row = {name: value for name, value in point.items() if name not in _NESTED}
    row |= point.get("quality", {})
    nested = point.get("fields") or {field: point.get("value") or {}}
    return row | {
        f"{name}.{figure}": value for name, found in nested.items() for figure, value in found.items()}


def columns(rows: Sequence[Row]) -> list[str]:
    """All columns, those of the first rows first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def to_csv(rows: Sequence[Row]) -> bytes:
    """RFC 4180 with a header; empty where nothing is known. A text that a spreadsheet would compute gets a quote before
    it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [_safe(name) for name in columns(rows)], lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({_safe(name): _safe(value) for name, value in row.items()})
    return out.getvalue().encode()


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def to_arrow(rows: Sequence[Row], texts: Sequence[str]) -> bytes:
    """An Arrow IPC stream of one table: `texts` are strings, start_ms is a timestamp in UTC, the rest are numbers."""
    import pyarrow as pa  # half a second, and only here

    def kind(name: str) -> pa.DataType:
        if name == "start_ms":
            return pa.timestamp("ms", "UTC")
        if name in texts:
            return pa.string()
        if name == "open":
            return pa.bool_()
        return pa.int64() if name in _WHOLE or name.rpartition(".")[2] in ("count", "missing") else pa.float64()

    schema = pa.schema([(name, kind(name)) for name in columns(rows)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in schema.names},
                                                schema=schema))
    return bytes(sink.getvalue())


_WHOLE = frozenset({"count", "errors", "partitions"})
