r"""A rise of a share, by a bank of likelihood ratios, one for each size of rise.

For a rise by d the cumulated log likelihood ratio of an outcome x (0 or 1) is

    G_d = max(0, G_d + x log(p1 / p0) + (1 - x) log((1 - p1) / (1 - p0))),   p1 = p0 + d

and the bank alarms when a G_d exceeds h_d = log(1 + K_d * J / r). p0 is the share so far, `MARGIN` of its standard
errors higher, so that a reference of few values alarms later and not falsely. K_d is the divergence of p1 from p0, J
the number of sizes and r the false alarms allowed a value: the mean time to a false alarm of a CUSUM is about
(e^h - h - 1) / K (Siegmund), so each size takes an equal part of the allowance, and small rises, whose evidence comes
slowly, need less of it than large ones.

Sources: Page, Biometrika 41 (1954); Lorden, Ann. Math. Stat. 42 (1971); Siegmund, Sequential Analysis, 1985. Deviation:
p0 is learnt all along, as a change is found long before it has moved the mean of all.
Cost: 12 logarithms a value. Units: r in false alarms a value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from agents.drift.detectors.base import Domain, FloatArray, IntArray
from streams.compiled import compiled

STEPS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
MARGIN = 1.0
LEAST_VALUES = 50
#: Highest share that a rise is taken to lead to.
MOST = 0.98
_HEAD, _CELLS = 6, 4
_ALARM, _N, _ONES, _FOUND_N, _FOUND_ONES, _FOUND_AT = range(_HEAD)


class Rise(NamedTuple):
    """What an alarm rests on: the share in `reference_n` values before, and in n since the one that came `at`.

    `unsure`: values by which that moment may be off (3 divided by the divergence of the two shares).
    """

    before: float
    after: float
    reference_n: int
    n: int
    at: int
    unsure: int


class Likelihood:
    """The bank. Values that come while a rise lasts may be kept from it; it then goes on with the old reference."""

    name = "likelihood"
    domain: Domain = "errors"

    def __init__(self, rate: float = 1e-6) -> None:
        self.rate = rate
        self._state = np.zeros(_HEAD + _CELLS * len(STEPS))

    @property
    def width(self) -> int:
        return int(self._state[_FOUND_N])

    @property
    def n(self) -> int:
        """Values that the reference rests on."""
        return int(self._state[_N])

    def update(self, value: float) -> bool:
        return self.update_at(value, self.n)

    def update_at(self, value: float, at: int) -> bool:
        """Take in a value that came at a moment (any ascending integer below 2^53)."""
        found = np.empty(1, np.int64)
        return bool(_run(self._state, self.rate, np.array([value]), np.array([at], np.float64), found))

    def update_many(self, values: FloatArray) -> IntArray:
        alarms = np.empty(len(values), np.int64)
        values = np.ascontiguousarray(values, np.float64)
        found = _run(self._state, self.rate, values, np.arange(len(values), dtype=np.float64), alarms)
        return alarms[:found].copy()

    def rise(self) -> Rise:
        """What the last alarm rests on."""
        n, ones = self._state[_FOUND_N], self._state[_FOUND_ONES]
        known = max(1.0, self._state[_N] - n)
        before, after = float(max(0.0, self._state[_ONES] - ones) / known), float(ones / max(1.0, n))
        return Rise(before, after, int(known), int(n), int(self._state[_FOUND_AT]), _unsure(before, after))

    def calm(self) -> None:
        """Forget the evidence and what it rests on; keep the reference of before."""
        if self._state[_ALARM]:
            self._state[_N] -= self._state[_FOUND_N]
            self._state[_ONES] -= self._state[_FOUND_ONES]
            self._state[_ALARM] = 0.0
        self._state[_HEAD:] = 0.0

    def encode(self) -> bytes:
        return self._state.astype("<f8").tobytes()

    def restore(self, data: bytes) -> None:
        if len(data) != 8 * len(self._state):
            raise ValueError(f"likelihood has a state of {8 * len(self._state)} bytes, not {len(data)}")
        state = np.frombuffer(data, "<f8").astype(np.float64)
        if not np.isfinite(state).all():
            raise ValueError("the state of likelihood is damaged")
        self._state = state


def _unsure(before: float, after: float) -> int:
    p, q = (min(0.99, max(0.01, share)) for share in (before, after))
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    return math.ceil(3.0 / max(1e-3, divergence))


@compiled
def _run(state: FloatArray, rate: float, values: FloatArray, times: FloatArray, alarms: IntArray) -> int:
    """Indices of alarms into `alarms`; how many. A size's cells: G; n, ones and first time of values since G was 0."""
    found = 0
    for i in range(len(values)):
        if state[_ALARM]:
            state[:] = 0.0
        n, x = state[_N], values[i]
        if n >= LEAST_VALUES:
            share = (state[_ONES] + 0.5) / (n + 1.0)
            p0 = min(0.999, share + MARGIN * math.sqrt(share * (1.0 - share) / n))
            best = 0.0
            for j in range(len(STEPS)):
                p1 = min(p0 + STEPS[j], max(MOST, (1.0 + p0) / 2.0))
                if p1 - p0 < STEPS[0] / 2:
                    continue
                one, zero = math.log(p1 / p0), math.log((1.0 - p1) / (1.0 - p0))
                cell = _HEAD + _CELLS * j
                if state[cell] <= 0.0:
                    state[cell + 1], state[cell + 2], state[cell + 3] = 0.0, 0.0, times[i]
                state[cell] = max(0.0, state[cell] + x * one + (1.0 - x) * zero)
                state[cell + 1] += 1.0
                state[cell + 2] += x
                over = state[cell] - math.log1p((p1 * one + (1.0 - p1) * zero) * len(STEPS) / rate)
                if over > best:
                    best = over
                    state[_FOUND_N], state[_FOUND_ONES], state[_FOUND_AT] = (
                        state[cell + 1], state[cell + 2], state[cell + 3])
            if best > 0.0:
                state[_ALARM] = 1.0
                alarms[found] = i
                found += 1
        state[_N] += 1.0
        state[_ONES] += x
    return found
