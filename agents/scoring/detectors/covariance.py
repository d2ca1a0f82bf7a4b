"""Distance from the centre, in the data's own shape."""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector


class RobustCovariance(SampleDetector):
    r"""Mahalanobis distance sqrt((z - m)' C^-1 (z - m)) of a row in robust units, with m and C of the inner 80%.

    m and C are the mean and covariance of the sample's 80% of rows nearest to the mean by that same distance, in four
    concentration steps from all rows; 5% of the mean variance is added to each variance, so that C has an inverse.

    Source: Rousseeuw, Van Driessen: A Fast Algorithm for the Minimum Covariance Determinant Estimator, Technometrics 41
    (1999). Deviations: one start (all rows) instead of 500; the ridge; values beyond ten scales by their logarithm.
    Cost: O(k^2) a row, O(k^2) times the sample a block. Units: none. A missing value counts as the median.
    """

    name = "robust_covariance"
    mean: FloatArray
    factor: FloatArray

    def fit(self, sample: Sample) -> None:
        self.mean, self.factor = s.concentrate(sample.z)

    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        out = np.empty(len(z))
        s.mahalanobis(z, self.mean, self.factor, out)
        return out
