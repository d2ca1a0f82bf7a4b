"""ADWIN over a statistic's standardised points.

Its bound assumes values in [0, 1]: the z of four points together is clipped at +-2.5 and mapped there, in 256 steps
(0.02 of a standard error each). Single points would do for large changes, but those are the cusum's.
"""

from __future__ import annotations

import math

import msgspec

from agents.drift.detectors.adwin import Adwin

Z_MOST = 2.5
POOLED = 4
MOST_STEPS, KEPT_STEPS = 384, 256


class Past(msgspec.Struct, array_like=True):
    """What a snapshot holds. `since_ms`: start of the oldest point. `n` points wait, and `z` is their sum."""

    steps: bytes = b""
    since_ms: int = 0
    n: int = 0
    z: float = 0.0


_NOTHING = Past()


class Memory:
    """An ADWIN with its past."""

    def __init__(self, delta: float, past: Past) -> None:
        self.since_ms, self.n, self.z = past.since_ms, past.n, past.z
        self._delta, self._steps = delta, past.steps
        self._made: Adwin | None = None

    @property
    def _adwin(self) -> Adwin:
        """Made when it is first needed: of many models most are in a warm-up."""
        if self._made is None:
            self._made = Adwin(self._delta, self._steps, clock=1, most=MOST_STEPS)
        return self._made

    def past(self) -> Past:
        """For a snapshot."""
        steps = self._steps if self._made is None else self._made.encode()
        return Past(steps, self.since_ms, self.n, self.z) if self.n or steps else _NOTHING

    def add(self, z: float, start_ms: int) -> bool:
        """Take in a point; True if the mean of the latest points differs from that of those before."""
        steps = len(self._adwin.steps)
        if not steps and not self.n:
            self.since_ms = start_ms
        self.n += 1
        self.z += z
        if self.n < POOLED:
            return False
        if steps >= MOST_STEPS:
            self.since_ms += int((start_ms - self.since_ms) * (1 - KEPT_STEPS / steps))
        pooled = max(-Z_MOST, min(Z_MOST, self.z / math.sqrt(self.n)))
        self.n, self.z = 0, 0.0
        return self._adwin.update((pooled + Z_MOST) / (2 * Z_MOST))

    def onset_ms(self, now_ms: int) -> int:
        """When the part that ADWIN kept began, points taken as evenly spaced."""
        steps = len(self._adwin.steps)
        if not steps:
            return now_ms
        return now_ms - int((now_ms - self.since_ms) * min(1.0, self._adwin.width / steps))
