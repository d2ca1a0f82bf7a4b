"""What must be found, and how soon. A point is two windows of fifteen events here; the reference is learnt in 40 s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drift_world import ORIGIN_MS, Serving, World, moved

ONSET_S = 120
Values = dict[str, Any]


def scale(name: str, factor: float) -> Callable[[int, Values], None]:
    def disturb(second: int, values: Values) -> None:
        if second >= ONSET_S:
            values[name] = values[name] * factor
    return disturb


def shift(name: str, by: float) -> Callable[[int, Values], None]:
    def disturb(second: int, values: Values) -> None:
        if second >= ONSET_S:
            values[name] = values[name] + by
    return disturb


def nulls(second: int, values: Values) -> None:
    if second >= ONSET_S:
        values["feature.age"] = np.full(len(values["feature.age"]), np.nan)


def gone(second: int, values: Values) -> None:
    if second >= ONSET_S:
        del values["feature.age"]


def errors(second: int, values: Values) -> None:
    if second >= ONSET_S:
        values["errors"] = np.random.default_rng(second).random(len(values["errors"])) < 0.15


def other_classes(second: int, values: Values) -> None:
    if second >= ONSET_S:
        values["prediction"] = np.where(np.random.default_rng(second).random(15) < 0.7, "yes", "no")


def new_class(second: int, values: Values) -> None:
    if second >= ONSET_S:
        values["prediction"] = np.where(np.random.default_rng(second).random(15) < 0.4, "maybe", values["prediction"])


CASES = [
    pytest.param(shift("feature.age", 10.0), "feature.age", "mean", 16, id="a shift by one standard deviation"),
    pytest.param(shift("feature.level", 1.0), "feature.level", "mean", 16, id="one that is a thousandth of the value"),
    pytest.param(scale("feature.age", 1000.0), "feature.age", "mean", 8, id="a unit"),
    pytest.param(scale("feature.balance", 1000.0), "feature.balance", "mean", 8, id="the unit of a skewed feature"),
    pytest.param(scale("feature.balance", 0.01), "feature.balance", "mean", 8, id="the unit of a skewed one, down"),
    pytest.param(scale("feature.age", -1.0), "feature.age", "mean", 8, id="a sign"),
    pytest.param(nulls, "feature.age", "missing_share", 8, id="a column of nulls"),
    pytest.param(gone, "feature.age", "missing_share", 8, id="a column that is no longer sent"),
    pytest.param(errors, "error_rate", "rate", 24, id="errors from 1% to 15%"),
    pytest.param(scale("latency_ms", 4.0), "latency_ms", "mean", 8, id="latency times four"),
    pytest.param(other_classes, "prediction=yes", "rate", 20, id="a class from 30% to 70%"),
    pytest.param(new_class, "prediction=maybe", "rate", 20, id="a class never seen before"),
    pytest.param(scale("confidence", 0.7), "confidence", "mean", 16, id="confidence"),
]


@pytest.mark.parametrize(("disturb", "field", "statistic", "within_s"), CASES)
def test_a_change_is_found_soon_with_its_onset_and_nothing_was_found_before(
        disturb: Callable[[int, Values], None], field: str, statistic: str, within_s: int) -> None:
    for seed in (1, 2, 3):
        found = World().give(Serving(seed).windows(ONSET_S + 40, disturb))
        assert min(event.onset_ms for event in found) >= ORIGIN_MS + (ONSET_S - 4) * 1000
        event = next(event for event in found if (event.field, event.statistic) == (field, statistic))
        assert event.state == "drifted"
        assert event.detected_ms <= ORIGIN_MS + (ONSET_S + within_s) * 1000
        assert abs(event.onset_ms - ORIGIN_MS - ONSET_S * 1000) <= 4000
        assert event.detected_ms > event.onset_ms
        assert event.sureness == 1 - 1e-5
        assert event.versions == ["1"]


def test_before_and_after_are_what_people_see() -> None:
    found = World().give(Serving(4).windows(ONSET_S + 40, scale("feature.age", 1000.0)))
    event = next(event for event in found if event.field == "feature.age")
    assert event.before == pytest.approx(40, abs=2)
    assert event.after == pytest.approx(40_000, rel=0.25)
    assert event.scale == pytest.approx(10, abs=2)
    assert (event.kind, event.severity) == ("data", "critical")


def test_latency_is_told_as_a_geometric_mean() -> None:
    found = World().give(Serving(4).windows(ONSET_S + 40, scale("latency_ms", 4.0)))
    event = next(event for event in found if event.field == "latency_ms")
    assert event.before == pytest.approx(np.exp(2), rel=0.1)
    assert event.after == pytest.approx(4 * np.exp(2), rel=0.15)
    assert (event.kind, event.severity) == ("operational", "warning")


def test_a_change_is_reported_once_and_its_end_once() -> None:
    def disturb(second: int, values: Values) -> None:
        if ONSET_S <= second < ONSET_S + 120:
            values["feature.age"] = values["feature.age"] + 15
    found = World().give(Serving(5).windows(ONSET_S + 400, disturb))
    assert [(event.state, event.field) for event in found] == [("drifted", "feature.age"), ("recovered", "feature.age")]
    end = found[1]
    assert ORIGIN_MS + (ONSET_S + 116) * 1000 <= end.onset_ms < end.detected_ms <= ORIGIN_MS + (ONSET_S + 160) * 1000
    assert end.after == pytest.approx(40, abs=5)
    assert found[0].drift_id != end.drift_id


def test_a_level_between_reference_and_least_effect_does_not_swing() -> None:
    """Shifted by 0.4 standard deviations for 40 minutes: too little to count, and near enough to try."""
    found = World().give(Serving(6).windows(2_400, shift("feature.age", 4.0)))
    assert len(found) <= 2


def test_what_only_gets_better_is_no_drift() -> None:
    def disturb(second: int, values: Values) -> None:
        if second >= ONSET_S:
            values["latency_ms"] = values["latency_ms"] / 5
            values["errors"] = values["errors"] & False
    assert World().give(Serving(7, error_rate=0.2).windows(ONSET_S + 200, disturb)) == []


def test_a_lasting_improvement_becomes_the_reference_so_that_its_loss_is_found() -> None:
    """Slow at first (caches cold), then fast for 40 minutes, then slow again."""
    def disturb(second: int, values: Values) -> None:
        if second < ONSET_S or second >= 2_600:
            values["latency_ms"] = values["latency_ms"] * 5
    found = World().give(Serving(8, events=12).windows(2_640, disturb))
    assert [(event.state, event.field) for event in found] == [("drifted", "latency_ms")]
    assert found[0].onset_ms >= ORIGIN_MS + 2_595_000


def test_a_new_level_that_lasts_becomes_the_reference_in_silence() -> None:
    def disturb(second: int, values: Values) -> None:
        if ONSET_S <= second < 2_400:
            values["feature.age"] = values["feature.age"] + 15
    found = World().give(Serving(9, events=12).windows(2_450, disturb))
    assert [event.state for event in found] == ["drifted", "drifted"]
    assert found[1].after < found[1].before


def test_a_small_lasting_change_in_sparse_traffic_is_found() -> None:
    """Two events a point: a change of less than one standard error of each."""
    def disturb(second: int, values: Values) -> None:
        values["feature.level"] = values["feature.level"] + (0.7 if second >= 9_000 else 0.0)
    serving = Serving(10, events=1, error_rate=0.0)
    windows = [one for second in range(0, 30_000, 15) for one in serving.windows(1, disturb, first=second)]
    event = next(event for event in World().give(windows) if event.field == "feature.level")
    assert ORIGIN_MS + 8_000_000 <= event.onset_ms <= ORIGIN_MS + 10_500_000
    assert moved([event]) == {("feature.level", "mean")}
