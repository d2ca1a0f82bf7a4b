"""How far the next rows are."""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector

#: Rows of the sample that are compared with, and the share of them that a neighbourhood is.
COMPARED, SHARE = 256, 1 / 16


class NearestNeighbours(SampleDetector):
    """The distance, in robust units, to the 16th nearest of 256 rows of the sample.

    Source: Ramaswamy, Rastogi, Shim: Efficient Algorithms for Mining Outliers from Large Data Sets, SIGMOD 2000; that a
    small sample does as well: Sugiyama, Borgwardt, NIPS 2013. Deviation: the neighbourhood is a share of the sample, so
    that a few anomalies in it, alike among themselves, do not make each other usual.
    Cost: O(256 k) a row. Units: none. A missing value counts as the median.
    """

    name = "nearest_neighbours"
    others: FloatArray

    def fit(self, sample: Sample) -> None:
        self.others = np.ascontiguousarray(sample.z[:COMPARED])

    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        out = np.empty(len(z))
        s.neighbour_distance(z, self.others, max(1, int(SHARE * len(self.others))), out)
        return out
