"""Every detector against every check; and a detector that is bad on purpose, which every check must refuse."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

from agents.scoring.detectors import registry, snapshot
from agents.scoring.detectors.adapter import river_names
from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.clocked import TIME, Clocked
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.detectors.holt_winters import HoltWinters
from agents.scoring.detectors.time_series import TimeSeries

Make = Callable[[int], Any]
Matrix = NDArray[np.float64]


def half_space_trees(trees: int, height: int, window: int) -> Make:
    return lambda seed: HalfSpaceTrees(trees, height, window, seed)


def alone(name: str) -> Make:
    return lambda seed: registry.member(name, seed, options=registry.TreeOptions(5, 4, 64))


def together(*names: str) -> Make:
    return lambda seed: registry.make(names, seed, options=registry.TreeOptions(5, 4, 64))


class Bad:
    """Breaks every rule: scoring mutates, chance is unseeded, batches differ, state is lost, scores have no bounds."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng()
        self.seen = 0.0

    def score_one(self, x: dict[str, Any]) -> float:
        self.seen += 1
        return float(sum(x.values()) * self.rng.random() + self.seen)

    def learn_one(self, x: dict[str, Any]) -> None:
        self.seen += sum(value or 0.0 for value in x.values())

    def score_learn_many(self, X: Matrix) -> Matrix:
        if not len(X):
            return np.zeros(0)
        scores = X.sum(axis=1) / np.ptp(X) + self.rng.random(len(X))
        self.seen += float(X.sum())
        return np.asarray(scores)


DETECTORS: dict[str, Make] = {
    "trees 25 x 8": half_space_trees(25, 8, 250),
    "trees 5 x 4, window 32": half_space_trees(5, 4, 32),
    "one tree of one split, window 2": half_space_trees(1, 1, 2),
    "trees 3 x 12, window 100": half_space_trees(3, 12, 100),
    **{f"member {name}": alone(name) for name in registry.REGISTRY},
    **{f"ensemble of {name}": together(name) for name in registry.REGISTRY if name != registry.HALF_SPACE_TREES},
    "the default ensemble": together("ensemble"),
    "an ensemble of all": together(*registry.REGISTRY),
    "time series": TimeSeries,
    "Holt-Winters": HoltWinters,
    "an ensemble with River's": together("robust_covariance", "river.HalfSpaceTrees"),
}
#: River's own: slow, so fewer of them; LODA, the neighbours and the machine draw or keep state that must be seeded.
SLOW = {name: alone(name) for name in river_names()}


def rows(n: int = 900, missing: float = 0.02) -> Matrix:
    """Tumour measurements, six columns, one of them constant, some values missing."""
    rng, x = np.random.default_rng(5), load_breast_cancer().data[:, :6]
    found = x[rng.integers(0, len(x), n)] + rng.standard_normal((n, 6)) * x.std(axis=0) * 0.02
    found[:, 5] = 7.0
    found[rng.random(found.shape) < missing] = np.nan
    return found


def as_dict(row: Matrix) -> dict[str, float | None]:
    return {f"x{i}": None if np.isnan(value) else float(value) for i, value in enumerate(row)}


def encode(detector: Any) -> bytes:
    if isinstance(detector, Detector | Clocked):
        return detector.encode()
    return snapshot.encode(detector) if isinstance(detector, HalfSpaceTrees) else repr(type(detector)).encode()


def decode(make: Make, data: bytes) -> Any:
    fresh = make(1)
    if isinstance(fresh, Detector | Clocked):
        return fresh.restore(data)
    return snapshot.decode(data) if isinstance(fresh, HalfSpaceTrees) else fresh


def scoring_never_mutates(make: Make) -> None:
    detector = make(1)
    detector.score_learn_many(rows())
    before = encode(detector), detector.score_one(as_dict(rows(missing=0)[3]))
    for row in rows(60):
        detector.score_one(as_dict(row) | {"never seen": 1.0})
    assert (encode(detector), detector.score_one(as_dict(rows(missing=0)[3]))) == before


def the_same_seed_and_stream_give_the_same_scores(make: Make) -> None:
    assert np.array_equal(make(1).score_learn_many(rows()), make(1).score_learn_many(rows()))


def a_batch_equals_the_loop_of_single_calls(make: Make) -> None:
    x, single = rows(), make(1)
    expected = []
    for row in x:
        expected.append(single.score_one(as_dict(row)))
        single.learn_one(as_dict(row))
    assert np.array_equal(make(1).score_learn_many(x), expected)


def any_cutting_gives_the_same_scores(make: Make) -> None:
    x, rng = rows(), np.random.default_rng(6)
    whole = make(1).score_learn_many(x)
    for _ in range(5):
        detector, cuts = make(1), np.sort(rng.integers(0, len(x) + 1, 12))
        parts = [detector.score_learn_many(part) for part in np.split(x, cuts)]
        assert np.array_equal(np.concatenate(parts), whole)


def a_snapshot_in_the_middle_changes_nothing(make: Make) -> None:
    x = rows()
    whole = make(1).score_learn_many(x)
    for cut in (0, 1, 31, 32, 100, 249, 250, 251, 700):
        detector = make(1)
        detector.score_learn_many(x[:cut])
        again = decode(make, encode(detector))
        assert np.array_equal(again.score_learn_many(x[cut:]), whole[cut:]), cut


def missing_features_are_scored(make: Make) -> None:
    for share in (0.3, 0.99, 1.0):
        assert_scores(make(1), rows(missing=share))


def constant_features_are_scored(make: Make) -> None:
    for value in (0.0, 1.0, -1e-300, 1e300):
        assert_scores(make(1), np.full((600, 3), value))


