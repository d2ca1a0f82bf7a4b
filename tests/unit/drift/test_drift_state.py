"""State is a function of the log: restarts and batches change nothing, and what is damaged says so."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from drift_world import ORIGIN_MS, Serving, World

from agents.drift.engine import DriftEngine
from agents.drift.performance import PerformanceEngine
from schemas.telemetry import Feedback


def telemetry() -> list[Any]:
    """A unit that changes and is mended, a slow shift, nulls, and a second version."""
    def disturb(second: int, values: dict[str, Any]) -> None:
        if 100 <= second < 160:
            values["feature.age"] = values["feature.age"] * 1_000
        if second >= 180:
            values["feature.level"] = values["feature.level"] + 0.8
            values["confidence"] = values["confidence"] * 0.8
        if second >= 220:
            values["feature.balance"] = np.where(np.arange(15) < 8, np.nan, values["feature.balance"])
    return [*Serving(1).windows(200, disturb), *Serving(2).windows(100, disturb, first=200, version="2"),
            *Serving(3).windows(60, disturb, first=300)]


def labels() -> list[Feedback]:
    rng, found = random.Random(3), []
    for i in range(6_000):
        share = 0.1 if i < 2_500 else 0.16 if i < 4_500 else 0.7
        found.append(Feedback(
            event_id=f"e{i}", ts=ORIGIN_MS + i * 700, predicted_at=ORIGIN_MS + i * 700 - rng.randrange(9_000),
            environment="prod", model="m", version="2" if i > 5_000 and rng.random() < 0.5 else "1", prediction="yes",
            label="no" if rng.random() < share else "yes", segment={"plan": rng.choice("abc")}))
    return found


LOGS = [pytest.param(DriftEngine, telemetry, id="windows"), pytest.param(PerformanceEngine, labels, id="late labels")]


@pytest.mark.parametrize(("engine", "log"), LOGS)
def test_restarts_at_any_point_change_nothing(engine: Any, log: Any) -> None:
    messages = log()
    whole = World(engine()).give(messages)
    assert len(whole) >= 4
    for seed in range(3):
        rng, world, found, at = random.Random(seed), World(engine()), [], 0
        while at < len(messages):
            size = rng.choice([1, 7, 30, 100])
            found += world.give(messages[at:at + size])
            at += size
            world.restart()
        assert found == whole


@pytest.mark.parametrize(("engine", "log"), LOGS)
def test_a_snapshot_is_bounded_and_a_damaged_one_says_so(engine: Any, log: Any) -> None:
    world = World(engine())
    world.give(log())
    world.restart()
    codec = world.engine.codec
    entry = world.states.entry(next(iter(world.states.keys())))
    data = codec.encode(entry.key, entry.state)
    assert len(data) < 30_000
    assert codec.encode(entry.key, codec.decode(entry.key, data)) == data
    for cut in (1, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="damaged"):
            codec.decode(entry.key, data[:cut])


def test_a_row_of_before_the_bank_and_the_sketches_is_read() -> None:
    """As written by an older version: the fields that came later are not there."""
    world = World(PerformanceEngine())
    world.give(labels()[:1_000])
    codec = world.engine.codec
    entry = world.states.entry(next(iter(world.states.keys())))
    old = {name: [*fields[:4], fields[4][:17]] for name, fields in
           msgspec.msgpack.decode(codec.encode(entry.key, entry.state)).items()}
    again = codec.decode(entry.key, msgspec.msgpack.encode(old))
    name = next(iter(old))
    assert again[name].watch.state.reference == entry.state[name].watch.state.reference
    assert again[name].bank.n == 0
