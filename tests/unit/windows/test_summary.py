import math

import numpy as np
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.windows.record import SummaryRecord
from streams.windows import sampling, summary
from streams.windows.sketch import CODE_MASK, SPAN, bucket

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def taken(values: list[float]) -> np.ndarray:
    """(1, 7): one row that took in the values one by one."""
    table, one = summary.empty_rows(1), np.zeros(1, np.int64)
    summary.accumulate(table, one, one, np.zeros(len(values), np.int64), np.array(values, np.float64),
                       np.empty(len(values), np.int32), one.copy(), sampling.NEVER,
                       np.empty((0, 3), np.int64), one.copy())
    return table


def stated(table: np.ndarray) -> SummaryRecord:
    return summary.to_summary(table[0].tolist(), [])


def test_a_row_is_count_missing_sum_extremes_mean_and_squared_deviations() -> None:
    found = stated(taken([2.0, math.nan, 4.0, 9.0, math.nan]))
    assert (found.count, found.missing, found.sum, found.min, found.max) == (3, 2, 15.0, 2.0, 9.0)
    assert found.mean == pytest.approx(5.0)
    assert found.m2 == pytest.approx(26.0)


def test_a_field_that_was_only_ever_missing_has_no_mean_and_no_extremes() -> None:
    found = stated(taken([math.nan, math.nan]))
    assert (found.count, found.missing, found.mean, found.min, found.max) == (0, 2, None, None, None)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 50))
@settings(deadline=None)
def test_merging_two_halves_is_numpys_answer_for_the_whole(values: list[float], at: int) -> None:
    table = summary.empty_rows(1)
    for half in (values[:at], values[at:]):
        summary.merge_rows(table, taken(half), np.zeros(1, np.int64))
    found = stated(table)
    assert (found.count, found.min, found.max) == (len(values), min(values), max(values))
    assert found.sum == pytest.approx(math.fsum(values), rel=1e-9, abs=1e-6)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert found.m2 == pytest.approx(np.var(values) * len(values), rel=1e-6, abs=1e-2)


@given(st.lists(FINITE, min_size=1, max_size=30))
@settings(deadline=None)
def test_merging_into_an_empty_row_is_a_copy_to_the_bit(values: list[float]) -> None:
    table, row = summary.empty_rows(1), taken(values)
    summary.merge_rows(table, row, np.zeros(1, np.int64))
    assert table.tobytes() == row.tobytes()


@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, min_size=1, max_size=30))
@settings(deadline=None)
def test_any_finite_values_give_a_summary_that_the_contract_takes(left: list[float], right: list[float]) -> None:
    table = taken(left)
    summary.merge_rows(table, taken(right), np.zeros(1, np.int64))
    found = stated(table)
    assert msgspec.json.decode(msgspec.json.encode(found), type=SummaryRecord) == found
    assert found.mean is not None
    assert math.isfinite(found.mean)


def test_the_mean_of_values_whose_sum_overflows_lies_between_them() -> None:
    large = 1.7e308
    found = stated(taken([large, large, -large, large]))
    assert found.sum == pytest.approx(1.7976931348623157e308)
    assert found.min is not None and found.max is not None and found.mean is not None
    assert found.min <= found.mean <= found.max


def test_rows_that_map_to_minus_one_are_left_out() -> None:
    table, other = summary.empty_rows(1), np.concatenate([taken([1.0]), taken([5.0])])
    summary.merge_rows(table, other, np.array([-1, 0]))
    assert stated(table).sum == 5.0


def test_sketch_keys_go_to_the_pane_of_their_row_and_categories_have_none() -> None:
    table = summary.empty_rows(3)
    slot, pane = np.array([0, 0, -1]), np.array([0, 1, 1])
    rows, value = np.array([1, 0, 2, 1, -1]), np.array([5.0, 7.0, 1.0, 6.0, 8.0])
    keys, end = np.zeros(5, np.int32), np.array([0, 1])
    summary.accumulate(table, slot, pane, rows, value, keys, end, sampling.NEVER, np.empty((0, 3), np.int64),
                       np.zeros(3, np.int64))
    assert end.tolist() == [1, 3]
    assert ((keys[:3] & CODE_MASK) - SPAN).tolist() == [bucket(7.0), bucket(5.0), bucket(6.0)]
    assert table[:, summary.SUM].tolist() == [7.0, 11.0, 1.0]
