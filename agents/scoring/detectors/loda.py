"""Many weak one-dimensional histograms."""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector

PROJECTIONS = 50


class Loda(SampleDetector):
    r"""Mean over 50 random projections of -log of the share of the sample in the same bin of the projection.

    A projection has sqrt(k) weights that are not 0, each standard normal.

    Source: Pevny: Loda: Lightweight on-line detector of anomalies, Machine Learning 102 (2016). Deviations: histograms
    of equal width over the sample, 4 + sqrt(m) / 2 bins, fitted anew at each block's end.
    Cost: O(50 k) a row. Units: none, robust units are projected. A missing value counts as the median.
    """

    name = "loda"
    weights: FloatArray
    edges: FloatArray
    surprise: FloatArray

    def fit(self, sample: Sample) -> None:
        width = sample.z.shape[1]
        rng = np.random.default_rng((self.seed % 2**64, width))
        self.weights = rng.standard_normal((PROJECTIONS, width))
        for row in self.weights:
            row[rng.permutation(width)[max(1, round(width ** 0.5)):]] = 0.0
        bins = 4 + int(np.sqrt(len(sample.z)) / 2)
        self.edges, self.surprise = s.histograms(s.projected(sample.z, self.weights), bins)

    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        out = np.empty(len(z))
        s.rarity(s.projected(z, self.weights), self.edges, self.surprise, out)
        return out / PROJECTIONS