def extreme_values_are_scored(make: Make) -> None:
    x = rows(missing=0.0)
    x[400:, 0] = np.resize([1e300, -1e300, 0.0, 1.7e308, -1.7e308, 5e-324], 500)
    x[100:120, 1] = 1.7e308
    x[120:140, 1] = -1.7e308
    assert_scores(make(1), x)
    x[500:, 1] = np.inf
    x[600:, 1] = -np.inf
    assert_scores(make(1), x)


def assert_scores(detector: Any, x: Matrix) -> None:
    """Every score is a number, at least 0 (in [0, 1] where it is to be compared), and one more row is taken singly."""
    with np.errstate(all="raise"):
        scores = detector.score_learn_many(np.array(x))
        last = detector.score_one(as_dict(x[-1]))
    assert scores.shape == (len(x),)
    most = np.finfo(float).max if isinstance(detector, Detector) and detector.name != "ensemble" else 1.0
    assert ((scores >= 0) & (scores <= most)).all()
    assert 0 <= last <= most


def new_features_are_taken_in(make: Make) -> None:
    detector, x = make(1), rows(missing=0.0)
    for row in x[:300]:
        detector.learn_one(as_dict(row[:3]))
    for row in x[300:600]:
        assert detector.score_one(as_dict(row)) >= 0.0
        detector.learn_one(as_dict(row))
    assert detector.features == [f"x{i}" for i in range(6)]
    again = decode(make, encode(detector))
    assert np.array_equal(again.score_learn_many(x[600:]), detector.score_learn_many(x[600:]))


def a_feature_that_comes_late_gives_the_same_scores_for_any_cutting(make: Make) -> None:
    """A batch names its features before its first row is scored: the later ones must not tell."""
    x, rng = rows(400, missing=0.0), np.random.default_rng(8)
    for late in (5, 30, 207):
        x[:late, 4:], x[:late + 90, 5] = np.nan, np.nan
        single, expected = make(1), []
        for row in x:
            known = {name: value for name, value in as_dict(row).items() if value is not None}
            expected.append(single.score_one(known))
            single.learn_one(known)
        for _ in range(3):
            detector, found = make(1), []
            for part in np.split(x, np.sort(rng.integers(0, len(x) + 1, 8))):
                for name in (f"x{i}" for i in range(6) if not np.isnan(part[:, i]).all()):
                    detector.column(name)
                found.append(detector.score_learn_many(part[:, :len(detector.columns)]))
                detector = decode(make, encode(detector))
            assert np.array_equal(np.concatenate(found), expected), late


def a_snapshot_that_is_cut_short_is_refused(make: Make) -> None:
    detector = make(1)
    detector.score_learn_many(rows(300))
    data = encode(detector)
    for cut in (0, 3, 7, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError):
            decode(make, data[:cut])


CHECKS = [scoring_never_mutates, the_same_seed_and_stream_give_the_same_scores, a_batch_equals_the_loop_of_single_calls,
          any_cutting_gives_the_same_scores, a_snapshot_in_the_middle_changes_nothing, missing_features_are_scored,
          constant_features_are_scored, extreme_values_are_scored, new_features_are_taken_in,
          a_feature_that_comes_late_gives_the_same_scores_for_any_cutting,
          a_snapshot_that_is_cut_short_is_refused]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_passes(name: str, check: Callable[[Make], None]) -> None:
    check(DETECTORS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_detector_of_rivers_passes(name: str) -> None:
    for check in (scoring_never_mutates, the_same_seed_and_stream_give_the_same_scores,
                  a_batch_equals_the_loop_of_single_calls, missing_features_are_scored, constant_features_are_scored,
                  extreme_values_are_scored):
        check(SLOW[name])
    detector, x = SLOW[name](1), rows(300)
    detector.score_learn_many(x[:200])
    again = decode(SLOW[name], encode(detector))
    assert np.array_equal(again.score_learn_many(x[200:]), detector.score_learn_many(x[200:]))


class Hoarder:
    """Keeps every row: bad on purpose."""

    def __init__(self) -> None:
        self.rows: list[Matrix] = []

    def score_learn_many(self, X: Matrix) -> Matrix:
        self.rows.append(X.copy())
        return np.zeros(len(X))


def a_stream_does_not_make_it_grow(detector: Any, rounds: int) -> None:
    """40,000 rows a round, five minutes apart where there is a clock. What waits for a block's end may differ."""
    x, sizes, held = np.tile(rows(20_000)[:, :3], (2, 1)), [], []
    clocked = isinstance(detector, Clocked)
    for name in (TIME, "x0", "x1") if clocked else ():
        detector.column(name)
    tracemalloc.start()
    try:
        for number in range(rounds):
            if clocked:
                x[:, 0] = 1.7e12 + (number * len(x) + np.arange(len(x))) * 3e5
            detector.score_learn_many(x)
            sizes.append(len(encode(detector)))
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes) < min(sizes) + 20_000
    assert max(held[1:]) < held[0] + 200_000


@pytest.mark.slow
@pytest.mark.parametrize("name", [*registry.REGISTRY, "ensemble", *registry.SERIES])
def test_a_million_rows_do_not_make_it_grow(name: str) -> None:
    a_stream_does_not_make_it_grow(registry.make([name]), 25)


def test_a_detector_that_grows_is_refused() -> None:
    with pytest.raises(AssertionError):
        a_stream_does_not_make_it_grow(Hoarder(), 2)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_bad_detector_is_refused_by(check: Callable[[Make], None]) -> None:
    with pytest.raises((AssertionError, TypeError, FloatingPointError, AttributeError, pytest.fail.Exception)):
        check(Bad)
