"""Several detectors as one: each score a p-value, the p-values one score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from agents.scoring.detectors import arrays
from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.calibration import Calibration
from agents.scoring.detectors.kernels import FloatArray
from agents.scoring.detectors.sample import Sample, SampleDetector

#: -log p that a score keeps at most: 2**-39 is the least 1 - score.
MOST_SURPRISE = 27.0


class Ensemble(Detector):
    r"""score = 1 - exp(-T), T = sum of w_i (-log p_i) + news; in [0, 1), higher is more anomalous.

    p_i is the conformal p-value of member i's score (`Calibration`), w_i its weight (equal, unless labels came:
    `weights`). News is what no p-value against a sample can say, summed over columns: a value e ranges outside
    of all the sample adds log(1 + e), a missing one -log min(1, (share missing so far + 1e-6) / 0.1).
    Rows that are strange to the ensemble teach no member. Members that are functions of a sample share one.

    Source: Fisher's combination of p-values (Statistical Methods for Research Workers, 1925), as a mean: members are
    not independent, so T is a score to be calibrated, not a log p-value. Cost: that of the members, some 9 us a row.
    Invariants: scoring never mutates; same seed and stream, same scores, however the stream is cut into batches.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Detector], seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.members = list(members)
        self.extras = len(self.members)
        self.weights: FloatArray = np.full(self.extras, 1.0 / self.extras)
        self.calibrations = [Calibration() for _ in self.members]
        self.sample = Sample(seed)
        self._optional: FloatArray = np.zeros(0)

    @property
    def ready(self) -> bool:
        return self.sample.ready

    def parameters(self) -> dict[str, Any]:
        return {"members": [[member.name, member.parameters()] for member in self.members]}

    def judge_rows(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        raw = np.empty((len(rows), self.extras))
        z = self.sample.scaled(rows)
        total = np.zeros(len(rows))
        for i, member in enumerate(self.members):
            if not member.ready:
                raw[:, i] = np.nan
                continue
            raw[:, i] = member.score_scaled(rows, z) if isinstance(member, SampleDetector) else member.score_rows(rows)
            total += self.weights[i] * self.calibrations[i].surprise(np.ascontiguousarray(raw[:, i]))
        s.add_news(rows, self.sample.scales, self._optional, total)
        return 1.0 - np.exp(-np.minimum(total, MOST_SURPRISE)), raw

    def level(self, scores: FloatArray) -> FloatArray:
        return np.asarray(-np.log1p(-scores))

    def surprises(self, scores: FloatArray, extras: FloatArray) -> FloatArray:
        found = [calibration.surprise(np.ascontiguousarray(np.nan_to_num(extras[:, i])))
                 for i, calibration in enumerate(self.calibrations)]
        return np.column_stack((*found, self.level(scores)))

    def score_rows(self, rows: FloatArray) -> FloatArray:
        return self.judge_rows(rows)[0]

    def explain_roughly(self, rows: FloatArray) -> FloatArray:
        out = np.abs(self.sample.scaled(rows)) / 100.0
        s.news_of(rows, self.sample.scales, self._optional, out)
        return out

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        self.sample.add(rows)
        for i, member in enumerate(self.members):
            known = extras[:, i][~np.isnan(extras[:, i])]
            if len(known):
                self.calibrations[i].add(known)
            if not isinstance(member, SampleDetector):
                member.learn_rows(rows, np.zeros((len(rows), 0)))
        self._fit()

    def settle(self, first: int) -> None:
        super().settle(first)
        for calibration in self.calibrations:
            calibration.forget(min(first, calibration.count))

    def _fit(self) -> None:
        for member in self.members:
            if isinstance(member, SampleDetector):
                member.fitted = self.sample.ready
                if member.fitted:
                    member.fit(self.sample)

    def widen(self) -> None:
        self.sample.widen(self.width)
        newest = self.features[self.width - 1]
        self._optional = np.append(self._optional, float(newest in self.optional))
        for member in self.members:
            if not isinstance(member, SampleDetector):
                member.column(newest)
                member.grow()
        self._fit()

    def renew(self) -> None:
        self.sample = Sample(self.seed)
        self.sample.widen(self.width)
        self.calibrations = [Calibration() for _ in self.members]
        for member in self.members:
            member.renew()

    def typical(self) -> FloatArray:
        return np.asarray(self.sample.scales[s.TYPICAL])

    def pack(self) -> dict[str, Any]:
        found: dict[str, Any] = {"weights": self.weights, **self.sample.pack()}
        for i, (member, calibration) in enumerate(zip(self.members, self.calibrations, strict=True)):
            found |= arrays.prefixed(f"{i}.", calibration.pack())
            if not isinstance(member, SampleDetector):
                found |= arrays.prefixed(f"{i}.own.", member.pack())
        return found

    def unpack(self, found: Mapping[str, Any]) -> None:
        self.weights = found["weights"]
        self.sample.unpack(found)
        for i, (member, calibration) in enumerate(zip(self.members, self.calibrations, strict=True)):
            calibration.unpack(arrays.under(f"{i}.", found))
            if not isinstance(member, SampleDetector):
                member.unpack(arrays.under(f"{i}.own.", found))
        self._fit()
