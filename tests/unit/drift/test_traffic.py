"""Traffic against what is usual at the hour: a night is none, half of a day's is one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from drift_world import ORIGIN_MS, World, window

from agents.drift.traffic import A_DAY, FIELD
from schemas.drift import DriftEvent
from streams.windows.record import WindowRecord

DAYS, STEP_S = 4, 10
BREAK = 3 * A_DAY + 700      # a minute of the fourth day


def serving(change: Callable[[int], float], seed: int = 1, minutes: int = DAYS * A_DAY) -> list[WindowRecord]:
    """Six windows a minute with a daily cycle (five times as many at noon as at night), by two versions at random."""
    rng, found = np.random.default_rng(seed), []
    for at in range(minutes * 6):
        minute = at // 6
        usual = 30.0 * math.exp(0.8 * math.sin(2 * math.pi * minute / A_DAY))
        count = max(1, int(rng.poisson(usual * change(minute))))
        found.append(window(at * STEP_S, {}, count, version=str(rng.integers(1, 3))))
    return found


def told(events: list[DriftEvent]) -> list[DriftEvent]:
    return [event for event in events if event.field == FIELD]


def test_a_fall_that_the_hour_does_not_explain_is_told_and_its_end() -> None:
    events = told(World().give(serving(lambda minute: 0.3 if BREAK <= minute < BREAK + 60 else 1.0)))
    assert [(event.kind, event.state, event.cause) for event in events] == [
        ("operational", "drifted", "operational"), ("operational", "recovered", "unknown")]
    fall = events[0]
    usual = 180 * math.exp(0.8 * math.sin(2 * math.pi * BREAK / A_DAY))
    assert 0.8 < fall.before / usual < 1.25 and 0.2 < fall.after / fall.before < 0.4
    assert fall.versions == ["1", "2"]
    assert abs(fall.onset_ms - (ORIGIN_MS + BREAK * 60_000)) <= 120_000
    assert fall.detected_ms - fall.onset_ms <= 15 * 60_000


def test_the_end_of_a_fall_names_the_version_of_its_beginning() -> None:
    """Whichever version ends a minute: what is kept by version must not stay open."""
    for seed in range(6):
        events = told(World().give(serving(lambda minute: 0.3 if BREAK <= minute < BREAK + 60 else 1.0, seed)))
        assert [event.state for event in events] == ["drifted", "recovered"]
        assert len({event.version for event in events}) == 1


def test_a_rise_is_told_as_well() -> None:
    [event] = told(World().give(serving(lambda minute: 4.0 if minute >= BREAK else 1.0, minutes=BREAK + 30)))
    assert event.after > 3 * event.before


def test_days_and_nights_and_a_little_more_or_less_are_no_drift() -> None:
    assert told(World().give(serving(lambda minute: 1.3 if minute >= BREAK else 1.0))) == []


def test_before_the_third_day_nothing_is_said() -> None:
    assert told(World().give(serving(lambda minute: 0.2 if minute >= A_DAY else 1.0, minutes=2 * A_DAY))) == []


def test_the_first_weekend_is_news_and_those_after_it_are_not() -> None:
    rng, windows = np.random.default_rng(5), []
    for minute in range(24 * A_DAY):
        weekend = minute // A_DAY % 7 >= 5
        usual = 200.0 * math.exp(0.8 * math.sin(2 * math.pi * minute / A_DAY)) * (0.3 if weekend else 1.0)
        windows.append(window(minute * 60, {}, max(1, int(rng.poisson(usual)))))
    days = [(event.onset_ms - ORIGIN_MS) // (A_DAY * 60_000) for event in told(World().give(windows))]
    assert days and max(days) <= 7


def test_restarts_and_windows_that_come_again_change_nothing() -> None:
    messages = serving(lambda minute: 0.3 if minute >= BREAK else 1.0, minutes=BREAK + 40)
    whole, world, found = World().give(messages), World(), []
    for at in range(0, len(messages), 1_700):
        found += world.give(messages[max(0, at - 40):at + 1_700])
        world.restart()
    assert told(found) == told(whole) != []
