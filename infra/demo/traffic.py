"""What callers send to one deployment: seeded requests, second by second, with the incident in force applied."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.demo.data import FloatArray
from infra.demo.incidents import (
    ERROR_SHARE,
    FLIPPED_REGION,
    NEW_VERSION_SHARE,
    SHIFT_SD,
    UNIT_FACTOR,
    Disturbance,
)
from infra.demo.models import Model

SLICE_MS = 1_000
JITTER_SD = 0.02
REGIONS = (FLIPPED_REGION, "south", "west")
_REGION_EDGES = np.array([0.5, 0.8])
LABELLED_SHARE = 0.8
LABEL_DELAY_MS = (2_000, 20_000)
#: Which version serves a request.
MAIN_ROUTE, CANARY_ROUTE, EXTRA_ROUTE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Requests:
    """n requests in order of arrival. x is (n, k) with NaN for null; the rest are (n,)."""

    number: NDArray[np.int64]
    ts_ms: NDArray[np.int64]
    x: FloatArray
    label: NDArray[Any]           # the truth, str or float64
    label_ts_ms: NDArray[np.int64]  # when the truth becomes known; -1: never
    region: NDArray[np.int64]     # index into REGIONS
    route: NDArray[np.int64]
    malformed: NDArray[np.int64]  # the column that arrives as text; -1: none
    slow: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ts_ms)

    def take(self, rows: NDArray[Any]) -> Requests:
        """The rows chosen by a mask or by indices."""
        return Requests(*(getattr(self, field.name)[rows] for field in fields(self)))


def concatenate(parts: list[Requests]) -> Requests:
    """Parts in order, as one."""
    return Requests(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Requests)))


class Traffic:
    """Requests of one deployment. The draws of a second do not depend on incidents, nor on how fast time runs."""

    def __init__(self, model: Model, requests_per_s: float, canary: float, seed: list[int], origin_ms: int) -> None:
        self.model = model
        self.requests_per_s = requests_per_s
        self.canary = canary
        self.origin_ms = origin_ms
        self.planned_ms = origin_ms
        self._rng = np.random.default_rng(seed)
        self._number = 0
        self._sd = np.where(model.table.continuous, model.x.std(axis=0), 0.0)
        self._spread = model.x.std(axis=0)

    def next_slice(self, disturbances: list[Disturbance]) -> Requests:
        """The requests of the next second."""
        rng, model, start = self._rng, self.model, self.planned_ms
        self.planned_ms += SLICE_MS
        n = int(rng.poisson(self.requests_per_s * SLICE_MS / 1000))
        ts = np.sort(rng.integers(start, start + SLICE_MS, n))
        rows = rng.integers(0, len(model.x), n)
        noise = rng.standard_normal((n, model.x.shape[1])) * self._sd * JITTER_SD
        draws = rng.random((n, 4))
        delay = rng.integers(*LABEL_DELAY_MS, n)
        number = np.arange(self._number, self._number + n)
        self._number += n
        requests = Requests(
            number=number, ts_ms=ts, x=model.x[rows] + noise, label=model.y[rows].copy(),
            label_ts_ms=np.where(draws[:, 1] < LABELLED_SHARE, ts + delay, -1),
            region=np.searchsorted(_REGION_EDGES, draws[:, 0], side="right"),
            route=np.where(draws[:, 2] < self.canary, CANARY_ROUTE, MAIN_ROUTE),
            malformed=np.full(n, -1), slow=np.zeros(n, np.bool_))
        for disturbance in disturbances:
            self._disturb(requests, disturbance, rows, noise, draws[:, 3])
        return requests

    def _disturb(self, requests: Requests, disturbance: Disturbance, rows: NDArray[Any], noise: FloatArray,
                 draw: FloatArray) -> None:
        incident = disturbance.incident
        hit = (requests.ts_ms >= incident.start_ms) & (requests.ts_ms < incident.end_ms)
        x, kind = requests.x, incident.kind
        if kind == "error_burst":
            requests.malformed[hit & (draw < ERROR_SHARE)] = disturbance.column
        elif kind == "unit_change":
            x[hit, disturbance.column] *= UNIT_FACTOR
        elif kind == "null_column":
            x[hit, disturbance.column] = np.nan
        elif kind == "covariate_shift":
            assert disturbance.biased is not None
            x[hit] = disturbance.biased[rows[hit] % len(disturbance.biased)] + noise[hit]
            columns = np.array(disturbance.shifted)
            x[np.ix_(hit, columns)] += SHIFT_SD * self._spread[columns]
        elif kind == "concept_shift":
            flipped = hit & (requests.region == REGIONS.index(FLIPPED_REGION))
            requests.label[flipped] = self._other_truth(requests.label[flipped])
        elif kind == "latency_regression":
            requests.slow[:] |= hit
        else:
            requests.route[hit & (draw < NEW_VERSION_SHARE)] = EXTRA_ROUTE

    def _other_truth(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The next class; or a value two standard deviations higher."""
        if not self.model.table.classes:
            return np.asarray(labels + SHIFT_SD * self.model.y.std())
        classes = np.unique(self.model.y)
        return np.asarray(classes[(np.searchsorted(classes, labels) + 1) % len(classes)])
