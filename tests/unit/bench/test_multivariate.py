"""The measures of the benchmark with many metrics, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.multivariate import events_at, points_at, range_auc, runs

LABELS = np.zeros(100, np.bool_)
LABELS[20:30] = LABELS[60:70] = True


def marks(*rows: int) -> np.ndarray:
    found = np.zeros(100, np.bool_)
    found[list(rows)] = True
    return found


def test_runs_are_found_at_both_ends() -> None:
    assert runs(np.array([True, True, False, True, False, True])) == [(0, 2), (3, 4), (5, 6)]
    assert runs(np.zeros(4, np.bool_)) == []


def test_points_count_only_where_they_are_marked() -> None:
    precision, recall, f1 = points_at(LABELS, marks(20, 21, 50))
    assert (precision, recall) == (pytest.approx(2 / 3), pytest.approx(2 / 20))
    assert f1 == pytest.approx(2 * (2 / 3) * 0.1 / (2 / 3 + 0.1))


def test_an_incident_is_found_by_one_alarm_and_precision_is_that_of_points() -> None:
    assert events_at(LABELS, marks(25, 26, 40, 41, 80)) == (pytest.approx(2 / 5), pytest.approx(1 / 2),
                                                            pytest.approx(4 / 9))


def test_marking_everything_earns_little() -> None:
    assert events_at(LABELS, np.ones(100, np.bool_)) == (0.2, 1.0, pytest.approx(1 / 3))


def test_nothing_said_is_nothing_right() -> None:
    assert points_at(LABELS, marks()) == events_at(LABELS, marks()) == (0.0, 0.0, 0.0)


def test_range_auc_is_high_for_the_truth_low_for_its_opposite_and_forgives_a_late_alarm() -> None:
    truth = LABELS.astype(np.float64)
    late = np.roll(truth, 3)
    far = np.roll(truth, 15)
    noise = np.random.default_rng(1).random(100) * 1e-3
    assert range_auc(LABELS, truth + noise) > 0.9
    assert range_auc(LABELS, -truth + noise) < 0.5
    assert range_auc(LABELS, late + noise) > range_auc(LABELS, far + noise) + 0.2
