"""Quantiles that come out of closed windows, against exact ones, on real series."""

import os
from pathlib import Path

import numpy as np
import pytest
from aggregation_support import BASE, World

from agents.aggregation.engine import AggregationOptions
from streams.batch import SeriesKey, TelemetryBatch
from streams.windows.sketch import quantile

DATA = Path(os.environ.get("STREAMGAUGE_DATA", "../shared/data"))
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def columns(values: np.ndarray, offset: int, ts_ms: int) -> TelemetryBatch:
    """values (n, fields), one row a millisecond."""
    rows, fields = values.shape
    return TelemetryBatch(
        0, offset, offset + rows - 1, np.arange(offset, offset + rows), np.zeros(rows, np.int64),
        ts_ms + np.arange(rows), np.zeros(rows, np.int32), np.zeros(rows, np.bool_), np.arange(rows + 1) * fields,
        np.tile(np.arange(fields, dtype=np.int32), rows), np.ascontiguousarray(values, np.float64).ravel(),
        [SeriesKey("prod", "real", "1", "model")], [f"metric.m{at}" for at in range(fields)],
        [""] * rows, [None] * rows, [])


def check(values: np.ndarray, cut: int = 997) -> None:
    """The coarsest window's quantiles of every column of values (n, fields)."""
    size = 2_000
    whole = size * (len(values) // size + 2)
    start = BASE - BASE % whole
    world = World(AggregationOptions((size, whole), delay_ms=0, grace_ms=0))
    windows = []
    for at in range(0, len(values), cut):
        windows += world.engine.run(columns(values[at:at + cut], at, start + at), world.states, "telemetry").windows
    windows += world.engine.run(columns(values[:1], len(values), start + whole), world.states, "telemetry").windows
    (window,) = [found for found in windows if found.size_ms == whole]
    assert window.count == len(values)
    for number, name in enumerate(window.fields):
        ordered = np.sort(values[:, number])
        assert sum(count for _, count in window.fields[name].sketch) == len(values)
        for q in QUANTILES:
            exact, answer = ordered[int(q * (len(ordered) - 1))], quantile(window.fields[name].sketch, q)
            assert answer is not None
            assert abs(answer - exact) <= 0.01 * abs(exact) * (1 + 1e-9), (name, q)


def test_quantiles_of_windows_over_real_series_are_within_one_percent() -> None:
    files = sorted((DATA / "nab").rglob("real*/*.csv"))[::6]
    if not files:
        pytest.skip(f"no data in {DATA / 'nab'}: set STREAMGAUGE_DATA")
    for file in files:
        check(np.array([[float(line.split(",")[1])] for line in file.read_text().splitlines()[1:]]))


def test_quantiles_of_windows_over_server_metrics_are_within_one_percent() -> None:
    files = sorted((DATA / "smd").glob("*.npz"))[:1]
    if not files:
        pytest.skip(f"no data in {DATA / 'smd'}: set STREAMGAUGE_DATA")
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            check(found["X_test"][:12_000].astype(np.float64))
