"""Windows of made-up models, as the aggregation agent closes them, and an engine to give them to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.drift.engine import DriftEngine, DriftOptions
from agents.drift.performance import PerformanceEngine
from schemas.drift import DriftEvent
from schemas.telemetry import Feedback
from schemas.windows import window_id
from streams.windows.record import SummaryRecord, WindowRecord, buckets
from streams.state.keyed import KeyedStates
from streams.windows.sketch import BIAS, LOG_GAMMA

FloatArray = NDArray[np.float64]
ORIGIN_MS = 1_780_000_000_000


def summary(values: Sequence[float] | FloatArray, sketched: bool = True) -> SummaryRecord:
    """A field's summary; NaN is a null."""
    given = np.asarray(values, float)
    present = given[~np.isnan(given)]
    missing = len(given) - len(present)
    if not len(present):
        return SummaryRecord(schema_version=1, count=0, missing=missing, sum=0.0, min=None, max=None,
                                       mean=None, m2=0.0)
    codes, counts = np.unique(_codes(present), return_counts=True)
    return SummaryRecord(
        schema_version=1, count=len(present), missing=missing, sum=float(present.sum()), min=float(present.min()),
        max=float(present.max()), mean=float(present.mean()), m2=float(present.var() * len(present)),
        buckets=buckets(list(zip(codes.tolist(), counts.tolist(), strict=True)) if sketched else []))


def _codes(values: FloatArray) -> NDArray[np.int64]:
    """The buckets of `streams.windows.sketch.bucket`, for all values at once."""
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        index = np.ceil(np.log(size) / LOG_GAMMA) + BIAS
    return np.where(size > 0, np.sign(values) * np.where(size > 0, index, 0), 0).astype(np.int64)


def window(second: int, fields: dict[str, SummaryRecord], count: int, errors: int = 0, version: str = "1",
           size_ms: int = 1_000, model: str = "m", component: str = "model",
           start_ms: int | None = None) -> WindowRecord:
    """A closed window that starts `second` seconds after the origin."""
    start = ORIGIN_MS + second * 1_000 if start_ms is None else start_ms
    return WindowRecord(
        schema_version=1, environment="prod", model=model, version=version, component=component,
        window_id=window_id("prod", model, version, component, size_ms, start, 0), start_ms=start, size_ms=size_ms,
        partition=0, count=count, errors=errors, revision=0, closed_ms=start + size_ms + 1_000, fields=fields)


def classes(name: str, values: Iterable[str]) -> dict[str, SummaryRecord]:
    """The fields of a categorical value."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return {f"{name}={value}": SummaryRecord(schema_version=1, count=n, missing=0, sum=float(n), min=1.0,
                                                       max=1.0, mean=1.0, m2=0.0)
            for value, n in found.items()}


class Serving:
    """A model's traffic: 15 events a second with four features, classes, confidence, latency and errors.

    `disturb(second, values)` may change the drawn values (name -> array of 15) of that second.
    """

    def __init__(self, seed: int = 1, events: int = 15, error_rate: float = 0.01, yes: float = 0.3) -> None:
        self.rng = np.random.default_rng(seed)
        self.events, self.error_rate, self.yes = events, error_rate, yes

    def draw(self) -> dict[str, Any]:
        rng, n = self.rng, self.events
        return {"feature.age": rng.normal(40, 10, n), "feature.balance": rng.lognormal(6, 2, n),
                "feature.flag": (rng.random(n) < 0.2).astype(float), "feature.level": rng.normal(1000, 1, n),
                "prediction": np.where(rng.random(n) < self.yes, "yes", "no"),
                "confidence": rng.beta(8, 2, n), "latency_ms": rng.lognormal(2, 0.5, n),
                "errors": rng.random(n) < self.error_rate}

    def windows(self, seconds: int, disturb: Callable[[int, dict[str, Any]], None] = lambda second, values: None,
                first: int = 0, version: str = "1") -> list[WindowRecord]:
        found = []
        for second in range(first, first + seconds):
            values = self.draw()
            disturb(second, values)
            fields = classes("prediction", values["prediction"].tolist())
            fields |= {name: summary(drawn) for name, drawn in values.items() if name not in ("prediction", "errors")}
            found.append(window(second, fields, self.events, int(values["errors"].sum()), version))
        return found


class World:
    """An engine with the states of one partition; offsets count up."""

    def __init__(self, engine: DriftEngine | PerformanceEngine | None = None) -> None:
        self.engine: Any = engine or DriftEngine(DriftOptions())
        self.states: KeyedStates[Any] = KeyedStates("drift", 0, self.engine.codec, {})
        self.offset = 0

    def give(self, messages: Iterable[WindowRecord | Feedback]) -> list[DriftEvent]:
        """Messages at the next offsets, as one batch."""
        batch = [(self.offset + i, message) for i, message in enumerate(messages)]
        self.offset += len(batch)
        return list(self.engine.run(batch, self.states, "metrics", 0))

    def restart(self) -> None:
        """Write a snapshot, and begin again from it."""
        self.states.written(self.states.freeze(1))
        self.states = KeyedStates("drift", 0, self.engine.codec, dict(self.states.snapshots))


def moved(events: Iterable[DriftEvent]) -> set[tuple[str, str]]:
    """(field, statistic) of the drifts that began."""
    return {(event.field, event.statistic) for event in events if event.state == "drifted"}
