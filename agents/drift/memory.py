"""ADWIN over a statistic's standardised points, in a form that a snapshot can hold.

Source: Bifet, Gavalda: Learning from time-changing data with adaptive windowing, SDM 2007; River's `ADWIN`, clock 1.
Its bound assumes values in [0, 1]: a point's z is clipped at +-4 and mapped there, in 256 steps (0.03 of a standard
error each). Deviation: at `MOST_POINTS` the older half is forgotten.

A snapshot holds the steps, and the detector is made again by feeding them: 0.4 us a point, at most 0.2 ms. Its own
pickle is as large (1.1 to 1.6 KB), ties the changelog to one version of River, and would have to be kept from naming
other classes; the steps are bytes that can do no harm.
"""

from __future__ import annotations

from river.drift import ADWIN

Z_MOST = 4.0
MOST_POINTS = 512


class Memory:
    """An ADWIN with its past. `since_ms` is the start of the oldest point that it holds."""

    def __init__(self, delta: float, codes: bytes = b"", since_ms: int = 0) -> None:
        self.delta = delta
        self.codes = bytearray(codes)
        self.since_ms = since_ms
        self._adwin = _replay(delta, self.codes)

    def add(self, z: float, start_ms: int) -> bool:
        """Take in a point; True if the mean of the latest points differs from that of those before."""
        if not self.codes:
            self.since_ms = start_ms
        elif len(self.codes) >= MOST_POINTS:
            kept = MOST_POINTS // 2
            self.since_ms += int((start_ms - self.since_ms) * (1 - kept / len(self.codes)))
            self.codes = self.codes[-kept:]
            self._adwin = _replay(self.delta, self.codes)
        self.codes.append(round((max(-Z_MOST, min(Z_MOST, z)) + Z_MOST) * (255 / (2 * Z_MOST))))
        self._adwin.update(self.codes[-1] / 255)
        return bool(self._adwin.drift_detected)

    def onset_ms(self, now_ms: int) -> int:
        """When the part that ADWIN kept began, points taken as evenly spaced."""
        if not self.codes:
            return now_ms
        age = min(1.0, self._adwin.width / len(self.codes))
        return now_ms - int((now_ms - self.since_ms) * age)

    def clear(self) -> None:
        """Forget everything."""
        self.codes.clear()
        self._adwin = _replay(self.delta, b"")


def _replay(delta: float, codes: bytes | bytearray) -> ADWIN:
    adwin = ADWIN(delta=delta, clock=1)
    for code in codes:
        adwin.update(code / 255)
    return adwin
