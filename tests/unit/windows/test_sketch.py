import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.windows.sketch import CODE_BITS, MAX_BUCKETS, SPAN, bucket, bucket_value, collapse, quantile, slot_sorted
from streams.windows.sketches import Sketches

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


def keys_of(values: list[float], slot: int = 0) -> np.ndarray:
    return np.array([(slot << CODE_BITS) | (bucket(value) + SPAN) for value in values], np.int32)


def test_sketches_are_the_same_however_values_are_cut_and_merged() -> None:
    values = np.exp(np.random.default_rng(3).uniform(-40, 40, 20_000)).tolist()
    whole, parts, rest = Sketches(), Sketches(), Sketches()
    whole.add(keys_of(values))
    for at in range(0, 15_000, 37):
        parts.add(keys_of(values[at:min(at + 37, 15_000)]))
    rest.add(keys_of(values[15_000:]))
    rest.merge(parts, None)
    assert whole.by_slot(1) == rest.by_slot(1)
    assert len(whole.by_slot(1)[0]) == MAX_BUCKETS, "the values span more buckets than a sketch keeps"
    assert sum(count for _, count in whole.by_slot(1)[0]) == len(values)


def test_merging_moves_slots_and_leaves_out_those_without_one() -> None:
    sketches, other = Sketches(), Sketches()
    sketches.add(keys_of([1.0], slot=0))
    other.add(np.concatenate([keys_of([5.0, -2.0], slot=0), keys_of([9.0], slot=1), keys_of([1.0, 3.0], slot=2)]))
    sketches.merge(other, np.array([1, -1, 0]))
    assert sketches.by_slot(2) == [[(bucket(1.0), 2), (bucket(3.0), 1)], [(bucket(-2.0), 1), (bucket(5.0), 1)]]


def test_two_slots_of_one_sketch_may_merge_into_one() -> None:
    sketches, other = Sketches(), Sketches()
    other.add(np.concatenate([keys_of([1.0], slot=0), keys_of([2.0, 1.0], slot=1)]))
    sketches.merge(other, np.array([0, 0]))
    assert sketches.by_slot(1) == [[(bucket(1.0), 2), (bucket(2.0), 1)]]


VALUES = st.sampled_from([0.0, 1.0, -1.0, 1e300, -1e300, 1e-300]) | st.floats(-50, 50)


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), VALUES), max_size=40), min_size=1, max_size=6))
@settings(deadline=None, max_examples=200)
def test_parts_rolled_up_at_once_are_those_merged_one_after_the_other(drawn: list[list[tuple[int, float]]]) -> None:
    def made() -> list[Sketches]:
        parts = []
        for values in drawn:
            parts.append(Sketches())
            parts[-1].add(np.array([(slot << CODE_BITS) | (bucket(value) + SPAN) for slot, value in values], np.int32))
        return parts

    whole = Sketches()
    for part in made():
        whole.merge(part, None)
    assert Sketches.summed([made()], [3])[0].by_slot(3) == whole.by_slot(3)


def test_what_outgrows_a_sketch_collapses_in_a_roll_up_as_in_a_merge() -> None:
    parts, whole = [], Sketches()
    for at in range(4):
        parts.append(Sketches())
        parts[-1].add(np.array([bucket(1.03 ** power) + SPAN for power in range(at * 400, at * 400 + 900)], np.int32))
        whole.merge(parts[-1], None)
    assert Sketches.summed([parts], [1])[0].by_slot(1) == whole.by_slot(1)
    assert len(whole.by_slot(1)[0]) == MAX_BUCKETS


@given(st.lists(st.lists(st.lists(st.tuples(st.integers(0, 2), VALUES), max_size=20), max_size=4), max_size=5))
@settings(deadline=None, max_examples=100)
def test_groups_summed_at_once_are_those_summed_one_by_one(drawn: list[list[list[tuple[int, float]]]]) -> None:
    def made() -> list[list[Sketches]]:
        groups = [[Sketches() for _ in parts] for parts in drawn]
        for parts, values in zip(groups, drawn, strict=True):
            for part, found in zip(parts, values, strict=True):
                part.add(np.array([(slot << CODE_BITS) | (bucket(value) + SPAN) for slot, value in found], np.int32))
        return groups

    groups = [parts for parts in made() if parts]
    alone = []
    for parts in groups:
        alone.append(Sketches())
        for part in parts:
            alone[-1].merge(part, None)
    groups = [parts for parts in made() if parts]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("streams.windows.sketches._TOGETHER", 30)
        found = Sketches.summed(groups, [3] * len(groups))
    assert [one.by_slot(3) for one in found] == [one.by_slot(3) for one in alone]


@given(st.lists(st.tuples(st.integers(0, 2), VALUES, st.integers(1, 9)), max_size=60))
@settings(deadline=None, max_examples=100)
def test_weighed_values_in_any_order_are_those_added_as_often(drawn: list[tuple[int, float, int]]) -> None:
    keys = np.array([(slot << CODE_BITS) | (bucket(value) + SPAN) for slot, value, _ in drawn], np.int32)
    counts = np.array([count for _, _, count in drawn], np.int64)
    weighed, added = Sketches(), Sketches()
    weighed.weigh(keys, counts, 3)
    added.add(np.repeat(keys, counts))
    assert weighed.by_slot(3) == added.by_slot(3)


@given(st.lists(st.tuples(st.integers(0, 9) | st.just(511), st.integers(0, 2**CODE_BITS - 1)), min_size=1,
                max_size=300))
@settings(deadline=None)
def test_few_keys_are_sorted_by_slot_first(drawn: list[tuple[int, int]]) -> None:
    keys = np.array([slot << CODE_BITS | code for slot, code in drawn], np.int32)
    assert slot_sorted(keys).tolist() == sorted(keys.tolist())
