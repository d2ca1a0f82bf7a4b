"""Summaries read back: merged in parts they say what the whole would, and sketches give the same quantiles."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from stores_world import summary as written

from dashboards.api.asking.summary import Summary, distance, merged, merged_sketch, quantiles, sketch_of
from streams.windows.sketch import quantile

QS = (0.0, 0.01, 0.5, 0.95, 0.999, 1.0)


def read(*values: float, missing: int = 0) -> Summary:
    return msgspec.json.decode(msgspec.json.encode(written(*values, missing=missing)), type=Summary)


@pytest.mark.parametrize("cuts", [(0,), (1,), (100, 101), (50, 300, 301, 700)])
def test_parts_merge_into_the_whole(cuts: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).normal(3, 50, 1_000)
    parts = [read(*part.tolist(), missing=1) for part in np.split(values, cuts)]
    whole, one = merged(parts), read(*values.tolist())
    assert (whole.count, whole.missing, whole.min, whole.max) == (1_000, len(parts), values.min(), values.max())
    assert whole.mean == pytest.approx(values.mean(), rel=1e-9)
    assert whole.std == pytest.approx(values.std(ddof=1), rel=1e-9)
    assert merged_sketch(parts).tolist() == sketch_of(one).tolist()


def test_a_sample_says_its_share_of_all_values_that_were_merged() -> None:
    def sampled(count: int, sketched: int | None) -> Summary:
        return msgspec.structs.replace(read(*range(count)), sketched=sketched)

    assert merged([read(1.0), read(2.0)]).sampling_rate is None
    assert merged([sampled(10, 4), sampled(10, 2)]).sampling_rate == 0.3
    assert merged([read(), sampled(10, 4), sampled(30, None), read()]).sampling_rate == 0.85


def test_quantiles_are_those_of_the_sketch() -> None:
    for size in (1, 2, 3, 50, 1_000):
        found = sketch_of(read(*np.random.default_rng(size).normal(0, 9, size).tolist()))
        assert quantiles(found, QS) == [quantile([(a, b) for a, b in found.tolist()], q) for q in QS]
    assert quantiles(sketch_of(read()), QS) == [None] * len(QS)


def test_nothing_known_is_none() -> None:
    assert (read().mean, read().std, read(5.0).std) == (None, None, None)
    assert merged([read(), read(5.0), read()]).mean == 5.0


def test_a_sketch_is_read_with_and_without_blanks() -> None:
    for text in (b"[[1,2],[30,4]]", b"[[1, 2], [30, 4]]"):
        assert sketch_of(Summary(6, sketch=msgspec.Raw(text))).tolist() == [[1, 2], [30, 4]]


def test_the_distance_of_distributions() -> None:
    low, high = sketch_of(read(*range(1, 101))), sketch_of(read(*range(200, 300)))
    assert distance(low, low) == 0.0
    assert distance(low, high) == distance(high, low) == 1.0
    assert distance(sketch_of(read(1.0, 50.0)), sketch_of(read(1.0, 90.0))) == 0.5
