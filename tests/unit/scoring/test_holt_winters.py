"""Robust Holt-Winters residuals: the season, what is anomalous, and that anomalies do not teach."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.scoring.detectors import registry
from agents.scoring.detectors import smoothing_kernels as k
from agents.scoring.detectors.clocked import TIME
from agents.scoring.detectors.holt_winters import HoltWinters
from agents.scoring.threshold import QuantileThreshold

Array = NDArray[np.float64]
START_MS = 1.4e12


def detector(columns: int = 1) -> HoltWinters:
    made = HoltWinters()
    for name in (TIME, *(f"x{i}" for i in range(columns))):
        made.column(name)
    return made


def daily(days: int, step_s: float = 300.0, seed: int = 1) -> Array:
    """Rows (n, 2): time, and a load with a daily shape and noise of 1."""
    seconds = np.arange(0.0, days * 86_400.0, step_s)
    shape = 50.0 + 30.0 * np.sin(2.0 * np.pi * seconds / 86_400.0)
    return np.column_stack((START_MS + 1e3 * seconds, shape + np.random.default_rng(seed).standard_normal(len(shape))))


def residuals(rows: Array) -> Array:
    return detector().run(rows.copy(), learning=True)[1][:, 1]


@pytest.mark.parametrize("step_s", [60.0, 300.0, 900.0])
def test_from_the_third_day_on_residuals_are_those_of_the_noise_whatever_the_step(step_s: float) -> None:
    late = residuals(daily(8, step_s))[int(2 * 86_400 / step_s):]
    assert 0.7 < np.sqrt(np.mean(late ** 2)) < 1.4
    assert np.mean(late > 4.0) < 0.002


def test_a_load_of_noon_at_midnight_is_found_and_not_without_the_season() -> None:
    rows = daily(8)
    noon, midnight = 6 * 288 + 72, 6 * 288 + 216
    rows[midnight, 1] = rows[noon, 1]
    assert residuals(rows)[midnight] > 20.0
    assert residuals(rows)[noon] < 4.0


def test_the_season_is_learnt_once_a_day_from_the_means_of_its_slots() -> None:
    made, rows = detector(), daily(6)
    made.run(rows.copy(), learning=True)
    middles = (np.arange(k.SLOTS) + 0.5) / k.SLOTS - START_MS % 86_400_000 / 86_400_000
    expected = 30.0 * np.sin(2.0 * np.pi * middles)
    season = made.state["season"][1]
    assert np.abs(season - season.mean() - expected).max() < 3.0


def test_spikes_do_not_teach() -> None:
    clean, spiky = daily(6), daily(6)
    spiky[4 * 288:4 * 288 + 10, 1] += 1e6
    after = slice(4 * 288 + 60, None)
    assert np.median(residuals(spiky)[after]) < 2.0 * np.median(residuals(clean)[after])
    assert (residuals(spiky)[4 * 288:4 * 288 + 10] > 1e4).all()


def test_a_new_level_is_followed() -> None:
    rows = daily(8)
    rows[5 * 288:, 1] += 200.0
    found = residuals(rows)
    assert found[5 * 288] > 100.0
    assert np.median(found[5 * 288 + 150:]) < 2.0


def test_the_column_that_moved_pushed_the_alarm() -> None:
    rows = np.column_stack((daily(6), daily(6, seed=2)[:, 1], daily(6, seed=3)[:, 1]))
    for culprit in range(1, 4):
        made, threshold, moved = detector(3), QuantileThreshold(), rows.copy()
        moved[1_500, culprit] += 60.0
        scores, thresholds, pushes = made.advance(moved, threshold.histogram, threshold.scalars)
        assert scores[1_500] > thresholds[1_500] >= HoltWinters.least_threshold
        assert pushes[1_500].argmax() == culprit


def test_a_clock_that_jumps_stands_still_and_goes_back_changes_nothing_for_any_cutting() -> None:
    rows, rng = daily(6), np.random.default_rng(5)
    rows[600:, 0] += 3e8
    rows[700:720, 0] = rows[699, 0]
    rows[800:810, 0] -= 9e6
    rows[rng.random(len(rows)) < 0.05, 1] = np.nan
    rows[900:903, 0] = np.nan, np.inf, -np.inf
    whole = detector().score_learn_many(rows)
    made, single = detector(), []
    for row in rows[:1_000]:
        x = {TIME: float(row[0]), "x0": None if np.isnan(row[1]) else float(row[1])}
        x = {name: None if value is not None and np.isnan(value) else value for name, value in x.items()}
        single.append(made.score_one(x))
        made.learn_one(x)
    assert np.array_equal(whole[:1_000], single)
    first = detector()
    first.score_learn_many(rows[:777])
    assert np.array_equal(HoltWinters().restore(first.encode()).score_learn_many(rows[777:]), whole[777:])


def test_it_works_alone() -> None:
    assert isinstance(registry.make(["holt_winters"]), HoltWinters)
    with pytest.raises(ValueError, match="works alone"):
        registry.make(["holt_winters", "loda"])


def test_golden_scores() -> None:
    rows = daily(5)
    rows[1_200, 1] -= 6.0
    scores = detector().score_learn_many(rows)
    assert scores[[47, 48, 500, 1_000, 1_200, 1_400]].round(6).tolist() == GOLDEN


GOLDEN = [0.0, 0.517539, 0.636525, 0.358237, 0.991742, 0.072587]
