"""Names of the most frequent values against a slow, obvious reference, for any cutting of the log and any crash."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.aggregation.hitters import OTHERS, Events, Hitters
from reference.levels import DAY_MS, Names
from streams.state.keyed import KeyedStates

SLOT_MS, KEPT_MS, TOPIC = 60_000, 31_000, "telemetry"
VALUES = [f"v{at}" for at in range(12)]
BASE = 1_700_000_000_000 // DAY_MS * DAY_MS - 300_000

#: (family, milliseconds on, milliseconds back, value or -1)
EVENTS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0, 0, 500, 9_000, 70_000, DAY_MS]),
                            st.sampled_from([0, 0, 200, 20_000]),
                            st.integers(-1, 3) | st.integers(-1, len(VALUES) - 1)), min_size=1, max_size=150)
Log = list[tuple[int, int, int]]


def log(drawn: list[tuple[int, int, int, int]]) -> Log:
    """(family, ts, value); time jumps by up to a day, and events are late by up to 20 s."""
    found, now = [], BASE
    for family, on, back, value in drawn:
        now += on
        found.append((family, now - back, value))
    return found


def wanted(events: Log, most: int, room: int) -> list[int]:
    families = defaultdict[int, Names](lambda: Names(most, SLOT_MS, room))
    return [value if families[family].call(ts, VALUES[value] if value >= 0 else None) else OTHERS
            for family, ts, value in events]


def call(hitters: Hitters, states: Any, events: Log, first: int) -> list[int]:
    """A batch; two events a record."""
    rows = np.array(events, np.int64)
    offset = (first + np.arange(len(rows))) // 2
    return hitters.call(states, ["f0", "f1"], VALUES, Events(rows[:, 0].copy(), rows[:, 1] // SLOT_MS,
                                                            rows[:, 2].copy(), offset), TOPIC, int(offset[-1])).tolist()


@given(EVENTS, st.integers(1, 4), st.sampled_from([4, 6, 64]), st.data())
@settings(deadline=None, max_examples=300)
def test_names_are_those_of_the_reference_for_any_cutting_and_after_any_crash(drawn: Any, most: int, room: int,
                                                                              data: Any) -> None:
    events = log(drawn)
    hitters, position, committed = Hitters(most, SLOT_MS, KEPT_MS, room), 0, 0
    rows: dict[str, bytes] = {}
    states = KeyedStates("names", 0, hitters.codec, dict(rows))
    called = [0] * len(events)
    reached = 0
    while position < len(events):
        many = 2 * data.draw(st.integers(1, 12), "batch")
        found = call(hitters, states, events[position:position + many], position)
        for at, one in enumerate(found, position):
            if at >= reached:           # what was read before is in windows that skip it
                called[at] = one
        position = min(position + many, len(events))
        reached = max(reached, position)
        then = data.draw(st.sampled_from(["go on", "go on", "checkpoint", "crash"]), "then")
        if then == "go on":
            continue
        frozen = states.freeze(1)
        if then == "crash":
            rows.update(frozen.puts[:data.draw(st.integers(0, len(frozen.puts)), "writes")])
            states, position = KeyedStates("names", 0, hitters.codec, dict(rows)), committed
        else:
            rows.update(frozen.puts)
            states.written(frozen)
            committed = position
    assert called == wanted(events, most, room)


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_whoever_has_the_most_events_of_late_has_a_name_whoever_came_first(seed: int, most: int) -> None:
    rng, hitters = np.random.default_rng(seed), Hitters(most, SLOT_MS, KEPT_MS)
    states = KeyedStates("names", 0, hitters.codec, {})
    frequent = rng.permutation(len(VALUES))[:most]
    share = np.full(len(VALUES), 0.3 / (len(VALUES) - most))
    share[frequent] = 0.7 / most
    first = [(0, BASE, value) for value in range(len(VALUES)) if value not in frequent]
    later = [(0, BASE + at * 100, int(value))
             for at, value in enumerate(rng.choice(len(VALUES), 3_000, p=share / share.sum()))]
    events = [*first, *later]
    called = [one for at in range(0, len(events), 500) for one in call(hitters, states, events[at:at + 500], at)]
    last = {value for (_, _, value), one in zip(events[-1_000:], called[-1_000:], strict=True) if one != OTHERS}
    assert last == set(frequent.tolist())
    assert set(called[:len(first)]) == {OTHERS, *(value for _, _, value in first[:most])}


@given(EVENTS, st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_no_slot_has_more_names_than_are_allowed_and_in_one_slot_a_value_is_called_one_thing(drawn: Any, most: int
                                                                                             ) -> None:
    events, hitters = log(drawn), Hitters(most, SLOT_MS, KEPT_MS)
    states = KeyedStates("names", 0, hitters.codec, {})
    called = [one for at in range(0, len(events), 10) for one in call(hitters, states, events[at:at + 10], at)]
    names = defaultdict[Any, set[int]](set)
    others = defaultdict[Any, set[int]](set)
    for (family, ts, value), one in zip(events, called, strict=True):
        (others if one == OTHERS else names)[family, ts // SLOT_MS].add(value)
    for slot in names.keys() | others.keys():
        assert len(names[slot]) <= most
        assert not names[slot] & others[slot], "all of a slot's events of a value are told under one name"


def test_what_is_remembered_is_bounded() -> None:
    hitters = Hitters(3, SLOT_MS, KEPT_MS)
    states, rng = KeyedStates("names", 0, hitters.codec, {}), np.random.default_rng(3)
    texts = [f"value-{at}" for at in range(2_000)]
    for block in range(60):
        value = rng.integers(0, len(texts), 400) if block % 2 else rng.integers(block, block + 3, 400)
        slot = np.full(400, block)
        hitters.call(states, ["f"], texts, Events(np.zeros(400, np.int64), slot, value, np.arange(400) + 400 * block),
                     TOPIC, 400 * block + 399)
        state = states.entry("f").state
        assert len(state.values) <= hitters.room
        assert len(state.names) <= 4
        assert all(len(names) <= 3 for names in state.names.values())
    assert Counter(map(len, state.names.values())).keys() == {3}
