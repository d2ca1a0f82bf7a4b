"""Half-space trees: River's numbers where River is defined, and what telemetry does beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from river import anomaly
from sklearn.datasets import load_wine

from agents.scoring.detectors import snapshot
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.detectors.tree_kernels import PATIENCE

WINDOW = 50


def wine_stream(n: int, seed: int) -> NDArray[np.float64]:
    """Rows of the wine data, drawn with replacement, with 2% of a standard deviation of noise."""
    rng, x = np.random.default_rng(seed), load_wine().data
    return x[rng.integers(0, len(x), n)] + rng.standard_normal((n, x.shape[1])) * x.std(axis=0) * 0.02


def arrays_of(tree: object, height: int) -> tuple[list[str], list[float]]:
    """River's tree in heap order."""
    names, splits, level = [], [], [tree]
    for _ in range(height):
        names += [node.feature for node in level]
        splits += [node.threshold for node in level]
        level = [child for node in level for child in node.children]
    return names, splits


def twins(height: int, trees: int, first: dict[str, float]) -> tuple[anomaly.HalfSpaceTrees, HalfSpaceTrees]:
    """River's detector, and ours with its trees; both have learnt `first`."""
    theirs = anomaly.HalfSpaceTrees(n_trees=trees, height=height, window_size=WINDOW, seed=3)
    theirs.learn_one(first)
    copied = [arrays_of(tree, height) for tree in theirs.trees]
    ours = HalfSpaceTrees(trees, height, WINDOW)
    columns = {name: i for i, name in enumerate(sorted(first))}
    ours.plant(np.array([[columns[name] for name in names] for names, _ in copied], np.int32),
               np.array([splits for _, splits in copied]), dict.fromkeys(columns, (0.0, 1.0)))
    ours.learn_one(first)
    return theirs, ours


@pytest.mark.parametrize(("height", "trees"), [(1, 1), (4, 7), (8, 25)])
def test_with_rivers_trees_scores_are_rivers_bit_by_bit(height: int, trees: int) -> None:
    rows = np.random.default_rng(1).beta(2, 5, (400, 4))
    rows[::17] = np.random.default_rng(2).random((len(rows[::17]), 4))
    dicts = [dict(zip("abcd", row, strict=True)) for row in rows.tolist()]
    theirs, ours = twins(height, trees, dicts[0])
    distinct = set()
    for x in dicts[1:]:
        expected = theirs.score_one(x)
        assert ours.score_one(x) == expected
        distinct.add(expected)
        theirs.learn_one(x)
        ours.learn_one(x)
    assert len(distinct) > height


def grown(x: NDArray[np.float64], seed: int = 0) -> HalfSpaceTrees:
    detector = HalfSpaceTrees(25, 8, WINDOW, seed)
    detector.score_learn_many(x)
    return detector


def test_a_value_in_another_unit_scores_above_every_calm_row() -> None:
    x = wine_stream(2000, 1)
    detector = HalfSpaceTrees()
    calm = detector.score_learn_many(x)[500:]
    for column in range(x.shape[1]):
        strange = wine_stream(20, 2)
        strange[:, column] *= 1000
        scores = [detector.score_one({f"x{i}": value for i, value in enumerate(row)}) for row in strange]
        assert min(scores) > np.quantile(calm, 0.999), column


def test_a_column_that_goes_null_scores_above_every_calm_row_unless_its_absence_is_usual() -> None:
    x = wine_stream(2000, 1)
    x[np.random.default_rng(4).random(len(x)) < 0.3, 1] = np.nan
    detector = HalfSpaceTrees()
    calm = detector.score_learn_many(x)[500:]
    row = {f"x{i}": value for i, value in enumerate(wine_stream(1, 2)[0])}
    assert detector.score_one(row | {"x0": None}) > calm.max()
    assert detector.score_one({name: value for name, value in row.items() if name != "x0"}) > calm.max()
    assert detector.score_one(row | {"x1": None}) < np.quantile(calm, 0.99)


def test_the_absence_of_an_optional_feature_is_no_news() -> None:
    guarded, lenient = HalfSpaceTrees(window=WINDOW), HalfSpaceTrees(window=WINDOW, optional=["x0"])
    for detector in (guarded, lenient):
        detector.score_learn_many(wine_stream(WINDOW, 1))
    row = {f"x{i}": value for i, value in enumerate(wine_stream(1, 2)[0])} | {"x0": None}
    assert guarded.score_one(row) > 0.99999 > lenient.score_one(row)


def test_an_incident_of_ten_windows_does_not_become_normal() -> None:
    detector = grown(wine_stream(20 * WINDOW, 1))
    strange = wine_stream(10 * WINDOW, 2)
    strange[:, 0] *= 1000
    scores = detector.score_learn_many(strange)
    after = detector.score_learn_many(wine_stream(WINDOW, 3))
    assert scores.min() > after.max()


def test_a_change_that_stays_becomes_normal_after_twenty_epochs() -> None:
    detector = HalfSpaceTrees(25, 8, WINDOW)
    calm = detector.score_learn_many(wine_stream(20 * WINDOW, 1))
    moved = wine_stream((PATIENCE + 3) * WINDOW, 2)
    moved[:, 0] *= 1000
    scores = detector.score_learn_many(moved)
    assert scores[:PATIENCE * WINDOW].min() > calm.max()
    assert np.median(scores[-WINDOW:]) < calm.max()


def test_a_new_feature_is_learnt_at_the_end_of_the_epoch_after_the_one_it_came_in() -> None:
    detector = grown(wine_stream(2 * WINDOW, 1)[:, :3])
    wider = wine_stream(2 * WINDOW, 2)[:, :4]
    detector.score_learn_many(wider[:-1])
    before = [detector.score_one(dict(zip(detector.features, [*wider[0][:3], value], strict=True)))
              for value in (wider[0][3], 1e9)]
    assert before[0] == before[1]
    detector.score_learn_many(wider[-1:])
    after = [detector.score_one(dict(zip(detector.features, [*wider[0][:3], value], strict=True)))
             for value in (wider[0][3], 1e9)]
    assert after[0] < after[1] > 0.99999


