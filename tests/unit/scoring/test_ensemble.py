"""The default ensemble: it finds what it should, names the culprit, is not poisoned, and follows a new world."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.metrics import roc_auc_score

from agents.scoring.detectors import registry
from agents.scoring.threshold import QuantileThreshold

Matrix = NDArray[np.float64]
TABLES = {"breast_cancer": load_breast_cancer().data[:, :10], "wine": load_wine().data,
          "diabetes": load_diabetes(scaled=False).data,
          "digits": load_digits().data[:, [20, 21, 26, 28, 34, 36, 42, 43]]}


def stream(table: str, n: int, seed: int) -> Matrix:
    """Rows drawn with replacement, with 2% of a standard deviation of noise."""
    rng, x = np.random.default_rng(seed), TABLES[table]
    return np.asarray(x[rng.integers(0, len(x), n)] + rng.standard_normal((n, x.shape[1])) * x.std(axis=0) * 0.02)


def trained(table: str, n: int = 3_000, names: tuple[str, ...] = ("ensemble",)) -> tuple[object, QuantileThreshold]:
    detector, threshold = registry.make(names), QuantileThreshold()
    for i in range(TABLES[table].shape[1]):
        detector.column(f"x{i}")
    detector.advance(stream(table, n, 1), threshold.histogram, threshold.scalars)
    return detector, threshold


def spoilt(x: Matrix, kind: str, column: int) -> Matrix:
    """Each row with one culprit."""
    x = x.copy()
    spread = np.nanstd(x[:, column])
    x[:, column] = {"unit": x[:, column] * 1_000.0, "null": np.full(len(x), np.nan),
                    "high": x[:, column].mean() + 8.0 * spread + 0.0 * x[:, column]}[kind]
    return x


@pytest.mark.parametrize("names", [("ensemble",), ("ensemble", "online_isolation_forest"), ("online_autoencoder",)])
def test_the_culprit_has_the_largest_share(names: tuple[str, ...]) -> None:
    right, alarms, cases = 0, 0, 0
    for table in TABLES:
        detector, threshold = trained(table, names=names)
        kept = detector.encode()
        for column in range(TABLES[table].shape[1]):
            for kind in ("unit", "null", "high"):
                again = registry.make(names).restore(kept)
                x = spoilt(stream(table, 12, 7 + column), kind, column)
                scores, thresholds, pushes = again.advance(x, threshold.histogram.copy(), threshold.scalars.copy())
                found = scores > thresholds
                alarms, cases = alarms + int(found.sum()), cases + len(x)
                right += int((pushes[found].argmax(axis=1) == column).sum())
    assert right >= 0.9 * alarms, (right, alarms)
    assert alarms > 0.5 * cases, (alarms, cases)


@pytest.mark.parametrize("table", TABLES)
def test_calm_data_makes_hardly_an_alarm(table: str) -> None:
    detector, threshold = registry.make(), QuantileThreshold()
    for i in range(TABLES[table].shape[1]):
        detector.column(f"x{i}")
    scores, thresholds, _ = detector.advance(stream(table, 8_000, 5), threshold.histogram, threshold.scalars)
    assert (scores > thresholds).mean() < 0.005


def test_an_incident_of_thousands_of_rows_does_not_become_usual() -> None:
    detector, threshold = trained("wine", 6_000)
    incident = spoilt(stream("wine", 3_000, 9), "unit", 3)
    scores, thresholds, _ = detector.advance(incident, threshold.histogram, threshold.scalars)
    found = scores > thresholds
    assert found[:256].mean() > 0.9
    assert found[-1_000:].mean() > 0.9


def test_a_world_that_has_changed_for_good_is_learnt() -> None:
    detector, _ = trained("wine", 6_000)
    changed = spoilt(stream("wine", 10_000, 9), "unit", 3)
    scores = detector.score_learn_many(changed)
    assert np.median(scores[:1_000]) > 0.9
    assert np.median(scores[-1_000:]) < 0.8
    back = detector.score_learn_many(stream("wine", 200, 10))
    assert np.median(back[:64]) > 0.0


def test_it_beats_each_of_its_members_on_planted_anomalies_of_four_kinds() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((6_000, 4)) @ np.array([[1, 0.9, 0, 0], [0, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    x[:, 3] = np.where(rng.random(6_000) < 0.5, -4.0, 4.0) + 0.3 * x[:, 3]
    y = np.zeros(6_000, int)
    places = rng.choice(np.arange(300, 6_000), 80, replace=False)
    y[places] = 1
    x[places[:20], 0] += 5.0                                  # out of one column
    x[places[20:40], 1] *= -1.0
    x[places[20:40], 0] = 1.8                                 # against the correlation
    x[places[40:60], 3] = 0.0                                 # between two modes
    x[places[60:], :] += 2.2                                  # a little out of all
    areas = {name: roc_auc_score(y, registry.member(name).score_learn_many(x)) for name in registry.ENSEMBLE}
    whole = roc_auc_score(y, registry.make().score_learn_many(x))
    assert whole > 0.9
    assert whole > np.mean(list(areas.values()))


def test_golden_scores() -> None:
    x = np.random.default_rng(0).standard_normal((1_000, 3))
    x[900] = 9.0, -9.0, 0.0
    scores = registry.make(seed=5).score_learn_many(x)
    found = [round(float(scores[i]), 9) for i in (100, 500, 899, 900)]
    assert found == GOLDEN, found
    assert scores.argmax() == 900


GOLDEN = [0.25185618, 0.751752449, 0.286005894, 0.999965372]


def test_names_that_are_no_detectors_are_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="robust_covariance"):
        registry.make(["no_such"])
    with pytest.raises(ValueError, match=r"river\.LODA"):
        registry.make(["river.NoSuch"])
    with pytest.raises(ValueError, match="once"):
        registry.make(["loda", "loda"])
