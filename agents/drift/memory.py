"""ADWIN over a statistic's standardised points, in a form that a snapshot can hold.

Source: Bifet, Gavalda: Learning from time-changing data with adaptive windowing, SDM 2007; River's `ADWIN`, clock 1.
Its bound assumes values in [0, 1]: the z of four points together is clipped at +-2.5 and mapped there, in 256 steps
(0.02 of a standard error each). Single points would do for large changes, but those are the cusum's. Deviation: at
`MOST_STEPS` the oldest third is forgotten.

A snapshot holds the steps, and the detector is made again by feeding them: 0.4 us each, at most 0.15 ms. Its own pickle
is larger (1.1 to 1.6 KB), ties the changelog to one version of River, and would have to be kept from naming other
classes; the steps are bytes that can do no harm.
"""

from __future__ import annotations

import math

import msgspec
from river.drift import ADWIN

Z_MOST = 2.5
POOLED = 4
MOST_STEPS, KEPT_STEPS = 384, 256


class Past(msgspec.Struct, array_like=True):
    """What a snapshot holds. `since_ms`: start of the oldest point. `n` points wait, and `z` is their sum."""

    steps: bytes = b""
    since_ms: int = 0
    n: int = 0
    z: float = 0.0


class Memory:
    """An ADWIN with its past."""

    def __init__(self, delta: float, past: Past) -> None:
        self.delta = delta
        self.steps = bytearray(past.steps)
        self.since_ms, self.n, self.z = past.since_ms, past.n, past.z
        self._adwin = _replay(delta, self.steps)

    def past(self) -> Past:
        """For a snapshot."""
        return Past(bytes(self.steps), self.since_ms, self.n, self.z)

    def add(self, z: float, start_ms: int) -> bool:
        """Take in a point; True if the mean of the latest points differs from that of those before."""
        if not self.steps and not self.n:
            self.since_ms = start_ms
        self.n += 1
        self.z += z
        if self.n < POOLED:
            return False
        if len(self.steps) >= MOST_STEPS:
            self.since_ms += int((start_ms - self.since_ms) * (1 - KEPT_STEPS / len(self.steps)))
            self.steps = self.steps[-KEPT_STEPS:]
            self._adwin = _replay(self.delta, self.steps)
        pooled = max(-Z_MOST, min(Z_MOST, self.z / math.sqrt(self.n)))
        self.steps.append(round((pooled + Z_MOST) * (255 / (2 * Z_MOST))))
        self.n, self.z = 0, 0.0
        self._adwin.update(self.steps[-1] / 255)
        return bool(self._adwin.drift_detected)

    def onset_ms(self, now_ms: int) -> int:
        """When the part that ADWIN kept began, points taken as evenly spaced."""
        if not self.steps:
            return now_ms
        return now_ms - int((now_ms - self.since_ms) * min(1.0, self._adwin.width / len(self.steps)))


def _replay(delta: float, steps: bytes | bytearray) -> ADWIN:
    adwin = ADWIN(delta=delta, clock=1)
    for step in steps:
        adwin.update(step / 255)
    return adwin
