"""Rows of `metric_windows` into series for people: partitions added up, sketches turned into quantiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streams.windows.sketch import quantile

Row = dict[str, Any]
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_ADDED = ("count", "errors")


def series(rows: Iterable[Mapping[str, Any]], field: str = "") -> list[Row]:
    """One window for each (start_ms, version, component), from rows in that order, one a partition.

    With `field`, its figures are under `value` (null where the window has no such field); without, all are under
    `fields`.
    """
    groups = itertools.groupby(rows, key=lambda row: (row["start_ms"], row["version"], row["component"]))
    return [_window(key, list(group), field) for key, group in groups]


def _window(key: tuple[int, str, str], rows: Sequence[Mapping[str, Any]], field: str) -> Row:
    found: Row = {"start_ms": key[0], "version": key[1], "component": key[2],
                  **{name: sum(row[name] for row in rows) for name in _ADDED}, "partitions": len(rows)}
    merged: Row = {}
    for row in rows:
        for name, summary in row["fields"].items():
            if summary is not None:
                merged[name] = merge(merged[name], summary) if name in merged else summary
    if field:
        return found | {"value": figures(merged[field]) if field in merged else None}
    return found | {"fields": {name: figures(summary) for name, summary in sorted(merged.items())}}


def merge(a: Row, b: Row) -> Row:
    """Two summaries as one.

    Source: Chan, Golub, LeVeque, Stanford STAN-CS-79-773 (1979), for mean and m2. Deviations: none.
    """
    count, missing = a["count"] + b["count"], a["missing"] + b["missing"]
    sketch: dict[int, int] = {}
    for code, many in itertools.chain(a["sketch"], b["sketch"]):
        sketch[code] = sketch.get(code, 0) + many
    both = {"count": count, "missing": missing, "sum": a["sum"] + b["sum"], "sketch": sorted(sketch.items())}
    if a["mean"] is None or b["mean"] is None:
        other = b if a["mean"] is None else a
        return both | {name: other[name] for name in ("mean", "m2", "min", "max")}
    step = b["mean"] - a["mean"]
    return both | {"mean": a["mean"] + step * b["count"] / count,
                   "m2": a["m2"] + b["m2"] + step * step * a["count"] * b["count"] / count,
                   "min": min(a["min"], b["min"]), "max": max(a["max"], b["max"])}


def figures(summary: Row) -> Row:
    """What people read: count, missing, mean, std, min, max and quantiles (within 1%). null where nothing is known."""
    count, buckets = summary["count"], [(code, many) for code, many in summary["sketch"]]
    std = math.sqrt(summary["m2"] / (count - 1)) if count > 1 and summary["mean"] is not None else None
    return {"count": count, "missing": summary["missing"], "mean": summary["mean"], "std": std, "min": summary["min"],
            "max": summary["max"], **{name: quantile(buckets, q) for name, q in QUANTILES.items()}}
