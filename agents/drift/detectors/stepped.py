"""Detectors whose whole state is a row of numbers, moved by a compiled kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agents.drift.detectors import kernels
from agents.drift.detectors.base import Domain, FloatArray, IntArray

Kernel = Callable[[FloatArray, FloatArray, FloatArray, IntArray], int]


class Stepped:
    """A kernel, its parameters and its state. Cost: O(1) a value (`kswin`: O(w log w)), 80 to 900 bytes."""

    def __init__(self, name: str, domain: Domain, kernel: Kernel, parameters: list[float], cells: int) -> None:
        self.name = name
        self.domain: Domain = domain
        self._kernel = kernel
        self._parameters = np.array(parameters, np.float64)
        self._state = np.zeros(cells, np.float64)

    @property
    def width(self) -> int:
        return int(self._state[kernels.WIDTH])

    def update(self, value: float) -> bool:
        return bool(self._kernel(self._state, self._parameters, np.array([value]), np.empty(1, np.int64)))

    def update_many(self, values: FloatArray) -> IntArray:
        alarms = np.empty(len(values), np.int64)
        found = self._kernel(self._state, self._parameters, np.ascontiguousarray(values, np.float64), alarms)
        return alarms[:found].copy()

    def encode(self) -> bytes:
        return self._state.astype("<f8").tobytes()

    def restore(self, data: bytes) -> None:
        if len(data) != 8 * len(self._state):
            raise ValueError(f"{self.name} has a state of {8 * len(self._state)} bytes, not {len(data)}")
        state = np.frombuffer(data, "<f8").astype(np.float64)
        if np.isnan(state).any():
            raise ValueError(f"the state of {self.name} is damaged")
        self._state = state


def page_hinkley(delta: float = 0.005, threshold: float = 50.0, alpha: float = 0.9999, least: int = 30) -> Stepped:
    r"""A mean that moves either way: m_t = sum of (x_i - mean_i -+ delta), fading; alarm at m_t - min(m) > threshold.

    Source: Page, Biometrika 41 (1954); as River's `PageHinkley`. Units: delta and threshold as the values.
    """
    return Stepped("page_hinkley", "values", kernels.page_hinkley, [least, delta, threshold, alpha], 10)


def ddm(deviations: float = 3.0, least: int = 30) -> Stepped:
    """A share of errors so many of its standard deviations above its lowest.

    Source: Gama et al., Learning with drift detection, SBIA 2004; as River's `DDM`.
    """
    return Stepped("ddm", "errors", kernels.ddm, [least, deviations], 8)


def eddm(beta: float = 0.9, least: int = 30) -> Stepped:
    """Distances between errors that have shrunk below beta of their longest (mean + 2 standard deviations).

    Source: Baena-Garcia et al., Early drift detection method, 2006; as River's `EDDM`.
    """
    return Stepped("eddm", "errors", kernels.eddm, [least, beta], 9)


def hddm_a(confidence: float = 0.001) -> Stepped:
    """The mean of all against that of the lowest prefix, by Hoeffding's bound.

    Source: Frías-Blanco et al., IEEE TKDE 27 (2015), the A-test, one-sided; as River's `HDDM_A`.
    """
    return Stepped("hddm_a", "shares", kernels.hddm_a, [confidence], 6)


def hddm_w(confidence: float = 0.001, weight: float = 0.05) -> Stepped:
    """The same with exponentially weighted means, by McDiarmid's bound: sudden changes sooner.

    Source: Frías-Blanco et al., IEEE TKDE 27 (2015), the W-test, one-sided; as River's `HDDM_W`. Deviation: a mean
    begins with its first value; River's takes a mean of exactly 0 for one that has not begun.
    """
    return Stepped("hddm_w", "shares", kernels.hddm_w, [confidence, weight], 12)


def fhddm(confidence: float = 1e-6, window: int = 100) -> Stepped:
    """Errors in a sliding window against the fewest that it ever had, by Hoeffding's bound.

    Source: Pesaranghader, Viktor: Fast Hoeffding drift detection, ECML 2016; River's `FHDDM` fed with 1 - x, as that
    one watches the share of right answers.
    """
    return Stepped("fhddm", "errors", kernels.fhddm, [confidence], 5 + window)


def kswin(alpha: float = 0.005, window: int = 100, recent: int = 30) -> Stepped:
    """Kolmogorov-Smirnov between the newest values of a window and the others.

    Source: Raab, Heusinger, Schleif, Neurocomputing 416 (2020). Deviations from River's `KSWIN`: all older values are
    compared, not a random draw of as many, so that nothing is left to chance; the bound is the asymptotic one.
    """
    return Stepped("kswin", "values", kernels.kswin, [alpha, recent], 3 + window)
