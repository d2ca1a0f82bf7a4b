"""The detector for time series: what it finds, what it gets used to, and that nothing but the past decides."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.scoring.detectors import arrays
from agents.scoring.detectors import series_kernels as k
from agents.scoring.detectors.base import OtherSettings
from agents.scoring.detectors.by_name import MAX_FEATURES
from agents.scoring.detectors.time_series import LEAST_THRESHOLD, TIME, TimeSeries
from agents.scoring.resting import RestingAlarms
from agents.scoring.threshold import QuantileThreshold

Array = NDArray[np.float64]
STEP_MS = 300_000.0
DAY_ROWS = 288


def clocked(values: Array, start_ms: float = 1.4e12) -> Array:
    """Values (n,) or (n, k) as rows with the clock in front, five minutes apart."""
    values = values.reshape(len(values), -1)
    return np.column_stack((start_ms + np.arange(len(values)) * STEP_MS, values))


def detector(columns: int = 1) -> TimeSeries:
    made = TimeSeries()
    for name in (TIME, *(f"x{i}" for i in range(columns))):
        made.column(name)
    return made


def daily(days: int, seed: int = 1) -> Array:
    """A load with a daily shape and noise."""
    at = np.arange(days * DAY_ROWS)
    shape = 50.0 + 30.0 * np.sin(2.0 * np.pi * at / DAY_ROWS)
    return np.asarray(shape + np.random.default_rng(seed).standard_normal(len(at)) * 2.0)


def alarms(values: Array) -> list[int]:
    scores = detector().score_learn_many(clocked(values))
    found: list[int] = np.flatnonzero(RestingAlarms().heard(scores) > LEAST_THRESHOLD).tolist()
    return found


def messy(first: int = 1_500, seed: int = 3) -> Array:
    """Two columns with gaps, spikes, a constant stretch, and a clock that jumps, stands still and goes back."""
    rng, n = np.random.default_rng(seed), 1_500
    rows = clocked(np.column_stack((daily(n // DAY_ROWS + 1)[:n], rng.exponential(3.0, n))))
    rows[rng.random(n) < 0.05, 1] = np.nan
    rows[rng.random(n) < 0.01, 2] *= 1e6
    rows[700:760, 1] = 5.0
    rows[400:, 0] += 7.2e6
    rows[900:905, 0] = rows[899, 0]
    rows[1_000:1_003, 0] -= 5e6
    return rows[:first]


def as_dict(row: Array) -> dict[str, float | None]:
    names = (TIME, "x0", "x1")
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, row, strict=True)}


def test_a_spike_is_found_in_its_row() -> None:
    values = daily(14)
    values[3_000] += 60.0
    assert 3_000 in alarms(values)


def test_a_value_that_is_usual_but_not_at_this_time_of_day_is_found() -> None:
    values = daily(14)
    noon, midnight = 10 * DAY_ROWS + DAY_ROWS // 4, 10 * DAY_ROWS + 3 * DAY_ROWS // 4
    values[midnight:midnight + 24] = values[noon:noon + 24]
    assert any(midnight <= row < midnight + 24 for row in alarms(values))


def test_a_flat_stretch_at_the_top_of_the_day_is_found() -> None:
    values = daily(14)
    start = 10 * DAY_ROWS + DAY_ROWS // 8
    values[start:start + 200] = 55.0
    assert any(start <= row < start + 200 for row in alarms(values))


@pytest.mark.parametrize("seed", range(5))
def test_a_calm_series_makes_hardly_an_alarm(seed: int) -> None:
    assert len(alarms(daily(20, seed))) <= 6


def test_what_happens_every_day_is_no_anomaly_and_what_happens_once_is() -> None:
    at, told = np.arange(100, 30 * DAY_ROWS, DAY_ROWS), 0
    for seed in range(5):
        once, always = daily(30, seed), daily(30, seed)
        once[at[25]] += 60.0
        always[at] += 60.0
        assert detector().score_learn_many(clocked(once))[at[25]] > LEAST_THRESHOLD
        told += len(set(alarms(always)) & set(at[10:].tolist()))
    assert told <= 5 * 2


def test_the_unit_of_a_series_does_not_matter() -> None:
    values = daily(8)
    values[2_000] += 40.0
    a, b = (detector().score_learn_many(clocked(each)) for each in (values, values * 1024.0))
    assert np.allclose(a, b, atol=1e-9)


def test_the_future_does_not_matter() -> None:
    rows = messy()
    changed = rows.copy()
    changed[800:, 1:] = 1e9
    assert np.array_equal(detector(2).score_learn_many(rows)[:800], detector(2).score_learn_many(changed)[:800])


def test_any_cutting_gives_the_same_scores() -> None:
    rows, rng = messy(), np.random.default_rng(6)
    whole = detector(2).score_learn_many(rows)
    assert (whole > 0).sum() > 100
    for _ in range(5):
        cut = detector(2)
        parts = np.split(rows, np.sort(rng.integers(0, len(rows) + 1, 12)))
        assert np.array_equal(np.concatenate([cut.score_learn_many(part) for part in parts]), whole)


def test_a_batch_equals_the_loop_of_single_calls_and_scoring_changes_nothing() -> None:
    rows, single = messy(700), detector(2)
    found = []
    for row in rows:
        before = single.encode()
        found.append(single.score_one(as_dict(row) | {"never seen": 1.0}))
        assert single.encode() == before
        single.learn_one(as_dict(row))
    assert np.array_equal(detector(2).score_learn_many(rows), found)


@pytest.mark.parametrize("cut", [0, 1, 23, 24, 119, 120, 700, 1_499])
def test_a_snapshot_in_the_middle_changes_nothing(cut: int) -> None:
    rows = messy()
    whole = detector(2).score_learn_many(rows)
    first = detector(2)
    first.score_learn_many(rows[:cut])
    again = TimeSeries().restore(first.encode())
    assert np.array_equal(again.score_learn_many(rows[cut:]), whole[cut:])
    assert again.features == [TIME, "x0", "x1"]


def test_a_snapshot_after_the_context_is_full_continues() -> None:
    rows = clocked(daily(12))
    whole = detector().score_learn_many(rows)
    first = detector()
    first.score_learn_many(rows[:k.CONTEXT + 700])
    again = TimeSeries().restore(first.encode())
    assert np.array_equal(again.score_learn_many(rows[k.CONTEXT + 700:]), whole[k.CONTEXT + 700:])


def test_a_broken_snapshot_is_refused() -> None:
    made = detector(2)
    made.score_learn_many(messy(300))
    data = made.encode()
    for cut in (*range(0, 400, 7), len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError):
            TimeSeries().restore(data[:cut])
    with pytest.raises(ValueError):
        TimeSeries().restore(data + b"\0")
    with pytest.raises(ValueError):
        TimeSeries(seed=7).restore(data)


def test_a_snapshot_that_lacks_an_array_is_one_of_other_settings() -> None:
    made = detector(2)
    made.score_learn_many(messy(300))
    name, head, kept = arrays.decode(made.encode())
    del kept["parts"]
    with pytest.raises(OtherSettings):
        TimeSeries().restore(arrays.encode(name, head, kept))


@pytest.mark.parametrize("value", [0.0, -1e-300, 7.0, 1e300, np.nan])
def test_constant_and_missing_values_have_scores(value: float) -> None:
    with np.errstate(all="raise"):
        scores = detector().score_learn_many(clocked(np.full(1_000, value)))
    assert not scores.any()


def test_extreme_values_and_times_have_scores() -> None:
    rows = messy()
    rows[500:, 1] = np.resize([1e300, -1e300, np.inf, -np.inf, 5e-324, 0.0], 1_000)
    rows[600:700, 0] = np.resize([np.nan, np.inf, -np.inf, 1e300, -1.0], 100)
    made = detector(2)
    with np.errstate(all="raise"):
        scores = np.append(made.score_learn_many(rows), made.score_one({"x0": 1e308, TIME: -1e308}))
    assert ((scores >= 0.0) & (scores < 1.0)).all()


def test_without_a_clock_the_last_rows_are_the_context() -> None:
    values = daily(8)
    values[2_000] += 60.0
    scores = TimeSeries().score_learn_many(values[:, None])
    assert scores[2_000] > LEAST_THRESHOLD


def test_state_does_not_grow_with_the_stream() -> None:
    made = detector()
    made.score_learn_many(clocked(daily(12)))
    size = len(made.encode())
    made.score_learn_many(clocked(daily(30), 1.5e12))
    assert len(made.encode()) < 1.2 * size
    assert len(made.encode()) < 2 * 170_000


def test_at_most_so_many_features_are_kept() -> None:
    made = TimeSeries()
    assert [made.column(f"f{i}") for i in range(MAX_FEATURES + 1)][-1] == -1


def test_the_column_that_moved_pushed_the_alarm() -> None:
    for culprit in range(3):
        values = np.column_stack([daily(10, seed) for seed in range(3)])
        values[2_500, culprit] += 80.0
        made, threshold = detector(3), QuantileThreshold()
        scores, thresholds, pushes = made.advance(clocked(values), threshold.histogram, threshold.scalars)
        assert scores[2_500] > thresholds[2_500]
        assert pushes[2_500].argmax() == 1 + culprit


def test_the_tail_is_that_of_the_maxima_of_all_blocks_that_begin_every_three_rows() -> None:
    values = daily(25)
    made = detector()
    made.score_learn_many(clocked(values))
    steps = np.abs(np.diff(values, prepend=values[0]))
    steps[0] = -1.0
    last = steps[len(steps) % k.PART:]
    blocks = np.lib.stride_tricks.sliding_window_view(last, k.BLOCK)[::k.PART].max(axis=1)[-k.MAXIMA:]
    assert len(blocks) == k.MAXIMA
    assert np.array_equal(made.ordered[1, k.STEP], np.sort(blocks))
    above = np.sort(blocks)[int(0.8 * len(blocks)):]
    assert made.state["tail"][1, k.STEP] == pytest.approx(
        [above[0], (above - above[0]).mean(), len(above) / k.BEGINNINGS])


def test_where_blocks_begin_hardly_matters() -> None:
    """Rows before the first move where blocks are cut: alarms of a spike stay, and nearly all others."""
    values = daily(20)
    values[[3_000, 4_500]] += 40.0
    for shift in range(1, 9):
        assert {3_000 - shift, 4_500 - shift} <= set(alarms(values[shift:]))


def test_golden_scores() -> None:
    values = daily(10)
    values[2_500:2_503] -= 12.0
    scores = detector().score_learn_many(clocked(values))
    assert scores[[647, 2_278, 2_499, 2_500, 2_502, 2_800]].round(6).tolist() == GOLDEN


GOLDEN = [0.978262, 0.0, 0.0, 0.998293, 0.999972, 0.0]


def test_after_an_alarm_there_is_a_rest() -> None:
    rule = RestingAlarms(0.5)
    heard = rule.heard(np.full(200, 0.9))
    assert np.flatnonzero(heard > 0.5).tolist() == list(range(0, 200, 30))
    assert not heard[1:30].any()


def test_the_rest_grows_with_age_up_to_a_limit() -> None:
    rule = RestingAlarms(0.5)
    rule.heard(np.zeros(4_000))
    assert np.flatnonzero(rule.heard(np.full(300, 0.9)) > 0.5).tolist() == [0, 140, 284]
    rule.heard(np.zeros(100_000))
    assert np.flatnonzero(rule.heard(np.full(1_100, 0.9)) > 0.5).tolist() == [0, 500, 1_000]


def test_rests_do_not_depend_on_the_cutting() -> None:
    scores, rng = np.random.default_rng(2).random(3_000), np.random.default_rng(3)
    whole = RestingAlarms(0.97).heard(scores)
    for _ in range(5):
        rule, cuts = RestingAlarms(0.97), np.sort(rng.integers(0, 3_001, 20))
        assert np.array_equal(np.concatenate([rule.heard(part) for part in np.split(scores, cuts)]), whole)
