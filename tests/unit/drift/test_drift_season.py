"""A change that comes every day is no drift once it is known; another one at the same hour still is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.drift.level import Change
from agents.drift.options import LABELS, NAMED, NUMERIC, SHARE, Effect
from agents.drift.reference import Point
from agents.drift.season import HOUR_MS, Usual
from agents.drift.watch import Watch

POINT_MS, EVENTS, DAY = 30_000, 20, 86_400_000


def days(effect: Effect, count: int, draw: Any, seed: int = 1) -> list[tuple[float, Change]]:
    """(day, drift) of a watch over so many days; `draw(rng, hour, day)` gives the events of a point."""
    watch, rng, found = Watch(effect, 1e-5), np.random.default_rng(seed), []
    for at in range(0, count * DAY, POINT_MS):
        values = draw(rng, at % DAY / HOUR_MS, at / DAY)
        lens, logs = watch.lens, np.log(values) if values.min() > 0 else np.full(len(values), np.nan)
        watched = float("nan") if lens is None else float(np.clip(logs if lens.log else values, *lens[1:3]).mean())
        change = watch.add(Point(at, at + POINT_MS, 30, EVENTS, float(values.mean()), float(values.var()),
                                 float(logs.mean()), float(logs.var()), watched))
        if change is not None and change.state == "drifted":
            found.append((at / DAY, change))
    return found


def is_office(hour: float) -> bool:
    return 8 <= hour < 18


CASES = [
    pytest.param(NUMERIC, lambda rng, hour, day: rng.normal(55 if is_office(hour) else 40, 10, EVENTS), id="a mean"),
    pytest.param(NUMERIC, lambda rng, hour, day: rng.lognormal(5 if is_office(hour) else 3, 1.5, EVENTS), id="skewed"),
    pytest.param(SHARE, lambda rng, hour, day: (rng.random(EVENTS) < (0.6 if is_office(hour) else 0.2)).astype(float),
                 id="a class"),
    pytest.param(LABELS, lambda rng, hour, day: (rng.random(EVENTS) < (0.4 if is_office(hour) else 0.1)).astype(float),
                 id="errors of labels"),
    pytest.param(NAMED["latency_ms"], lambda rng, hour, day: rng.lognormal(3 if is_office(hour) else 1, 0.4, EVENTS),
                 id="latency"),
]


@pytest.mark.parametrize(("effect", "draw"), CASES)
def test_what_comes_every_day_is_a_drift_at_first_and_then_no_more(effect: Effect, draw: Any) -> None:
    found = days(effect, 6, draw)
    assert any(day < 2 for day, _ in found)
    assert [(day, change) for day, change in found if day >= 3] == []


def test_another_change_at_the_same_hour_still_is_one() -> None:
    def draw(rng: Any, hour: float, day: float) -> Any:
        return rng.normal((80 if day >= 5 else 55) if is_office(hour) else 40, 10, EVENTS)
    found = [(day, change) for day, change in days(NUMERIC, 6, draw) if day >= 3]
    assert found and 5.3 < found[0][0] < 5.4
    assert found[0][1].after == pytest.approx(80, abs=6)


def test_a_daily_change_at_another_hour_still_is_one() -> None:
    def draw(rng: Any, hour: float, day: float) -> Any:
        return rng.normal(55 if is_office(hour) or (day >= 5 and hour >= 21) else 40, 10, EVENTS)
    found = [day for day, _ in days(NUMERIC, 6, draw) if day >= 3]
    assert len(found) == 1 and 5.87 < found[0] < 5.95


def test_an_hour_counts_when_it_is_over_and_from_the_second_day_on() -> None:
    usual = Usual()
    for day in range(2):
        for minute in range(60):
            usual.add(day * DAY + 9 * HOUR_MS + minute * 60_000, 10, 4.0 + day, False)
        assert np.isnan(usual.level(9 * HOUR_MS))
    usual.add(2 * DAY, 10, 0.0, False)
    assert usual.level(5 * DAY + 9 * HOUR_MS + 1) == pytest.approx(4.5)
    assert np.isnan(usual.level(10 * HOUR_MS))
    usual.add(2 * DAY, 10, 0.0, True)
    assert np.isnan(usual.level(5 * DAY + 9 * HOUR_MS))
