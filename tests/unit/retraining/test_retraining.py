"""Which drift asks for retraining, when, and how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agents.retraining.engine import RetrainingEngine, RetrainingOptions
from agents.retraining.state import Asked
from schemas.drift import DriftEvent, RetrainingRequest
from streams.state.keyed import KeyedStates

T0, SECOND, HOUR, DAY = 1_780_000_000_000, 1_000, 3_600_000, 86_400_000
OPTIONS = RetrainingOptions(cooldown_ms=6 * HOUR, persistence_ms=60 * SECOND, most_a_week=3)


def drift(at_ms: int, **more: Any) -> DriftEvent:
    """A real change of a feature, by default."""
    values: dict[str, Any] = {
        "environment": "prod", "model": "churn", "version": "3", "kind": "data", "state": "drifted",
        "field": "feature.age", "before": 40.0, "after": 55.0, "scale": 10.0, "onset_ms": T0 + at_ms - SECOND,
        "detected_ms": T0 + at_ms, "sureness": 0.99999, "detector": "cusum", "severity": "warning",
        "cause": "real_change"} | more
    name = "-".join(str(values[key]) for key in ("model", "field", "statistic", "state", "version") if key in values)
    return DriftEvent(**({"drift_id": f"d-{name}-{at_ms}"} | values))


def recovered(at_ms: int, **more: Any) -> DriftEvent:
    return drift(at_ms, **({"state": "recovered", "severity": "info", "cause": "unknown"} | more))


class World:
    """An engine with the states of a partition; published requests are kept."""

    def __init__(self, options: RetrainingOptions = OPTIONS) -> None:
        self.engine = RetrainingEngine(options)
        self.states: KeyedStates[Asked] = KeyedStates("retraining", 0, self.engine.codec, {})
        self.offset = 0
        self.asked: list[RetrainingRequest] = []

    def give(self, *events: DriftEvent) -> World:
        for event in events:
            self.engine.on_drift([(self.offset, event)], self.states, "drift-events")
            self.offset += 1
            self.publish()
        return self

    def clock(self, at_ms: int, model: str = "churn") -> World:
        """A closed window that ends then."""
        window: Any = SimpleNamespace(environment="prod", model=model, start_ms=T0 + at_ms - 1_000, size_ms=1_000)
        self.engine.on_windows([(0, window)], self.states)
        return self.publish()

    def publish(self) -> World:
        out = self.engine.outbox(self.states)
        self.asked += out
        self.engine.published(self.states, [request.request_id for request in out])
        return self

    def restart(self) -> None:
        self.states.written(self.states.freeze(1))
        self.engine = RetrainingEngine(self.engine.options)
        self.states = KeyedStates("retraining", 0, self.engine.codec, dict(self.states.snapshots))


def test_a_real_change_asks_once_it_has_lasted() -> None:
    world = World().give(drift(0)).clock(59_999)
    assert world.asked == []
    request, = world.clock(60_000).asked
    assert (request.ts, request.severity, request.drift_ids) == (T0 + 60_000, "warning", [drift(0).drift_id])
    assert request.reason == "data drift of feature.age: 40 to 55"
    assert world.clock(61_000).clock(HOUR).asked == [request]


def test_what_is_over_sooner_asks_for_nothing() -> None:
    assert World().give(drift(0), recovered(30_000)).clock(HOUR).asked == []


def test_it_goes_on_asking_while_another_series_is_still_off() -> None:
    world = World().give(drift(0), drift(5_000, field="feature.b", severity="critical"), recovered(30_000))
    request, = world.clock(HOUR).asked
    assert request.severity == "critical" and len(request.drift_ids) == 2 and "feature.b" in request.reason


BROKEN = [
    pytest.param({"statistic": "missing_share", "before": 0.0, "after": 1.0, "cause": "data_quality",
                  "breakage": "null_column"}, id="nulls"),
    pytest.param({"after": 40_000.0, "severity": "critical", "cause": "data_quality", "breakage": "unit_change"},
                 id="a unit"),
    pytest.param({"after": 40_000.0, "severity": "critical", "cause": "unknown"}, id="a unit, told of old"),
    pytest.param({"field": "feature.age=old", "statistic": "rate", "before": 0.0, "after": 0.9,
                  "cause": "data_quality", "breakage": "schema"}, id="text for numbers"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_feed_asks_for_nothing_nor_does_what_follows_from_it(broken: dict[str, Any]) -> None:
    world = World().give(drift(0, **broken), drift(1_000, kind="prediction", field="prediction=yes", statistic="rate"),
                         drift(9_000, kind="performance", field="error", statistic="rate"))
    assert world.clock(HOUR).asked == []


@pytest.mark.parametrize("broken", BROKEN)
def test_what_follows_from_it_may_be_seen_first(broken: dict[str, Any]) -> None:
    world = World().give(drift(0, kind="prediction", field="prediction=yes", statistic="rate"), drift(4_000, **broken))
    assert world.clock(HOUR).asked == []


def test_after_the_feed_is_mended_a_real_change_asks_again() -> None:
    nulls: dict[str, Any] = BROKEN[0].values[0]         # type: ignore[assignment]
    world = World().give(drift(0, **nulls), recovered(20_000, statistic="missing_share"), drift(30_000))
    assert len(world.clock(HOUR).asked) == 1


@pytest.mark.parametrize("other", [
    {"kind": "operational", "field": "latency_ms", "cause": "operational"}, {"detector": "incumbent",
    "cause": "new_version"}, {"severity": "info"}])
def test_what_a_new_model_would_not_mend_asks_for_nothing(other: dict[str, Any]) -> None:
    assert World().give(drift(0, **other)).clock(HOUR).asked == []


def test_the_least_severity_is_a_matter_of_policy() -> None:
    strict = RetrainingOptions(least_severity="critical")
    assert World(strict).give(drift(0)).clock(HOUR).asked == []
    assert len(World(strict).give(drift(0, severity="critical")).clock(HOUR).asked) == 1


def test_within_the_cooldown_a_model_gets_no_other_but_another_model_does() -> None:
    world = World().give(drift(0)).clock(60_000).give(drift(HOUR, field="feature.b")).clock(2 * HOUR)
    assert len(world.asked) == 1
    assert len(world.give(drift(2 * HOUR, model="fraud")).clock(3 * HOUR, "fraud").asked) == 2
    assert len(world.give(drift(7 * HOUR, field="feature.c")).clock(8 * HOUR).asked) == 3
    assert len({request.dedupe_key for request in world.asked}) == 2


def test_a_week_has_a_budget() -> None:
    world = World()
    for day in range(10):
        world.give(drift(day * DAY, field=f"feature.{day}")).clock(day * DAY + HOUR)
    assert [(request.ts - T0) // DAY for request in world.asked] == [0, 1, 2, 8, 9]


def test_a_restart_forgets_nothing_and_a_repeat_counts_once() -> None:
    world = World().give(drift(0))
    world.restart()
    world.offset -= 1
    world.give(drift(0))
    world.engine.on_windows([], world.states)
    assert len(world.clock(60_000).asked) == 1


def test_a_request_that_was_not_published_is_told_again_after_a_restart() -> None:
    world = World()
    world.engine.on_drift([(0, drift(0)), (1, drift(90_000, field="feature.b"))], world.states, "drift-events")
    first = world.engine.outbox(world.states)
    world.restart()
    assert world.engine.outbox(world.states) == first != []


def test_damaged_state_says_so() -> None:
    with pytest.raises(ValueError, match="damaged"):
        RetrainingEngine().codec.decode("k", b"\xc1")
