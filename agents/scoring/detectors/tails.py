"""How far out each value is, in its column's own distribution."""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector


class TailProbability(SampleDetector):
    r"""Sum over columns of -log min(F(x), 1 - F(x)), with F the sample's distribution of the column.

    Source: Li, Zhao, Hu, Botta, Ionescu, Chen: ECOD, TKDE 35 (2022). Deviation: the smaller tail of each column instead
    of the largest of three sums, of all left, all right and the skewed sides: a row may be low here and high there.
    Cost: O(k log m) a row. Units: none, and no scale matters. A missing value counts nothing.
    """

    name = "tail_probability"
    values: FloatArray
    counts_of: FloatArray

    def fit(self, sample: Sample) -> None:
        self.values, self.counts_of = s.columns_sorted(sample.rows)

    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        out = np.empty(len(rows))
        s.tails(rows, self.values, self.counts_of, out)
        return out
