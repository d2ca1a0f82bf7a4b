"""The compiled way from a pane to its window's JSON, against the plain one: the same bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.windows import MetricWindow, window_id
from streams.batch import SeriesKey
from streams.windows import sampling, summary
from streams.windows.layout import Layouts
from streams.windows.panes import Pane, PaneKey
from streams.windows.record import read_window, write_window
from streams.windows.sketch import CODE_BITS, SPAN, bucket
from streams.windows.written import window, written

KEY = PaneKey(SeriesKey("prod", "m@1", "1.2-rc", "ranker"), 1_000, 1_700_000_000_000)
NAMES = st.lists(st.text(min_size=1, max_size=12), max_size=8, unique=True)
VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10**16, 10**16).map(float),
                  max_size=6)
CLOSED_MS = 1_700_000_003_000


def pane(fields: dict[str, list[float]], missing: int = 0) -> Pane:
    """A pane with these values, each field's missing ones beside them."""
    found = Pane(Layouts().of(tuple(fields)))
    found.count, found.errors, found.revision = 7, 2, 1
    rows = np.array([row for row, values in enumerate(fields.values()) for _ in values], np.int64)
    flat = np.array([value for values in fields.values() for value in values])
    sketched = found.layout.sketched
    summary.accumulate(found.table, np.full(len(found.table), -1, np.int64), np.zeros(len(found.table), np.int64), rows,
                       flat, np.empty(len(flat), np.int32), np.zeros(1, np.int64), sampling.NEVER,
                       np.empty((0, 3), np.int64), np.zeros(len(found.table), np.int64))
    found.table[:, summary.MISSING] = missing
    found.sketches.add(np.array([(row << CODE_BITS) | (bucket(value) + SPAN)
                                 for row, value in zip(rows, flat, strict=True) if sketched[row] >= 0], np.int32))
    return found


def plainly(key: PaneKey, found: Pane, closed_ms: int) -> bytes:
    """The JSON of its window, the slow way."""
    return write_window(window(key, found, 3, closed_ms))


@given(NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUES))),
       st.integers(0, 2**40))
@example({"latency_ms": [1.0, 3.0, 3.0], "prediction=a": [1.0, 1.0], "feature.gone": []}, 3)
@example({"quote\"\\and\u00e9\u2028": [0.0, -0.0, 1e-300, -1e300]}, 0)
@example({"overflow": [1.7e308, 1.7e308], "fine": [2.0]}, 0)
@settings(deadline=None, max_examples=300)
def test_the_bytes_are_those_of_the_plain_way(fields: dict[str, list[float]], missing: int) -> None:
    found = pane(fields, missing)
    assert written([(KEY, found)], 3, CLOSED_MS)[0].value == plainly(KEY, found, CLOSED_MS)


DRAWN = NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUES)))


@given(st.lists(DRAWN, max_size=6), st.sampled_from([1, 400, 1 << 20]))
@example([{"a": [1.0]}, {"overflow": [1.7e308, 1.7e308]}, {}, {"b": [0.1, 0.2]}, {"a": [2.5]}], 1 << 20)
@example([{"overflow": [1.7e308, 1.7e308]}], 1)
@settings(deadline=None, max_examples=200)
def test_windows_written_together_are_those_written_alone(drawn: list[dict[str, list[float]]], room: int) -> None:
    closed = [(KEY._replace(start_ms=KEY.start_ms + at), pane(fields, at)) for at, fields in enumerate(drawn)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("streams.windows.written._ROOM", room)
        found = written(closed, 3, CLOSED_MS)
    assert [one.value for one in found] == [plainly(*one, CLOSED_MS) for one in closed]
    assert [one.window_id for one in found] == [window(*one, 3, CLOSED_MS).window_id for one in closed]


def test_a_written_window_reads_as_its_contract() -> None:
    found = written([(KEY, pane({"latency_ms": [1.5, 2.0], "feature.x=a": [1.0]}))], 3, -5)[0]
    contract = MetricWindow.model_validate_json(found.value)
    assert contract.window_id == found.window_id == window_id(*KEY.series, 1_000, 1_700_000_000_000, 3)
    assert contract.closed_ms == 0
    assert read_window(found.value).fields["latency_ms"].sum == 3.5


def test_a_pane_without_fields_is_written_too() -> None:
    assert written([(KEY, pane({}))], 0, 1)[0].value.endswith(b'"fields":{}}')


def test_sums_that_overflowed_take_the_long_way() -> None:
    found = pane({"a": [1.7e308, 1.7e308]})
    assert math.isfinite(read_window(written([(KEY, found)], 0, 1)[0].value).fields["a"].sum)


def test_that_a_sketch_is_a_sample_is_written_too() -> None:
    found = pane({"feature.x": [1.0, 2.0, 3.0], "feature.y": [5.0], "feature.z": []})
    found.left = np.array([2, 0])
    value = written([(KEY, found)], 3, 1_700_000_003_000)[0].value
    assert value == write_window(window(KEY, found, 3, 1_700_000_003_000))
    assert value.count(b'"sketched":1') == value.count(b'"sketched"') == 1


@pytest.mark.parametrize("count", [1, 9, 10, 2**31, 2**53])
def test_counts_of_every_size_are_written_whole(count: int) -> None:
    found = pane({"a": [1.0]})
    found.table[0, summary.COUNT] = count
    found.sketches = type(found.sketches)(np.array([bucket(-1.0) + SPAN], np.int32), np.array([count]))
    assert written([(KEY, found)], 0, 1)[0].value == write_window(window(KEY, found, 0, 1))


@given(st.lists(st.integers(-10**15, 10**15), min_size=1, max_size=20), st.integers(0, 6))
@example([0, 1, -1, 9_999, 10_000, 99_999_999_999_999, 10**15 - 1], 4)
@settings(deadline=None, max_examples=200)
def test_numbers_with_few_decimals_are_spelled_as_they_are_by_msgspec(drawn: list[int], decimals: int) -> None:
    values = [number / 10**decimals for number in drawn]
    closed = [(KEY, pane({"a": [value], "b": [-0.0, value], "c": [value, value * 3]})) for value in values]
    assert [one.value for one in written(closed, 3, CLOSED_MS)] == [plainly(*one, CLOSED_MS) for one in closed]
