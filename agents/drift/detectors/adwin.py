"""River's ADWIN in a form that a snapshot can hold.

Source: Bifet, Gavalda: Learning from time-changing data with adaptive windowing, SDM 2007; River's `ADWIN`. Values lie
in [0, 1], in 256 steps. Deviation: at `most` steps the oldest third is forgotten.

A snapshot holds the steps, and the detector is made again by feeding them: 0.4 us each, at most 0.15 ms. Its own pickle
is larger (1.1 to 1.6 KB), ties the changelog to one version of River, and would have to be kept from naming other
classes; the steps are bytes that can do no harm.
"""

from __future__ import annotations

import numpy as np
from river._river_rust.drift import AdaptiveWindowing  # `river.drift` has data sets, too: 80 MB, most of a second

from agents.drift.detectors.base import Domain, FloatArray, IntArray


class Adwin:
    """An ADWIN with its past. `most` steps at the most are kept, down to two thirds of them."""

    name = "adwin"
    domain: Domain = "shares"

    def __init__(self, delta: float = 0.002, steps: bytes = b"", clock: int = 32, most: int = 3 * 1_024) -> None:
        self.delta, self.clock, self.most = delta, clock, most
        self.steps = bytearray(steps)
        self._made: AdaptiveWindowing | None = None
        self._drifted = False       # by the last step

    @property
    def width(self) -> int:
        self._catch_up()
        return 0 if self._made is None else min(len(self.steps), int(self._made.get_width()))

    def update(self, value: float) -> bool:
        if len(self.steps) >= self.most:
            self.steps, self._made = self.steps[-(self.most * 2 // 3):], None
        self._catch_up()
        self.steps.append(round(min(1.0, max(0.0, value)) * 255))
        self._take(self.steps[-1])
        return self._drifted

    def _catch_up(self) -> None:
        """Take in the steps that there are, when it is first needed: many statistics never get out of their warm-up."""
        if self._made is None:
            for step in self.steps:
                self._take(step)

    def _take(self, step: int) -> None:
        """With River's parameters; as there, what comes after a change begins anew."""
        if self._made is None or self._drifted:
            self._made = AdaptiveWindowing(delta=self.delta, clock=self.clock, max_buckets=5, min_window_length=5,
                                           grace_period=10)
        self._drifted = bool(self._made.update(step / 255))

    def update_many(self, values: FloatArray) -> IntArray:
        return np.array([at for at, value in enumerate(values.tolist()) if self.update(value)], np.int64)

    def encode(self) -> bytes:
        return bytes(self.steps)

    def restore(self, data: bytes) -> None:
        if len(data) > self.most:
            raise ValueError(f"adwin has at most {self.most} steps, not {len(data)}")
        self.steps, self._made = bytearray(data), None
