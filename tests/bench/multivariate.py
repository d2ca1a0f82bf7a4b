"""Servers with many metrics and labelled incidents: ours beside River's half-space trees and a batch isolation forest.

Each file has X_train (not labelled) and X_test with y_test. Online detectors see both in order, each row scored before
it is learnt; the batch forest is fitted on X_train. Measured on X_test only:

- `roc_auc`; `range_auc`, which allows for labels that begin and end a little off (R-AUC-ROC: Paparrizos et al., Volume
  Under the Surface, PVLDB 15, 2022; the buffer is the mean length of an incident);
- best F1 over all thresholds, by points and by incidents: there recall is that of incidents, found by one alarm in
  them, and precision that of points, so that marking everything earns nothing (composite F: Garg et al., IEEE TNNLS
  2022). No point-adjusting: alarms do not count for points that they did not mark;
- precision, recall and F1 of both kinds at the detector's own threshold, chosen without labels: for ours the quantile
  of the pipeline, for the forest that of its `predict`; River's has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from agents.scoring.detectors import registry
from agents.scoring.detectors.by_name import MAX_FEATURES
from agents.scoring.detectors.time_series import TIME, TimeSeries
from agents.scoring.threshold import QuantileThreshold
from tests.bench.data import Unfit, arrays, labels, matrix, none_of, whole
from tests.bench.world import machine

Array = NDArray[np.float64]
Labels = NDArray[np.bool_]
#: Minutes between rows by folder, as the sets' README says; elsewhere `interval_s` in the file, or there is no clock.
MINUTES = {"smd": 1.0, "asd": 5.0}
THRESHOLDS = 250
#: The forest works in single precision.
LARGEST = 1e30
#: With --quick: rows of each of the two parts, and files.
QUICK_ROWS, QUICK_FILES = 1_500, 2


class Judged:
    """Scores of the test rows, and alarms where the detector has a threshold of its own."""

    def __init__(self, scores: Array, alarms: Labels | None, us_per_row: float) -> None:
        self.scores, self.alarms, self.us_per_row = scores, alarms, us_per_row


def main(quick: bool, data: Path) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    files, left_out = _files(data)
    files = files[::3][:QUICK_FILES] if quick else files
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in DETECTORS}
    jobs = [(path, name) for path in files for name in DETECTORS]
    for path, name in track(jobs, "sets", console=Console(stderr=True)):
        train, test, truth, seconds = _read(path)
        if quick:
            around = int(np.argmax(truth))
            part = slice(max(0, around - QUICK_ROWS // 2), around + QUICK_ROWS)
            train, test, truth = train[-QUICK_ROWS:], test[part], truth[part]
        judged = DETECTORS[name](train, test, seconds)
        found[name][f"{path.parent.name}/{path.stem}"] = measure(truth, judged)
    means = {name: {key: _mean([row[key] for row in rows.values()]) for key in next(iter(rows.values()))}
             for name, rows in found.items()}
    figures = {"bench": "multivariate", "quick": quick, "mean": means, "sets": found, "left_out": left_out,
               "machine": machine()}
    _print(figures)
    return figures


def _files(data: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that can be used, and why others cannot. Exits with a sentence if none can."""
    folders = [data / name for name in MINUTES if (data / name).is_dir()] or [data]
    found, left_out = [], {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.npz"))):
        try:
            _read(path)
            found.append(path)
        except Unfit as error:
            left_out[f"{path.parent.name}/{path.stem}"] = str(error)
    if not found:
        raise SystemExit(none_of(data, "no .npz with X_train, X_test and a y_test of both kinds", left_out))
    return found, left_out


def _read(path: Path) -> tuple[Array, Array, Labels, float]:
    """X_train (n, k), X_test (m, k), y_test (m,) of a file, and seconds between rows, NaN: unknown.

    Raises:
        Unfit: why it cannot be used.
    """
    train, test, truth = arrays(path, "X_train", "X_test", "y_test")
    train, test = matrix(train, "X_train"), matrix(test, "X_test")
    if train.shape[1] != test.shape[1]:
        raise Unfit(f"X_train has {train.shape[1]} columns and X_test {test.shape[1]}")
    found = labels(truth, len(test), "y_test").astype(np.bool_)
    if found.all() or not found.any():
        raise Unfit("y_test has labels of one kind only")
    with np.load(path, allow_pickle=False) as held:
        given = np.ravel(held["interval_s"]) if "interval_s" in held.files else np.empty(0)
    if given.size == 1 and np.issubdtype(given.dtype, np.number):
        return train, test, found, float(given[0])
    return train, test, found, 60 * MINUTES.get(path.parent.name, np.nan)


# -- detectors ------------------------------------------------------------------------------------------


def _ours(make: Callable[[], Any], clock: bool) -> Callable[[Array, Array, float], Judged]:
    def judge(train: Array, test: Array, seconds: float) -> Judged:
        rows = np.vstack((train, test))[:, :MAX_FEATURES - 1]
        detector, threshold = make(), QuantileThreshold()
        if clock:
            detector.column(TIME)
            rows = np.column_stack((np.arange(len(rows)) * seconds * 1000.0, rows))
        for place in range(min(test.shape[1], MAX_FEATURES - 1)):
            detector.column(f"x{place}")
        began = time.perf_counter()
        scores, thresholds, _ = detector.advance(rows, threshold.histogram, threshold.scalars)
        took = time.perf_counter() - began
        return Judged(scores[len(train):], (scores > thresholds)[len(train):], 1e6 * took / len(rows))
    return judge


def _river(train: Array, test: Array, seconds: float) -> Judged:
    from river import anomaly, compose, preprocessing
    model: Any = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))
    rows = whole(np.vstack((train, test)))
    names, scores = [f"x{place}" for place in range(rows.shape[1])], np.zeros(len(rows))
    began = time.perf_counter()
    for i, row in enumerate(rows.tolist()):
        x = dict(zip(names, row, strict=True))
        scores[i] = model.score_one(x)
        model.learn_one(x)
    return Judged(scores[len(train):], None, 1e6 * (time.perf_counter() - began) / len(rows))


