"""A version's profile from training: a version that serves otherwise than it was trained is told of, from its start."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from drift_trained import TRAINED, Trained, event, shifted
from drift_world import ORIGIN_MS, Serving, World, classes, moved, summary, window

from agents.drift.component import Codec
from agents.drift.options import DriftOptions
from agents.drift.profiles import MOST_VERSIONS, Profiles
from schemas.alerts import LifecycleEvent
from schemas.drift import DriftEvent
from streams.state.keyed import KeyedStates
from streams.windows.record import WindowRecord

# -- what is told ------------------------------------------------------------------------------------


def test_a_version_that_serves_other_inputs_than_it_was_trained_on_is_told_from_its_start() -> None:
    windows = Serving(1).windows(120, shifted("feature.age", 10.0))
    assert moved(World().give(windows)) == set()        # without a profile these windows are what is normal
    world = Trained()
    world.learn(event({"features": TRAINED}))
    found = world.give(windows)
    assert moved(found) == {("feature.age", "mean")}
    told = found[0]
    assert (told.reference, told.before, told.cause) == ("profile", 40.0, "real_change")
    assert told.after == pytest.approx(50.0, abs=1.0)
    assert told.onset_ms <= ORIGIN_MS + 10_000
    assert told.detected_ms <= ORIGIN_MS + 60_000


def test_a_version_that_serves_what_it_was_trained_on_is_calm_and_later_drift_names_the_profile() -> None:
    world = Trained()
    world.learn(event({"features": TRAINED, "prediction": {"classes": {"yes": 0.3, "no": 0.7}},
                       "confidence": {"mean": 0.8, "sd": 0.12}}))
    assert world.give(Serving(2).windows(1_500)) == []
    found = world.give(Serving(3).windows(60, shifted("feature.age", 12.0, 1_500), first=1_500))
    assert [(one.field, one.reference, one.before) for one in found] == [("feature.age", "profile", 40.0)]
    back = world.give(Serving(4).windows(60, first=1_560))
    assert [(one.state, one.reference) for one in back] == [("recovered", "profile")]


def test_what_the_profile_does_not_speak_of_is_measured_against_its_first_windows() -> None:
    world = Trained()
    world.learn(event({"features": {"age": TRAINED["age"]}}))
    found = world.give(Serving(1).windows(200, shifted("feature.level", 5.0, 120)))
    assert [(one.field, one.reference) for one in found] == [("feature.level", "stable_window")]


def test_inputs_in_another_unit_than_at_training_are_a_broken_feed() -> None:
    world = Trained()
    world.learn(event({"features": TRAINED}))
    found = world.give(Serving(1).windows(60, lambda second, values: values.update(
        {"feature.age": values["feature.age"] * 1_000})))
    assert [(one.field, one.cause, one.breakage) for one in found] == [("feature.age", "data_quality", "unit_change")]


def test_classes_that_training_did_not_have_and_those_that_never_come_are_told() -> None:
    world = Trained()
    world.learn(event({"features": {"plan": {"classes": {"basic": 600, "pro": 300, "old": 100}}},
                       "prediction": {"classes": {"no": 0.6, "yes": 0.4}}}))
    drawn = random.Random(1)
    found = world.give([window(second, classes("feature.plan", drawn.choices(["basic", "pro", "new"], [5, 3, 2], k=15))
                               | classes("prediction", ["no"] * 15), 15) for second in range(120)])
    assert {one.field: one.before for one in found} == {
        "feature.plan=new": 0.0, "feature.plan=old": 0.1, "prediction=yes": 0.4, "prediction=no": 0.6}
    assert {one.reference for one in found} == {"profile"}


def test_nulls_that_training_did_not_have_are_told() -> None:
    world = Trained()
    world.learn(event({"features": TRAINED}))
    def half_missing(second: int, values: dict[str, Any]) -> None:
        values["feature.age"] = np.where(np.arange(15) < 8, np.nan, values["feature.age"])
    found = world.give(Serving(1).windows(60, half_missing))
    assert [(one.field, one.statistic, one.before, one.reference) for one in found] == [
        ("feature.age", "missing_share", 0.0, "profile")]


def test_a_version_is_measured_by_its_own_profile_and_not_by_the_version_before_it() -> None:
    world = Trained()
    world.give(Serving(1).windows(200))
    world.learn(event({"features": {"age": {"mean": 60.0, "sd": 10.0}}}, version="2"))
    found = world.give(Serving(2).windows(100, shifted("feature.age", 20.0), first=200, version="2"))
    assert [one for one in found if one.field == "feature.age"] == []       # 60, as trained; the version before had 40
    found = world.give(Serving(3).windows(100, shifted("feature.age", 20.0), first=300, version="3"))
    assert [(one.field, one.reference, one.cause) for one in found] == [("feature.age", "incumbent", "new_version")]


def test_a_lasting_difference_is_taken_for_good_and_told_once() -> None:
    world = Trained()
    world.learn(event({"features": TRAINED}))
    found = world.give(Serving(1).windows(4_000, shifted("feature.age", 10.0)))
    assert [(one.field, one.state) for one in found] == [("feature.age", "drifted")]
    found = world.give(Serving(2).windows(100, shifted("feature.age", 25.0), first=4_000))
    assert [(one.field, one.reference) for one in found] == [("feature.age", "stable_window")]
    assert found[0].before == pytest.approx(50.0, abs=1.0)


def test_windows_that_are_alike_in_themselves_do_not_look_like_drift() -> None:
    """What comes in a window is alike (one batch job after another): single rows at training do not show that."""
    rng, world = np.random.default_rng(4), Trained()
    world.learn(event({"features": {"age": {"mean": 40.0, "sd": 10.0}}}))
    levels = np.repeat(rng.normal(0.0, 4.0, 300), 2)
    found = world.give([window(second, {"feature.age": summary(rng.normal(40.0 + by, 9.2, 15))}, 15)
                        for second, by in enumerate(levels.tolist())])
    assert found == []


# -- when it comes -----------------------------------------------------------------------------------


def test_a_profile_that_comes_late_counts_from_then_on() -> None:
    world, windows = Trained(), Serving(1).windows(300, shifted("feature.age", 10.0))
    assert world.give(windows[:150]) == []
    world.learn(event({"features": TRAINED}))
    found = world.give(windows[150:])
    assert [(one.field, one.reference) for one in found] == [("feature.age", "profile")]
    assert found[0].onset_ms >= ORIGIN_MS + 149_000


def test_a_drift_under_way_ends_against_a_profile_that_comes_late() -> None:
    world = Trained()
    found = world.give(Serving(1).windows(200, shifted("feature.age", 20.0, 120)))
    assert [one.field for one in found] == ["feature.age"]
    world.learn(event({"features": {"age": {"mean": 60.0, "sd": 10.0}}}))
    found = world.give(Serving(2).windows(100, shifted("feature.age", 20.0), first=200))
    assert [(one.state, one.field, one.reference) for one in found] == [("recovered", "feature.age", "profile")]


def log() -> list[WindowRecord | LifecycleEvent]:
    """Windows of two versions, with profiles that come early, late, again, and amid a drift."""
    def disturb(second: int, values: dict[str, Any]) -> None:
        if second >= 90:
            values["feature.age"] = values["feature.age"] + 15.0
        if second >= 160:
            values["feature.balance"] = values["feature.balance"] * 40.0
            values["confidence"] = values["confidence"] * 0.7
            values["feature.new"] = np.where(np.arange(15) < 9, 1.0, 0.0)
    one, two = Serving(1).windows(230, disturb), Serving(2).windows(170, disturb, first=230, version="2")
    profile = {"features": TRAINED | {"balance": {"quantiles": [[0.01, 4.0], [0.5, 403.0], [0.99, 42_000.0]]},
                                      "new": {"mean": 0.1, "sd": 0.3}},
               "prediction": {"classes": {"yes": 1, "no": 1, "maybe": 0.5}}}
    return [event(profile), *one[:101], event({"features": {"level": {"mean": 1_003.0, "sd": 1.0}}}, ts=2), *one[101:],
            event(profile, version="2", ts=3), *two]


def play(messages: list[Any], cut: random.Random | None) -> list[DriftEvent]:
    """The log in the order of its reading, cut anywhere and restarted at each cut."""
    world, found = Trained(), []
    at = 0
    while at < len(messages):
        if isinstance(messages[at], LifecycleEvent):
            world.learn(messages[at])
            at += 1
        size = cut.choice([1, 7, 30, 100]) if cut else len(messages)
        part = []
        while at < len(messages) and len(part) < size and not isinstance(messages[at], LifecycleEvent):
            part.append(messages[at])
            at += 1
        found += world.give(part)
        if cut:
            world.restart()
    return found


def test_restarts_and_batches_change_nothing() -> None:
    messages = log()
    whole = play(messages, None)
    assert {one.reference for one in whole} >= {"profile", "stable_window"}
    assert len(whole) >= 5
    for seed in range(3):
        assert play(messages, random.Random(seed)) == whole


def test_windows_that_are_read_again_after_a_crash_meet_the_profile_that_they_met_before() -> None:
    world, windows = Trained(), Serving(1).windows(240, shifted("feature.age", 10.0))
    world.learn(event({"features": {"level": {"mean": 1000.0, "sd": 1.0}}}))
    world.give(windows[:60])
    world.restart()
    before, offset = dict(world.states.snapshots), world.offset
    first = world.give(windows[60:150])
    world.learn(event({"features": TRAINED}, ts=2))
    first += world.give(windows[150:])
    world.states = KeyedStates("drift", 0, world.engine.codec, before)      # the profile is kept, the windows are not
    world.offset = offset
    assert first
    assert world.give(windows[60:]) == first


def test_a_profile_again_or_an_older_one_is_no_news_and_versions_are_bounded() -> None:
    world = Trained()
    assert world.learn(event({"features": TRAINED}, ts=5), event({"features": TRAINED}, ts=5)) == 1
    assert world.learn(event({"features": TRAINED}, ts=4)) == 0
    for number in range(3 * MOST_VERSIONS):
        world.learn(event({"features": TRAINED}, version=f"v{number}", ts=10 + number))
        world.restart()
    state = next(iter(world.kept.snapshots))
    assert len(world.kept.entry(state).state) == MOST_VERSIONS
    profiles = Profiles(world.kept)
    assert profiles.of(state, f"v{3 * MOST_VERSIONS - 1}", world.offset) is not None
    assert profiles.of(state, "v0", world.offset) is None
    assert profiles.of(state, f"v{3 * MOST_VERSIONS - 1}", world.offset - 1) is None


def test_a_row_of_before_there_were_profiles_is_read() -> None:
    world = World()
    world.give(Serving(1).windows(100))
    entry = world.states.entry(next(iter(world.states.keys())))
    data = world.engine.codec.encode(entry.key, entry.state)
    versions, *rest = msgspec.msgpack.decode(data)
    old = {name: [*fields[:3], [[*key, state[:-1]] for *key, state in fields[3]]] for name, fields in versions.items()}
    again = Codec(DriftOptions()).decode(entry.key, msgspec.msgpack.encode([old, *rest]))
    assert again.versions["1"].profiled == ""
    assert Codec(DriftOptions()).encode(entry.key, again) == data
