"""The online isolation forest: its counts add up whatever it inserts and forgets, and it follows its window."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from agents.scoring.detectors.online_isolation_forest import OnlineIsolationForest


def test_counts_add_up_and_trees_hang_together_whatever_comes_and_goes() -> None:
    rng = np.random.default_rng(2)
    forest = OnlineIsolationForest(8, 256, 16, seed=3)
    for n in (16, 100, 256, 300, 1_000):
        forest.score_learn_many(rng.standard_normal((n, 3)))
        assert 0 < forest.held <= 256
        assert (forest.count[:, 0] == forest.held).all(), "the root counts the window"
        inner = forest.feature >= 0
        for t, node in zip(*np.nonzero(inner), strict=True):
            assert forest.count[t, node] == forest.count[t, 2 * node + 1] + forest.count[t, 2 * node + 2]
            assert forest.count[t, node] >= 16 * 2 ** int(np.log2(node + 1)), "else it would be a leaf"
            assert node == 0 or inner[t, (node - 1) // 2], "a node that splits hangs on one that splits"
    assert inner[:, 0].all()


def test_what_left_the_window_is_forgotten() -> None:
    rng = np.random.default_rng(5)
    forest = OnlineIsolationForest(32, 512, 16, seed=1)
    old, new = rng.standard_normal((3_000, 2)), rng.standard_normal((3_000, 2)) + 12.0
    forest.score_learn_many(old)
    assert forest.score_rows(new[:50]).mean() > forest.score_rows(old[:50]).mean() + 0.1
    forest.renew()
    forest.score_learn_many(new)
    assert forest.score_rows(old[:50]).mean() > forest.score_rows(new[:50]).mean() + 0.1


def test_without_a_break_a_slow_change_is_followed() -> None:
    rng = np.random.default_rng(6)
    forest = OnlineIsolationForest(32, 512, 16, seed=1)
    moving = rng.standard_normal((12_000, 2)) + np.linspace(0, 12, 12_000)[:, None]
    scores = forest.score_learn_many(moving)
    assert forest.score_rows(rng.standard_normal((50, 2))).mean() > scores[-500:].mean() + 0.05


def test_real_anomalies_score_higher() -> None:
    found = load_breast_cancer()
    rng = np.random.default_rng(0)
    benign = np.flatnonzero(found.target == 1)
    order = rng.permutation(np.concatenate((np.resize(benign, 3_000), np.flatnonzero(found.target == 0)[:60])))
    scores = OnlineIsolationForest(seed=2).score_learn_many(found.data[order])
    assert roc_auc_score(found.target[order] == 0, scores) > 0.8


@pytest.mark.parametrize("column", [0, 1])
def test_a_column_that_is_constant_is_not_split(column: int) -> None:
    x = np.random.default_rng(1).standard_normal((2_000, 2))
    x[:, column] = 7.0
    forest = OnlineIsolationForest(8, 512, 16)
    forest.score_learn_many(x)
    assert set(np.unique(forest.feature)) == {-1, 1 - column}
