"""False alarms on stationary series, against the budget that `agents.drift.budget` states.

Series of ten kinds, ten to a model, each with a point of twenty events every thirty seconds: skewed, heavy-tailed,
rare, discrete, and one whose level wanders as real ones do. Nothing ever happens to them, so every drift is false. The
upper bound is exact for a Poisson count (Garwood, Biometrika 28, 1936).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import gammaincinv

from agents.drift.budget import DAY_MS, height
from agents.drift.detectors.likelihood import Likelihood
from agents.drift.options import LABELS, NAMED, NULLS, NUMERIC, SHARE, DriftOptions, Effect
from agents.drift.reference import Lens, Point
from agents.drift.watch import Watch

POINT_MS, EVENTS = 30_000, 20
PER_DAY = DAY_MS // POINT_MS
#: quick: (models, days each)
SIZES = {True: (2, 1), False: (200, 5)}
CONFIDENCE = 0.95

Values = Any        # (points, EVENTS) float64


class Kind(NamedTuple):
    """A kind of series: how its events are drawn, and what counts as a change of it."""

    draw: Callable[[np.random.Generator, int], Values]
    effect: Effect


def _share(p: float) -> Callable[[np.random.Generator, int], Values]:
    return lambda rng, n: (rng.random((n, EVENTS)) < p).astype(float)


def _wandering(rng: np.random.Generator, n: int) -> Values:
    """Its level moves by a tenth of a standard deviation, for some minutes at a time."""
    level, steps = np.zeros(n), rng.normal(0, 0.06, n)
    for i in range(1, n):
        level[i] = 0.8 * level[i - 1] + steps[i]
    return rng.normal(0, 1, (n, EVENTS)) + level[:, None]


KINDS: dict[str, Kind] = {
    "normal": Kind(lambda rng, n: rng.normal(40, 10, (n, EVENTS)), NUMERIC),
    "log-normal": Kind(lambda rng, n: rng.lognormal(3, 1.5, (n, EVENTS)), NUMERIC),
    "heavy tails (t, 3)": Kind(lambda rng, n: rng.standard_t(3, (n, EVENTS)), NUMERIC),
    "counts (Poisson, 2)": Kind(lambda rng, n: rng.poisson(2, (n, EVENTS)).astype(float), NUMERIC),
    "a level that wanders": Kind(_wandering, NUMERIC),
    "a class, 30%": Kind(_share(0.3), SHARE),
    "errors of requests, 1%": Kind(_share(0.01), NAMED["error_rate"]),
    "nulls, 5%": Kind(_share(0.05), NULLS),
    "latency": Kind(lambda rng, n: rng.lognormal(1, 0.5, (n, EVENTS)), NAMED["latency_ms"]),
    "errors of labels, 10%": Kind(_share(0.1), LABELS),
}


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    models, days = SIZES[quick]
    budget = DriftOptions().budget_per_day
    false = counted(models, days)
    total, model_days = sum(false.values()), models * days
    upper = upper_bound(total) / model_days
    table = Table(title=f"False alarms in {model_days * len(KINDS):,} series × days", title_justify="left")
    table.add_column("series")
    table.add_column("false", justify="right")
    for name, count in false.items():
        table.add_row(name, str(count))
    table.add_row("per model and day", f"{total / model_days:.4f}")
    table.add_row(f"at most, with {CONFIDENCE:.0%} confidence", f"{upper:.4f}")
    table.add_row("budget", f"{budget:.4f}")
    Console().print(table)
    return {"bench": "budget", "quick": quick, "series_days": model_days * len(KINDS), "model_days": model_days,
            "false_alarms": total, "per_model_day": total / model_days, "upper_95": upper, "budget": budget,
            "kept": upper <= budget}


def counted(models: int, days: int) -> dict[str, int]:
    """Kind -> false alarms of so many series, on all cores; progress goes to stderr."""
    jobs = [(number, model) for model in range(models) for number in range(len(KINDS))]
    found = dict.fromkeys(KINDS, 0)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        running = {pool.submit(_series, number, model, days): number for number, model in jobs}
        for job in track(as_completed(running), "series", len(jobs), console=Console(stderr=True), transient=True):
            found[list(KINDS)[running[job]]] += job.result()
    return found


def _series(number: int, model: int, days: int) -> int:
    return alarms(list(KINDS.values())[number], np.random.default_rng([number, model]), days)


def alarms(kind: Kind, rng: np.random.Generator, days: int, series: int = len(KINDS)) -> int:
    """Drifts that a watch sees in so many days of a stationary series."""
    watch = Watch(kind.effect, DriftOptions().delta)
    allowed = DriftOptions().budget_per_day / series
    watch.height = height(PER_DAY, allowed)
    bank = Likelihood(allowed / (PER_DAY * EVENTS))
    found = 0
    for day in range(days):
        values = kind.draw(rng, PER_DAY)
        if kind.effect is LABELS:           # late labels are read one by one, too
            found += len(bank.update_many(values.ravel()))
        means, variances, lens, watched = values.mean(axis=1), values.var(axis=1), None, None
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.log(np.maximum(values, 1e-3)) if values.min() > 0 else np.full_like(values, np.nan)
        log_means, log_variances = logs.mean(axis=1), logs.var(axis=1)
        for i in range(PER_DAY):
            if watch.lens is not None and watch.lens[:3] != lens:
                lens, watched = watch.lens[:3], _through(watch.lens, values, logs)
            start = (day * PER_DAY + i) * POINT_MS
            change = watch.add(Point(start, start + POINT_MS, 30, EVENTS, float(means[i]), float(variances[i]),
                                     float(log_means[i]), float(log_variances[i]),
                                     float("nan") if watched is None else float(watched[i])))
            found += change is not None and change.state == "drifted"
    return found


def _through(lens: Lens, values: Values, logs: Values) -> Values:
    return np.clip(logs if lens.log else values, lens.low, lens.high).mean(axis=1)


def upper_bound(count: int) -> float:
    """The largest mean of a Poisson count that is no stranger than 5%."""
    return float(gammaincinv(count + 1, CONFIDENCE))