def _forest(train: Array, test: Array, seconds: float) -> Judged:
    train, test = np.split(whole(np.vstack((train, test))).clip(-LARGEST, LARGEST), [len(train)])
    began = time.perf_counter()
    forest = IsolationForest(random_state=42).fit(train)
    scores = -forest.score_samples(test)
    took = time.perf_counter() - began
    return Judged(scores, scores > -forest.offset_, 1e6 * took / (len(train) + len(test)))


DETECTORS: dict[str, Callable[[Array, Array, float], Judged]] = {
    "time_series": _ours(TimeSeries, clock=True),
    "ensemble": _ours(registry.make, clock=False),
    "half_space_trees": _ours(lambda: registry.make(["half_space_trees"]), clock=False),
    "river.HalfSpaceTrees": _river,
    "isolation_forest (batch)": _forest,
}


# -- measures -------------------------------------------------------------------------------------------


def measure(labels: Labels, judged: Judged) -> dict[str, Any]:
    """Every figure of one set: labels (n,), scores (n,)."""
    scores = judged.scores
    thresholds = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, 4 * THRESHOLDS) ** 0.25))
    own = judged.alarms
    points, events = (points_at(labels, own), events_at(labels, own)) if own is not None else (_NONE, _NONE)
    return {
        "roc_auc": float(roc_auc_score(labels, scores)), "range_auc": range_auc(labels, scores),
        "best_f1": max(points_at(labels, scores >= t)[2] for t in thresholds),
        "best_event_f1": max(events_at(labels, scores >= t)[2] for t in thresholds),
        "own_precision": points[0], "own_recall": points[1], "own_f1": points[2],
        "own_event_recall": events[1], "own_event_f1": events[2],
        "us_per_row": judged.us_per_row}


_NONE = (None, None, None)


def runs(marks: Labels) -> list[tuple[int, int]]:
    """Where marks (n,) are True without a break: pairs of first row and the row after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marks, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def points_at(labels: Labels, alarms: Labels) -> tuple[float, float, float]:
    """Precision, recall and F1 of points."""
    right = (labels & alarms).sum()
    return _with_f1(_share(right, alarms.sum()), _share(right, labels.sum()))


def events_at(labels: Labels, alarms: Labels) -> tuple[float, float, float]:
    """Precision of points, recall of incidents, and their F1."""
    incidents = runs(labels)
    found = sum(bool(alarms[first:after].any()) for first, after in incidents)
    return _with_f1(_share((labels & alarms).sum(), alarms.sum()), _share(found, len(incidents)))


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0


def _with_f1(precision: float, recall: float) -> tuple[float, float, float]:
    both = precision + recall
    return precision, recall, 2.0 * precision * recall / both if both else 0.0


def range_auc(labels: Labels, scores: Array) -> float:
    """R-AUC-ROC: ROC-AUC with labels that fade over half a buffer at both ends, times the share of incidents found."""
    incidents = runs(labels)
    buffer = max(1, round(float(labels.sum()) / len(incidents)))
    soft = labels.astype(np.float64)
    for first, after in incidents:
        behind = np.arange(after, min(after + buffer // 2, len(soft)))
        before = np.arange(max(first - buffer // 2, 0), first)
        soft[behind] += np.sqrt(1.0 - (behind - after) / buffer)
        soft[before] += np.sqrt(1.0 - (first - before) / buffer)
    soft = np.minimum(soft, 1.0)
    wide = runs(soft > 0.0)
    positives = (labels.sum() + soft.sum()) / 2.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(soft[order])
    best = [scores[first:after].max() for first, after in wide]
    rates, false = [0.0], [0.0]
    for taken in np.linspace(0, len(scores) - 1, THRESHOLDS).round().astype(int):
        threshold = scores[order[taken]]
        n = int((scores >= threshold).sum())
        exists = float(np.mean(np.array(best) >= threshold))
        rates.append(min(hits[n - 1] / positives, 1.0) * exists)
        false.append((n - hits[n - 1]) / (len(scores) - positives))
    return float(np.trapezoid([*rates, 1.0], [*false, 1.0]))


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _print(figures: dict[str, Any]) -> None:
    keys = list(next(iter(figures["mean"].values())))
    sets = list(next(iter(figures["sets"].values())))
    table = Table(title=f"Mean over {len(sets)} sets; {figures['machine']}", title_justify="left")
    table.add_column("detector", no_wrap=True)
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    for name, row in figures["mean"].items():
        table.add_row(name, *("" if row[key] is None else f"{row[key]:.0f}" if key == "us_per_row" else
                              f"{row[key]:.3f}" for key in keys))
    areas = Table(title="ROC-AUC / best F1 / best event F1", title_justify="left")
    areas.add_column("set", no_wrap=True)
    for name in figures["sets"]:
        areas.add_column(name, justify="right")
    for each in sets:
        rows = [figures["sets"][name][each] for name in figures["sets"]]
        areas.add_row(each, *(f"{row['roc_auc']:.2f} / {row['best_f1']:.2f} / {row['best_event_f1']:.2f}"
                              for row in rows))
    console = Console(width=150)
    console.print(table)
    console.print(areas)
    for name, why in figures["left_out"].items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
