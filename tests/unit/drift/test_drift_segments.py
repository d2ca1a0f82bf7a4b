"""In which segment a drift is concentrated: named where one holds it, not where it is everywhere; by the log alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drift_world import ORIGIN_MS

from agents.drift.message import UNIT
from agents.drift.segments import SegmentEngine
from agents.drift.sums import PANE_MS, RECENT
from schemas.drift import DriftEvent
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates
from streams.wire import WireRecord

KEYS = ("country", "plan")
COUNTRIES, SHARES = ["PT", "ES", "FR", "DE"], [0.25, 0.4, 0.25, 0.1]
SERIES = UNIT.join(("prod", "m", "1", "model"))
ONSET_S, END_S, PER_SECOND = 100, 130, 20
Disturb = Callable[[dict[str, Any], random.Random], None]


def serving(disturb: Disturb = lambda event, rng: None, seed: int = 1, seconds: int = END_S) -> list[dict[str, Any]]:
    rng, found = random.Random(seed), []
    for number in range(seconds * PER_SECOND):
        country = rng.choices(COUNTRIES, SHARES)[0]
        level = 10.0 if country == "DE" else 0.0
        event: dict[str, Any] = {
            "event_id": f"e{number}", "ts": ORIGIN_MS + number * 1_000 // PER_SECOND, "environment": "prod",
            "model": "m", "version": "1", "prediction": rng.choice(["yes", "no", "no"]), "confidence": 0.8,
            "latency_ms": 5.0, "segment": {"country": country, "plan": rng.choice(["basic", "pro"])},
            "features": {"age": rng.gauss(40.0, 10.0), "level": rng.gauss(level, 1.0),
                         "balance": rng.lognormvariate(6.0, 2.0)}}
        if number >= ONSET_S * PER_SECOND:
            disturb(event, rng)
        found.append(event)
    return found


def batch(events: list[dict[str, Any]], first: int = 0) -> Any:
    records = [WireRecord(first + at, 0, b"m", json.dumps(event).encode()) for at, event in enumerate(events)]
    return Decoder(Limits(), KEYS)(RecordBatch("telemetry", 0, records))


def states_of(engine: SegmentEngine, snapshots: dict[str, bytes] | None = None) -> KeyedStates[Any]:
    return KeyedStates("drift.segments", 0, engine.codec, snapshots or {})


def drift(field: str, statistic: str = "mean", onset_s: int = ONSET_S, end_s: int = END_S) -> DriftEvent:
    return DriftEvent.model_validate({
        "environment": "prod", "model": "m", "version": "1", "drift_id": "d", "kind": "data", "state": "drifted",
        "field": field, "statistic": statistic, "before": 0.0, "after": 1.0, "onset_ms": ORIGIN_MS + onset_s * 1_000,
        "detected_ms": ORIGIN_MS + end_s * 1_000, "sureness": 0.9, "detector": "cusum", "severity": "warning"})


def located(events: list[dict[str, Any]], event: DriftEvent) -> dict[str, str]:
    engine = SegmentEngine(KEYS)
    states = states_of(engine)
    engine.run(batch(events), states, "telemetry")
    return dict(engine.located(event, states).segment)


def only(country: str, change: Disturb) -> Disturb:
    def disturb(event: dict[str, Any], rng: random.Random) -> None:
        if event["segment"].get("country") == country:
            change(event, rng)
    return disturb


def feature(name: str, by: Callable[[float], float | None]) -> Disturb:
    return lambda event, rng: event["features"].update({name: by(event["features"][name])})


CHANGES = [
    pytest.param(feature("age", lambda value: value + 25.0), "feature.age", "mean", id="a mean"),
    pytest.param(feature("balance", lambda value: value * 50.0), "feature.balance", "mean", id="a skewed one"),
    pytest.param(feature("age", lambda value: None), "feature.age", "missing_share", id="nulls"),
    pytest.param(lambda event, rng: event["features"].pop("age"), "feature.age", "missing_share", id="gone"),
    pytest.param(lambda event, rng: event.update(prediction="yes"), "prediction=yes", "rate", id="a class"),
    pytest.param(lambda event, rng: event.update(prediction="new"), "prediction=new", "rate", id="a class of none"),
    pytest.param(lambda event, rng: event.update(confidence=0.3), "confidence", "mean", id="what was constant"),
    pytest.param(lambda event, rng: event.update(error="no" if rng.random() < 0.6 else None), "error_rate", "rate",
                 id="errors"),
]


@pytest.mark.parametrize("country", ["PT", "FR"])
@pytest.mark.parametrize(("change", "field", "statistic"), CHANGES)
def test_a_change_of_one_value_is_located_there(change: Disturb, field: str, statistic: str, country: str) -> None:
    for seed in (1, 2, 3):
        assert located(serving(only(country, change), seed), drift(field, statistic)) == {"country": country}


@pytest.mark.parametrize(("change", "field", "statistic"), CHANGES)
def test_a_change_everywhere_is_located_nowhere(change: Disturb, field: str, statistic: str) -> None:
    for seed in range(6):
        assert located(serving(change, seed), drift(field, statistic)) == {}


def test_without_a_change_nothing_is_located() -> None:
    for seed in range(12):
        events = serving(seed=seed)
        for field in ("feature.age", "feature.balance", "feature.level", "prediction=yes", "latency_ms", "error_rate"):
            assert located(events, drift(field)) == {}, (seed, field)


def test_more_events_of_a_value_that_differs_are_a_change_of_that_value() -> None:
    def more(event: dict[str, Any], rng: random.Random) -> None:
        if rng.random() < 0.5:
            event["segment"]["country"] = "DE"
            event["features"]["level"] = rng.gauss(10.0, 1.0)
    assert located(serving(more), drift("feature.level")) == {"country": "DE"}


def test_two_values_that_change_are_not_told_as_one_and_two_keys_are() -> None:
    change = feature("age", lambda value: value + 25.0)

    def two(event: dict[str, Any], rng: random.Random) -> None:
        if event["segment"]["country"] in ("PT", "FR"):
            change(event, rng)

    def both(event: dict[str, Any], rng: random.Random) -> None:
        if event["segment"] == {"country": "FR", "plan": "pro"}:
            change(event, rng)
    assert located(serving(two), drift("feature.age")) == {}
    assert located(serving(both), drift("feature.age")) == {"country": "FR", "plan": "pro"}


def test_too_few_events_and_panes_that_are_gone_name_nothing() -> None:
    change = only("PT", feature("age", lambda value: value + 25.0))
    assert located(serving(change), drift("feature.age", onset_s=128, end_s=129)) == {}
    long = serving(change, seconds=END_S + RECENT * PANE_MS // 1_000)
    assert located(long, drift("feature.age")) == {}
    assert located(serving(change), drift("feature.nope")) == {}


def test_an_event_of_a_segment_or_of_another_series_stays_as_it_is() -> None:
    engine = SegmentEngine(KEYS)
    states = states_of(engine)
    engine.run(batch(serving(only("PT", feature("age", lambda value: value + 25.0)))), states, "telemetry")
    event = drift("feature.age")
    for other in (event.model_copy(update={"state": "recovered"}), event.model_copy(update={"version": "2"}),
                  event.model_copy(update={"segment": {"x": "y"}})):
        assert engine.located(other, states) == other
    assert len(states.live) == 2        # the series and the partition's own: asking makes no key


def disordered() -> list[dict[str, Any]]:
    """Two series, some rows out of order, some far too late, one of another day; some without a segment."""
    rng, events = random.Random(5), serving(only("PT", feature("age", lambda value: value + 25.0)))
    for event in events:
        event["ts"] -= rng.choice([0, 0, 0, 700, 4_000, 300_000])
        event["version"] = rng.choice("11112")
        if rng.random() < 0.1:
            event["segment"] = rng.choice([{}, {"plan": "x"}, {"other": "y"}])
    return events


def test_sums_are_the_same_for_any_cutting_and_restart_and_for_records_that_come_again() -> None:
    events, engine = disordered(), SegmentEngine(KEYS)
    whole = states_of(engine)
    engine.run(batch(events), whole, "telemetry")
    wanted = {key: engine.codec.encode(key, entry.state) for key, entry in whole.live.items()}
    assert len(wanted) == 3
    for seed in range(3):
        rng, states, at = random.Random(seed), states_of(engine), 0
        while at < len(events):
            size = rng.choice([1, 50, 400])
            engine.run(batch(events[at:at + size], at), states, "telemetry")
            again = max(0, at - 7)
            engine.run(batch(events[again:at + 1], again), states, "telemetry")     # read again: nothing is added
            at += size
            states.written(states.freeze(1))
            states = states_of(engine, dict(states.snapshots))
        assert {key: engine.codec.encode(key, states.entry(key).state) for key in wanted} == wanted


def test_state_is_bounded_and_damage_says_so() -> None:
    rng, engine = random.Random(1), SegmentEngine(KEYS)
    states = states_of(engine)
    events = serving(seconds=300)
    for number, event in enumerate(events):
        event["segment"]["country"] = f"c{number % 500}"
        event["features"] |= {f"f{rng.randrange(300)}": rng.choice([1e308, -1e308, 0.0])}
    engine.run(batch(events), states, "telemetry")
    state = states.entry(SERIES).state
    assert sum(name.startswith("country=") for name in state.names) == engine.options.most_values
    assert len(state.panes) <= RECENT
    data = engine.codec.encode(SERIES, state)
    assert engine.codec.encode(SERIES, engine.codec.decode(SERIES, data)) == data
    assert np.isfinite(state.past.cells).all()
    for cut in (1, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="damaged"):
            engine.codec.decode(SERIES, data[:cut])


@pytest.mark.parametrize("phase_ms", range(0, PANE_MS, 250))
def test_three_seconds_are_enough_wherever_panes_begin(phase_ms: int) -> None:
    events = serving(only("PT", feature("age", lambda value: value + 30.0)), seconds=ONSET_S + 4)
    for event in events:
        event["ts"] += phase_ms
    asked = drift("feature.age", end_s=ONSET_S + 3)
    later = {"onset_ms": asked.onset_ms + phase_ms, "detected_ms": asked.detected_ms + phase_ms}
    assert located(events, asked.model_copy(update=later)) == {"country": "PT"}


def test_a_row_of_other_keys_is_begun_anew() -> None:
    engine = SegmentEngine(KEYS)
    states = states_of(engine)
    engine.run(batch(serving(seconds=20)), states, "telemetry")
    other = SegmentEngine(("plan",))
    again = other.codec.decode(SERIES, engine.codec.encode(SERIES, states.entry(SERIES).state))
    assert (again.names, again.newest_ms) == ({}, states.entry(SERIES).state.newest_ms)
