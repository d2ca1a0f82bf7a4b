"""River's ADWIN in a form that a snapshot can hold.

Source: Bifet, Gavalda: Learning from time-changing data with adaptive windowing, SDM 2007; River's `ADWIN`. Values lie
in [0, 1], in 256 steps. Deviation: at `most` steps the oldest third is forgotten.

A snapshot holds the steps, and the detector is made again by feeding them: 0.4 us each, at most 0.15 ms. Its own pickle
is larger (1.1 to 1.6 KB), ties the changelog to one version of River, and would have to be kept from naming other
classes; the steps are bytes that can do no harm.
"""

from __future__ import annotations

import numpy as np
from river.drift import ADWIN

from agents.drift.detectors.base import Domain, FloatArray, IntArray


class Adwin:
    """An ADWIN with its past. `most` steps at the most are kept, down to two thirds of them."""

    name = "adwin"
    domain: Domain = "shares"

    def __init__(self, delta: float = 0.002, steps: bytes = b"", clock: int = 32, most: int = 3 * 1_024) -> None:
        self.delta, self.clock, self.most = delta, clock, most
        self.steps = bytearray(steps)
        self._made: ADWIN | None = None

    @property
    def width(self) -> int:
        return min(len(self.steps), int(self._adwin.width))

    @property
    def _adwin(self) -> ADWIN:
        """Made when it is first needed: many statistics never get out of their warm-up."""
        if self._made is None:
            self._made = ADWIN(delta=self.delta, clock=self.clock)
            for step in self.steps:
                self._made.update(step / 255)
        return self._made

    def update(self, value: float) -> bool:
        if len(self.steps) >= self.most:
            self.steps, self._made = self.steps[-(self.most * 2 // 3):], None
        adwin = self._adwin
        self.steps.append(round(min(1.0, max(0.0, value)) * 255))
        adwin.update(self.steps[-1] / 255)
        return bool(adwin.drift_detected)

    def update_many(self, values: FloatArray) -> IntArray:
        return np.array([at for at, value in enumerate(values.tolist()) if self.update(value)], np.int64)

    def encode(self) -> bytes:
        return bytes(self.steps)

    def restore(self, data: bytes) -> None:
        if len(data) > self.most:
            raise ValueError(f"adwin has at most {self.most} steps, not {len(data)}")
        self.steps, self._made = bytearray(data), None
