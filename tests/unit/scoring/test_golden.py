"""The scores of every detector on a fixed stream, as they were when the detector was accepted."""

from __future__ import annotations

import numpy as np
import pytest

from agents.scoring.detectors import registry

#: Rows whose scores are compared; the last is planted.
PLACES = (100, 500, 899, 900)
GOLDEN: dict[str, list[float]] = {
    "half_space_trees": [0.0, 0.958286071, 0.737187945, 0.991244202],
    "online_isolation_forest": [0.253926754, 0.309099504, 0.264613605, 0.342979196],
    "online_autoencoder": [0.528689743, 0.804291868, 0.31443922, 21.611232827],
    "robust_covariance": [1.523533679, 2.213447023, 1.233810028, 15.486761085],
    "tail_probability": [3.040174374, 4.651884144, 3.564728674, 13.191826255],
    "nearest_neighbours": [0.738740869, 1.035658688, 0.850173488, 11.848481177],
    "histogram_rarity": [5.432095415, 7.406874445, 7.339809674, 19.580682201],
    "loda": [1.569924028, 2.282733776, 2.006373163, 7.330337935],
}


def scores_of(name: str) -> list[float]:
    x = np.random.default_rng(0).standard_normal((1_000, 3)) * [1.0, 50.0, 0.01] + [0.0, 900.0, -3.0]
    x[::50, 1] = np.nan
    x[900] = 9.0, 450.0, -3.0
    return [float(score) for score in registry.member(name, 5).score_learn_many(x)[list(PLACES)]]


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_scores_are_those_that_were_accepted(name: str) -> None:
    found = scores_of(name)
    assert found == pytest.approx(GOLDEN[name], rel=1e-6)
    assert found[3] == max(found)