def test_rare_names_do_not_make_new_trees_and_names_are_bounded() -> None:
    detector = grown(wine_stream(2 * WINDOW, 1)[:, :3])
    trees = detector.split
    for i, row in enumerate(wine_stream(400, 2)[:, :3]):
        detector.learn_one(dict(zip(("x0", "x1", "x2"), row, strict=True)) | {f"junk{i}": 1.0})
    assert detector.split is trees
    assert len(detector.features) == 256


def test_a_detector_without_any_feature_never_gets_ready() -> None:
    detector = HalfSpaceTrees(window=WINDOW)
    for _ in range(3 * WINDOW):
        detector.learn_one({"only": None})
    assert not detector.ready
    assert detector.score_one({"only": None}) == 0.0


def test_one_outlier_in_the_warm_up_does_not_take_the_range() -> None:
    spoilt = wine_stream(WINDOW, 1)
    spoilt[10, 0] = 1e300
    detector = grown(spoilt)
    calm = detector.score_learn_many(wine_stream(2 * WINDOW, 2))
    strange = {f"x{i}": value for i, value in enumerate(wine_stream(1, 3)[0])} | {"x0": 1e5}
    assert detector.score_one(strange) > calm.max()


def test_spikes_that_come_now_and_then_become_usual_and_an_incident_does_not() -> None:
    calm, spiky, incident = (HalfSpaceTrees(25, 8, WINDOW) for _ in range(3))
    x = wine_stream(30 * WINDOW, 1)
    calm.score_learn_many(x)
    x[WINDOW + 3::25, 0] = 2000.0
    spiky.score_learn_many(x)
    x[2 * WINDOW:15 * WINDOW, 0] = 2000.0
    x[WINDOW:2 * WINDOW] = x[15 * WINDOW:] = wine_stream(1, 4)
    incident.score_learn_many(x)
    row = {f"x{i}": value for i, value in enumerate(wine_stream(1, 3)[0])} | {"x0": 2000.0}
    assert 1 - spiky.score_one(row) > 20 * (1 - calm.score_one(row))
    assert 1 - incident.score_one(row) < 3 * (1 - calm.score_one(row))


def test_a_level_that_rises_slowly_is_followed() -> None:
    x = wine_stream(60 * WINDOW, 1)
    width = np.ptp(x[:WINDOW, 0])
    x[:, 0] += np.maximum(0.0, np.arange(len(x)) / WINDOW - 5) * 0.2 * width
    slow = HalfSpaceTrees(25, 8, WINDOW).score_learn_many(x)
    assert np.median(slow[-WINDOW:]) < slow[WINDOW:5 * WINDOW].max()


def test_scores_do_not_depend_on_the_features_units() -> None:
    x = wine_stream(10 * WINDOW, 1)
    assert np.array_equal(grown(x).score_learn_many(x), grown(x * 1024.0).score_learn_many(x * 1024.0))


def test_detectors_of_other_seeds_have_other_trees() -> None:
    x = wine_stream(2 * WINDOW, 1)
    assert not np.array_equal(grown(x, 1).split, grown(x, 2).split)


def test_trees_of_height_fifteen_grow_and_score() -> None:
    detector = HalfSpaceTrees(2, 15, WINDOW)
    scores = detector.score_learn_many(wine_stream(3 * WINDOW, 1))
    assert (scores[:WINDOW] == 0).all()
    assert (scores[WINDOW:] > 0).all()


@pytest.mark.parametrize("rows", [0, 10, WINDOW, 3 * WINDOW + 7])
def test_every_truncation_of_a_snapshot_raises(rows: int) -> None:
    detector = HalfSpaceTrees(2, 3, WINDOW)
    detector.score_learn_many(wine_stream(rows, 1)[:, :2])
    data = snapshot.encode(detector)
    for end in range(len(data)):
        with pytest.raises(ValueError):
            snapshot.decode(data[:end])
    with pytest.raises(ValueError, match="too many"):
        snapshot.decode(data + b"x")


def test_a_snapshot_grows_the_very_trees_and_masses_again() -> None:
    detector = grown(wine_stream(7 * WINDOW + 13, 1))
    again = snapshot.decode(snapshot.encode(detector))
    assert np.array_equal(again.split, detector.split)
    assert np.array_equal(again.feature, detector.feature)
    assert np.array_equal(again.reference, detector.reference)
    assert np.array_equal(again.latest, detector.latest)
    assert np.array_equal(again.paths, detector.paths)


@pytest.mark.parametrize("window", [2**16 - 1, 2**16])
def test_windows_of_more_rows_than_sixteen_bits_hold_are_counted(window: int) -> None:
    detector = HalfSpaceTrees(1, 1, window)
    detector.score_learn_many(np.full((2 * window, 1), 0.5))
    assert (detector.reference[:, 0] == window).all()
    assert np.array_equal(snapshot.decode(snapshot.encode(detector)).reference, detector.reference)


def test_the_last_of_the_features_that_are_kept_is_looked_at() -> None:
    x = np.random.default_rng(1).normal(size=(3 * WINDOW, 256))
    detector = HalfSpaceTrees(50, 8, WINDOW)
    detector.score_learn_many(x)
    assert detector.feature.max() == 255


def test_planted_trees_have_no_snapshot() -> None:
    _, ours = twins(2, 1, {"a": 0.5})
    with pytest.raises(ValueError, match="planted"):
        snapshot.encode(ours)
