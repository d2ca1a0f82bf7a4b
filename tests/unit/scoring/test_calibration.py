"""p-values and budgets keep what they state, on scores of any distribution."""

from __future__ import annotations

import numpy as np
import pytest

from agents.scoring.detectors.calibration import SIZE, Calibration
from agents.scoring.pace import DAY_MS, EVERY, Pace
from agents.scoring.threshold import QuantileThreshold

DRAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "heavy": lambda rng, n: rng.standard_cauchy(n),
    "discrete": lambda rng, n: rng.integers(0, 4, n).astype(float),
    "two modes": lambda rng, n: np.where(rng.random(n) < 0.3, 100.0, 0.0) + rng.random(n),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [19, 100, SIZE])
def test_of_exchangeable_scores_at_most_a_share_a_has_a_p_value_of_a(name: str, n: int) -> None:
    rng, trials = np.random.default_rng(3), 4_000
    found = np.empty(trials)
    for i in range(trials):
        scores, calibration = DRAWS[name](rng, n + 1), Calibration()
        calibration.add(scores[:n])
        found[i] = calibration.p_values(scores[n:])[0]
    for a in (1 / (n + 1), 0.05, 0.1, 0.3, 0.7):
        if a >= 1 / (n + 1):
            assert (found <= a).mean() <= a + 3.5 * np.sqrt(a * (1 - a) / trials), a
    if name != "discrete":
        assert (found <= 0.1).mean() > 0.1 - 1 / (n + 1) - 0.02, "and no more cautious than it must be"


def test_scores_beyond_all_seen_keep_their_order_and_are_finite() -> None:
    calibration = Calibration()
    calibration.add(np.random.default_rng(1).exponential(size=400))
    surprise = calibration.surprise(np.array([0.0, 1.0, 7.0, 20.0, 1e3, 1e30, 1e300]))
    assert (np.diff(surprise) > 0).all() and np.isfinite(surprise).all()
    assert calibration.p_values(np.array([-1.0]))[0] == 1.0


def test_only_the_last_scores_count() -> None:
    calibration = Calibration()
    calibration.add(np.full(700, 5.0))
    calibration.add(np.zeros(SIZE))
    assert calibration.p_values(np.array([4.0]))[0] < 1 / SIZE


def test_equal_scores_are_never_rare() -> None:
    calibration = Calibration()
    calibration.add(np.full(300, 2.0))
    assert calibration.p_values(np.full(5, 2.0)).tolist() == [1.0] * 5


def played(budget: float, between_ms: float, days: float, seed: int) -> int:
    """Alarms of a calm stream of independent scores, at a threshold that aims at the budget."""
    threshold, pace, rng = QuantileThreshold(0.999), Pace(), np.random.default_rng(seed)
    n = int(days * DAY_MS / between_ms)
    scores, ts = 1.0 - np.exp(-rng.gamma(4.0, 0.25, n)), (np.arange(n) * between_ms).astype(np.int64)
    alarms = 0
    for part in pace.parts(n):
        for score in scores[part]:
            alarms += score > threshold.value
            threshold.observe(float(score))
        if pace.note(ts[part]):
            threshold.aim(1.0 - pace.share(budget))
    return alarms


@pytest.mark.parametrize("budget", [1.0, 20.0])
def test_a_calm_stream_makes_no_more_alarms_than_its_budget(budget: float) -> None:
    days, rows_a_day = 2.0, 20_000
    found = [played(budget, DAY_MS / rows_a_day, days, seed) for seed in range(12)]
    beginning = np.log(rows_a_day * days / 100)         # n rows hold a new largest one with probability 1 / n
    assert np.mean(found) <= budget * days + beginning
    assert budget < 20 or np.mean(found) >= 0.3 * budget * days, "and it is used"


def test_the_pace_is_the_same_for_any_cutting_and_any_restart() -> None:
    rng = np.random.default_rng(4)
    ts = np.cumsum(rng.integers(0, 2_000, 3_000)) - rng.integers(0, 5_000, 3_000)
    whole, parted = Pace(), Pace()
    for part in whole.parts(len(ts)):
        whole.note(ts[part])
    for piece in np.split(ts, np.sort(rng.integers(0, len(ts), 40))):
        for part in parted.parts(len(piece)):
            parted.note(piece[part])
        parted, rest = Pace.decode(parted.encode() + b"rest")
        assert rest == b"rest"
    assert parted == whole and whole.rows == 3_000
    assert whole.between_ms == pytest.approx(1_000, rel=0.1)
    assert whole.rows // EVERY == 11


def test_a_budget_is_a_share_of_the_days_rows_within_bounds() -> None:
    assert Pace(EVERY, 0.0, 0.0, 864.0).share(1.0) == pytest.approx(1e-5)
    assert Pace(EVERY, 0.0, 0.0, 0.0).share(1.0) == 1e-9
    assert Pace(EVERY, 0.0, 0.0, 1e9).share(1.0) == 0.01
    with pytest.raises(ValueError):
        Pace.decode(b"short")
