"""Calm real data makes few alarms; incidents in it make many, and name their column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from agents.scoring.detectors import registry
from agents.scoring.threshold import QuantileThreshold

Matrix = NDArray[np.float64]


def _pixels() -> Matrix:
    """The 16 pixels of the digits that vary most."""
    x = load_digits().data
    return x[:, np.sort(np.argsort(-x.std(axis=0), kind="stable")[:16])]


TABLES = {
    "breast_cancer": load_breast_cancer().data,
    "wine": load_wine().data,
    "digits": _pixels(),
    "diabetes": load_diabetes(scaled=False).data,
}


#: Detector -> the share of calm rows that may be alarms: an outlier of the 178 wines comes back every 178th row.
NAMES = {registry.HALF_SPACE_TREES: 0.003, "ensemble": 0.007}


class Judged(NamedTuple):
    alarms: NDArray[np.bool_]
    pushes: Matrix


class Watch:
    """A detector and its threshold at the default settings."""

    def __init__(self, columns: int, seed: int, name: str) -> None:
        self.detector, self.threshold = registry.make([name], seed), QuantileThreshold()
        for i in range(columns):
            self.detector.column(f"x{i}")

    def take(self, x: Matrix) -> Judged:
        scores, thresholds, pushes = self.detector.advance(x, self.threshold.histogram, self.threshold.scalars)
        return Judged(scores > thresholds, pushes)


def stream(table: str, n: int, seed: int) -> Matrix:
    """Rows drawn with replacement, with 2% of a standard deviation of noise."""
    rng, x = np.random.default_rng(seed), TABLES[table]
    return x[rng.integers(0, len(x), n)] + rng.standard_normal((n, x.shape[1])) * x.std(axis=0) * 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("table", TABLES)
def test_calm_data_makes_hardly_an_alarm(table: str, seed: int, name: str) -> None:
    alarms = Watch(TABLES[table].shape[1], seed, name).take(stream(table, 8_000, seed)).alarms
    assert alarms.mean() < NAMES[name]
    assert alarms[:1_000].mean() < NAMES[name] + 0.002
    assert np.convolve(alarms, np.ones(200), "valid").max() < 0.05 * 200


@pytest.mark.parametrize(("name", "calm"), [(registry.HALF_SPACE_TREES, 420), (registry.HALF_SPACE_TREES, 6_000),
                                            ("ensemble", 700), ("ensemble", 6_000)])
@pytest.mark.parametrize("kind", ["unit change", "null column"])
@pytest.mark.parametrize("table", TABLES)
def test_an_incident_makes_most_events_anomalous_and_names_its_column(table: str, kind: str, calm: int,
                                                                                    name: str) -> None:
    nonzero = (TABLES[table] != 0).mean(axis=0)
    for seed, column in enumerate(np.argsort(-nonzero, kind="stable")[:3]):
        watch = Watch(len(nonzero), seed, name)
        before = watch.take(stream(table, calm, seed)).alarms
        x = stream(table, 600, seed + 100)
        x[:, column] = x[:, column] * 1000.0 if kind == "unit change" else np.nan
        during = watch.take(x)
        assert before.mean() < 0.02
        assert during.alarms.mean() > 0.5
        assert (during.pushes[during.alarms].argmax(axis=1) == column).mean() > 0.9
        after = watch.take(stream(table, 600, seed + 200)).alarms
        assert after.mean() < 0.02
