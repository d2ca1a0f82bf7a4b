"""The threshold follows calm scores, and an incident cannot pull it up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.threshold import QuantileThreshold


def scores_of(n: int, seed: int) -> np.ndarray:
    """Scores like a detector's: 1 - score is log-normal around 1%."""
    return 1.0 - np.minimum(1.0, 0.01 * np.exp(0.7 * np.random.default_rng(seed).standard_normal(n)))


def alarms(threshold: QuantileThreshold, scores: np.ndarray) -> np.ndarray:
    found = []
    for score in scores.tolist():
        found.append(score > threshold.value)
        threshold.observe(score)
    return np.array(found)


@pytest.mark.parametrize("quantile", [0.99, 0.999])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_alarm_rate_on_calm_scores_is_about_what_was_asked(quantile: float, seed: int) -> None:
    found = alarms(QuantileThreshold(quantile), scores_of(60_000, seed))
    assert 0.3 * (1 - quantile) < found[10_000:].mean() < 2 * (1 - quantile)
    assert found.mean() < 2.5 * (1 - quantile)


def test_nothing_is_an_alarm_before_a_hundred_scores() -> None:
    threshold = QuantileThreshold()
    for score in scores_of(99, 1):
        threshold.observe(score)
    assert not threshold.ready
    assert threshold.value == 1.0
    threshold.observe(0.5)
    assert threshold.ready
    assert threshold.value < 1.0


@pytest.mark.parametrize("calm", [110, 500, 3000, 50_000])
def test_an_incident_of_three_thousand_events_stays_an_alarm(calm: int) -> None:
    threshold = QuantileThreshold()
    alarms(threshold, scores_of(calm, 1))
    found = alarms(threshold, np.full(3000, 1.0 - 1e-7))
    assert found.all()


def test_the_threshold_comes_back_when_scores_rise_for_good() -> None:
    threshold = QuantileThreshold(0.99)
    alarms(threshold, scores_of(5000, 1))
    higher = 1.0 - (1.0 - scores_of(100_000, 2)) / 16.0
    found = alarms(threshold, higher)
    assert found[:1000].mean() > 0.5
    assert found[-20_000:].mean() < 0.03


def test_a_threshold_comes_from_the_scores_before_it_alone() -> None:
    detector, fused, apart = HalfSpaceTrees(window=50), QuantileThreshold(0.99), QuantileThreshold(0.99)
    detector.column("a")
    x = np.random.default_rng(1).standard_t(3, (3000, 1))
    scores, thresholds, _ = detector.advance(x, fused.histogram, fused.scalars)
    assert (scores > thresholds).any()
    for score, threshold in zip(scores[50:].tolist(), thresholds[50:].tolist(), strict=True):
        assert apart.value == threshold
        apart.observe(score)


def test_constant_scores_make_no_alarm() -> None:
    assert not alarms(QuantileThreshold(), np.full(5000, 0.9876)).any()


@given(st.lists(st.floats(0.0, 1.0), max_size=300), st.integers(0, 300))
@settings(max_examples=50, deadline=None)
def test_a_snapshot_continues_bit_by_bit(scores: list[float], cut: int) -> None:
    whole, parted = QuantileThreshold(0.9), QuantileThreshold(0.9)
    for at, score in enumerate(scores):
        if at == cut:
            parted = QuantileThreshold.decode(parted.encode())
        assert whole.value == parted.value
        whole.observe(score)
        parted.observe(score)
    assert whole.encode() == parted.encode()


def test_every_truncation_of_a_snapshot_raises() -> None:
    threshold = QuantileThreshold()
    alarms(threshold, scores_of(300, 1))
    data = threshold.encode()
    for end in range(len(data)):
        with pytest.raises(ValueError):
            QuantileThreshold.decode(data[:end])


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_a_quantile_that_is_none_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        QuantileThreshold(quantile)
