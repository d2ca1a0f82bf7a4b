"""An isolation forest that learns row by row and forgets row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from agents.scoring.detectors import forest_kernels as f
from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.kernels import CountArray, FloatArray, IntArray


class OnlineIsolationForest(Detector):
    r"""Rows that end high up in random trees are anomalous: score = 2 ** -(mean depth / log4(rows / leaf rows)).

    A tree is a histogram of boxes. A leaf counts its rows and keeps their bounding box; with leaf rows * 2^depth of
    them it is split at a random place of a random side of the box, and its count shared out as that many points,
    uniform in the box, would be. A row that leaves the window is counted out again along its path; a node with too few
    rows becomes a leaf. No rows are kept in the trees.

    Source: Leveni, Weigert Cassales, Pfahringer, Bifet, Boracchi: Online Isolation Forest, ICML 2024 (window 2048, 32
    trees, 32 leaf rows, adaptive, axis-parallel). Deviations: sides without extent are not split; missing values go to
    the heavier child.
    Cost: O(T log(window)) a row to score, to learn and to forget; memory T * 4^(depth / 2) boxes and the window's rows.
    Units: none, no scaling is needed. Invariants: as `Detector`.
    """

    name = "online_isolation_forest"

    def __init__(self, n_trees: int = 32, window: int = 2048, leaf_rows: int = 32, seed: int = 42,
                 optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.n_trees, self.window, self.leaf_rows = n_trees, window, leaf_rows
        self.depth = max(1, math.ceil(math.log(max(window / leaf_rows, 1.0), 4)))
        self._plant()

    def _plant(self) -> None:
        nodes, width = 2 ** (self.depth + 1) - 1, self.width
        self.learnt = 0
        self.rows: FloatArray = np.full((self.window, width), np.nan)
        self.feature: IntArray = np.full((self.n_trees, nodes), -1, np.int32)
        self.split: FloatArray = np.zeros((self.n_trees, nodes))
        self.count: CountArray = np.zeros((self.n_trees, nodes), np.int64)
        self.box = _boxes(self.n_trees, nodes, width)
        self.state = np.array([self.seed % 2**64], np.uint64)

    @property
    def held(self) -> int:
        """Rows in the window."""
        return min(self.learnt, self.window)

    @property
    def ready(self) -> bool:
        return self.held > self.leaf_rows

    def parameters(self) -> dict[str, Any]:
        return {"trees": self.n_trees, "window": self.window, "leaf_rows": self.leaf_rows}

    def score_rows(self, rows: FloatArray) -> FloatArray:
        out = np.empty(len(rows))
        f.scores(rows, self.held, self.leaf_rows, self.feature, self.split, self.count, out)
        return out

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        self.learnt = int(f.learn(np.ascontiguousarray(rows), self.rows, self.learnt, self.leaf_rows, self.feature,
                                  self.split, self.count, self.box, self.state))

    def widen(self) -> None:
        width = self.width
        rows, box = np.full((self.window, width), np.nan), _boxes(self.n_trees, self.feature.shape[1], width)
        rows[:, :self.rows.shape[1]] = self.rows
        box[..., :self.box.shape[3]] = self.box
        self.rows, self.box = rows, box

    def renew(self) -> None:
        state = self.state
        self._plant()
        self.state = state

    def typical(self) -> FloatArray:
        known = self.rows[:self.held]
        usual = np.full(known.shape[1], np.nan)
        some = ~np.isnan(known).all(axis=0)
        usual[some] = np.nanmedian(known[:, some], axis=0)
        return usual

    def pack(self) -> dict[str, Any]:
        return {"rows": self.rows[:self.held], "feature": self.feature, "split": self.split, "count": self.count,
                "box": self.box, "learnt": np.array([self.learnt], np.int64), "state": self.state.view(np.int64)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        if found["feature"].shape != self.feature.shape or found["box"].shape != self.box.shape:
            raise ValueError("the forest's snapshot has another shape")
        self.learnt = int(found["learnt"][0])
        self.rows[:self.held] = found["rows"]
        self.feature, self.split, self.count = found["feature"], found["split"], found["count"]
        self.box, self.state = found["box"], found["state"].view(np.uint64)


def _boxes(trees: int, nodes: int, width: int) -> FloatArray:
    box = np.empty((trees, nodes, 2, width))
    box[:, :, f.LOW], box[:, :, f.HIGH] = np.inf, -np.inf
    return box
