import json
import os
from pathlib import Path

import numpy as np
import pytest

from streams.windows.pane import Pane
from streams.windows.sketch import MAX_BUCKETS, bucket, bucket_value, collapse, quantile

DATA = Path(os.environ.get("STREAMGAUGE_DATA", "../shared/data"))


def sketch_of(values: list[float]) -> list[tuple[int, int]]:
    codes, counts = np.unique([bucket(value) for value in values], return_counts=True)
    return list(zip(codes.tolist(), counts.tolist(), strict=True))


def check(values: list[float]) -> None:
    found, ordered = sketch_of(values), sorted(values)
    for q in (0.0, 0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0):
        exact = ordered[int(q * (len(ordered) - 1))]
        answer = quantile(found, q)
        assert answer is not None
        assert abs(answer - exact) <= 0.01 * abs(exact) * (1 + 1e-9), q


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_within_one_percent_on_heavy_tails_of_both_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check((rng.standard_normal(5_000) * np.exp(3 * rng.standard_normal(5_000))).tolist() + [0.0] * 10)


def test_quantiles_are_within_one_percent_on_real_series() -> None:
    folder = DATA / "nab"
    files = sorted(folder.rglob("*.csv"))[:8]
    if not files:
        pytest.skip(f"no data in {folder}: set STREAMGAUGE_DATA")
    for file in files:
        values = [float(line.split(",")[1]) for line in file.read_text().splitlines()[1:]]
        check(values)


@pytest.mark.parametrize("value", [0.0, 5e-324, -5e-324, 1.0, -1.0, 1e300, -1e300, 1.7976931348623157e308])
def test_the_ends_of_the_number_line_have_buckets(value: float) -> None:
    assert bucket_value(bucket(value)) == pytest.approx(value, rel=0.0101, abs=1e-323)


def test_codes_ascend_with_the_values() -> None:
    values = [-1e9, -2.0, -1e-9, 0.0, 1e-9, 3.0, 1e9]
    assert [bucket(value) for value in values] == sorted(bucket(value) for value in values)


def test_a_sketch_too_large_collapses_its_lowest_buckets_and_keeps_every_count() -> None:
    codes = np.arange(3 * MAX_BUCKETS)
    kept, counts = collapse(codes, np.ones(len(codes), np.int64))
    assert len(kept) == MAX_BUCKETS
    assert counts.sum() == len(codes)
    assert kept[-1] == codes[-1]


def test_an_empty_sketch_has_no_quantile() -> None:
    assert quantile([], 0.5) is None


def test_a_pane_comes_back_as_it_was_and_every_truncation_raises() -> None:
    pane = Pane()
    pane.count, pane.errors, pane.emitted, pane.revision = 3, 1, True, 2
    slot = pane.slot("latency_ms")
    pane.table[slot] = [3, 0, 6, 1, 3, 2, 2]
    pane.add_sketch(np.array([slot] * 2), np.array([bucket(1.0), bucket(3.0)]), np.array([1, 2]))
    data = pane.encode()
    again = Pane.decode(data)
    assert again.encode() == data
    assert {k: json.loads(v.model_dump_json()) for k, v in again.summaries().items()} == {
        k: json.loads(v.model_dump_json()) for k, v in pane.summaries().items()}
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"pane|buffer|size"):
            Pane.decode(data[:size])


def test_categories_are_bounded_and_the_rest_is_counted_together() -> None:
    pane = Pane()
    slots = {pane.slot(f"prediction={number}") for number in range(100)}
    assert len(slots) == 33
    assert pane.names["prediction=<other>"] in slots


def test_fields_are_bounded() -> None:
    pane = Pane()
    assert [pane.slot(f"f{number}") for number in range(600)].count(-1) == 600 - 512
