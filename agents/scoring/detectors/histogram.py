"""How rare each value is, gaps in the middle of a distribution included."""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector


class HistogramRarity(SampleDetector):
    r"""Sum over columns of -log of the share of the sample's values in the same bin of an equal-width histogram.

    Source: Goldstein, Dengel: Histogram-based Outlier Score (HBOS), KI 2012. Deviations: 4 + sqrt(m) / 2 bins over the
    signed logarithm log(1 + |z|) of robust units, so that a heavy tail does not put everything into one bin; a tenth
    of a row in every bin, for what was never seen. Cost: O(k) a row. Units: none. A missing value counts as the median.
    """

    name = "histogram_rarity"
    edges: FloatArray
    surprise: FloatArray

    def fit(self, sample: Sample) -> None:
        bins = 4 + int(np.sqrt(len(sample.z)) / 2)
        self.edges, self.surprise = s.histograms(_log(sample.z), bins)

    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        out = np.empty(len(z))
        s.rarity(_log(z), self.edges, self.surprise, out)
        return out


def _log(z: FloatArray) -> FloatArray:
    return np.asarray(np.sign(z) * np.log1p(np.abs(z)))
