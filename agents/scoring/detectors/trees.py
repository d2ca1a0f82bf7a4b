"""Half-space trees as a member of an ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from agents.scoring.detectors import snapshot
from agents.scoring.detectors import tree_kernels as k
from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.detectors.kernels import FloatArray


class TreesMember(Detector):
    """`HalfSpaceTrees`, learning the rows of each block that teach."""

    name = "half_space_trees"

    def __init__(self, n_trees: int = 25, height: int = 8, window: int = 250, seed: int = 42,
                 optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.trees = HalfSpaceTrees(n_trees, height, window, seed, optional)

    @property
    def ready(self) -> bool:
        return self.trees.ready

    def parameters(self) -> dict[str, Any]:
        return {"trees": self.trees.n_trees, "height": self.trees.height, "window": self.trees.window}

    def score_rows(self, rows: FloatArray) -> FloatArray:
        out, trees = np.empty(len(rows)), self.trees
        k.score_rows(rows, trees.feature, trees.split, trees.reference, trees.paths, trees.guards, trees.height,
                     trees.window, out)
        return out

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        self.trees.score_learn_many(rows)

    def widen(self) -> None:
        self.trees.column(self.features[self.width - 1])

    def renew(self) -> None:
        old = self.trees
        self.trees = HalfSpaceTrees(old.n_trees, old.height, old.window, old.seed, old.optional)
        for name in self.features[:self.width]:
            self.trees.column(name)

    def typical(self) -> FloatArray:
        guards = self.trees.guards
        return np.where(guards[k.USABLE] != 0.0, guards[k.TYPICAL], np.nan)

    def pack(self) -> dict[str, Any]:
        return {"trees": np.frombuffer(snapshot.encode(self.trees), np.uint8)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        self.trees = snapshot.decode(found["trees"].tobytes())
