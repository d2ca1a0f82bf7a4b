"""Scores of any scale as p-values: conformal against the scores of the last rows, with a tail beyond them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.scoring.detectors import threshold_kernels as k
from agents.scoring.detectors.kernels import FloatArray

#: Scores that are compared with.
SIZE = 512
#: Scores before any is beyond the limit.
LEAST = 128


class Calibration:
    r"""p = (1 + #{s_i >= s}) / (n + 1) over the last n <= 512 scores, as they stood when `add` was last called.

    Guarantee: if the score s and the n before it are exchangeable (a calm stream, scored prequentially), then
    P(p <= a) <= a for every a, whatever the scores' distribution, for every a at least 1 / (n + 1). A score above all n
    would always have p = 1 / (n + 1); so that such scores still have an order, p goes on falling there as
    1 / (1 + (s - max) / mean excess in the upper 5%), a generalised Pareto tail of shape 1, without that guarantee.

    Source: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, ch. 4 (inductive conformal
    p-values); tail: Pickands, Annals of Statistics 3 (1975). Cost: O(log n) a score; 4 kB.
    """

    def __init__(self) -> None:
        self.ring: FloatArray = np.zeros(SIZE)
        self.count = 0
        self.sorted: FloatArray = np.zeros(0)
        self.tail = 1.0

    @property
    def ready(self) -> bool:
        return len(self.sorted) > 0

    @property
    def full(self) -> bool:
        return self.count >= SIZE

    @property
    def limit(self) -> float:
        """Where an exponential tail through the 90th and 98th percentile leaves 0.05%; infinite before 128 scores.

        A few strange scores among those compared with do not move it.
        """
        n = len(self.sorted)
        if n < LEAST:
            return np.inf
        low, high = float(self.sorted[int(0.90 * n)]), float(self.sorted[int(0.98 * n)])
        return high + (high - low) * math.log(0.02 / 0.0005) / math.log(0.10 / 0.02) + 1e-12

    def add(self, scores: FloatArray) -> None:
        """Take scores (n,) in."""
        for at in range(0, len(scores), SIZE):
            part = scores[at:at + SIZE]
            self.ring[(self.count + np.arange(len(part))) % SIZE] = part
            self.count += len(part)
        self._sort()

    def forget(self, first: int) -> None:
        """Leave out the first scores, of no more than `SIZE`."""
        rest = self.ring[first:self.count].copy()
        self.count = len(rest)
        self.ring[:self.count] = rest
        self._sort()

    def _sort(self) -> None:
        self.sorted = np.sort(self.ring[:min(self.count, SIZE)])
        n = len(self.sorted)
        if n:
            top = self.sorted[-max(1, n // 20):]
            excess = float(np.mean(top - self.sorted[max(0, n - 1 - len(top))]))
            self.tail = max(excess, 1e-3 * abs(float(self.sorted[-1])), 1e-12)

    def p_values(self, scores: FloatArray) -> FloatArray:
        """The p-values (n,) of scores (n,); 1 while there is nothing to compare with."""
        return np.asarray(np.exp(-self.surprise(scores)))

    def surprise(self, scores: FloatArray) -> FloatArray:
        """-log p (n,) of scores (n,)."""
        found = np.zeros(len(scores))
        if self.ready:
            k.surprise(scores, self.sorted, self.tail, found)
        return found

    def pack(self) -> dict[str, Any]:
        return {"ring": self.ring[:min(self.count, SIZE)], "ring_count": np.array([self.count], np.int64)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        ring, self.count = found["ring"], int(found["ring_count"][0])
        if len(ring) != min(self.count, SIZE):
            raise ValueError("the scores of the detector's snapshot are cut short")
        self.ring[:len(ring)] = ring
        self._sort()
