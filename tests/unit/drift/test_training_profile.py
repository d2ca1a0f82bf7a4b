"""A version's profile from training: a version that serves otherwise than it was trained is told of, from its start."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from drift_world import ORIGIN_MS, Serving, World, classes, moved, summary, window
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.drift.component import Codec
from agents.drift.options import DriftOptions, Statistic
from agents.drift.profiles import MOST_STATISTICS, MOST_VERSIONS, Body, Known, Profiles, body_of
from agents.drift.profiles import Codec as ProfilesCodec
from schemas.alerts import LifecycleEvent
from schemas.drift import DriftEvent
from schemas.profiles import FieldProfile, Profile
from streams.batch import Limits, decode_lifecycle
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates
from streams.wire import WireRecord
from streams.windows.record import WindowRecord

UNIT = "\x1f"
TRAINED = {"age": {"mean": 40.0, "sd": 10.0}, "flag": {"mean": 0.2, "sd": 0.4}, "level": {"mean": 1000.0, "sd": 1.0}}


def event(profile: dict[str, Any], version: str = "1", ts: int = 1, **more: Any) -> LifecycleEvent:
    """As a producer sends it."""
    return LifecycleEvent.model_validate_json(json.dumps({
        "lifecycle_id": f"p{ts}", "ts": ts, "environment": "prod", "model": "m", "version": version,
        "action": "registered", "profile": {"rows": 50_000, **profile}} | more))


class Trained(World):
    """An engine beside the profiles of its partition, with snapshots of both."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: KeyedStates[Any] = KeyedStates("drift.profiles", 0, ProfilesCodec(), {})
        self.told = 0

    def learn(self, *events: LifecycleEvent) -> int:
        """Profiles that come now, at the next offsets of their topic."""
        batch = [(self.told + i, one) for i, one in enumerate(events)]
        self.told += len(events)
        profiles = Profiles(self.kept)
        return profiles.take(profiles.new(batch, "lifecycle-events"), "lifecycle-events", self.offset)

    def give(self, messages: Any) -> list[DriftEvent]:
        batch = [(self.offset + i, message) for i, message in enumerate(messages)]
        self.offset += len(batch)
        return list(self.engine.run(batch, self.states, "metrics", 0, Profiles(self.kept)))

    def restart(self) -> None:
        super().restart()
        self.kept.written(self.kept.freeze(1))
        self.kept = KeyedStates("drift.profiles", 0, ProfilesCodec(), dict(self.kept.snapshots))


def shifted(name: str, by: float, from_s: int = 0) -> Any:
    def disturb(second: int, values: dict[str, Any]) -> None:
        if second >= from_s:
            values[name] = values[name] + by
    return disturb


def known(body: Body, *statistic: str) -> Known:
    found = body.find((statistic[0], statistic[1]))
    assert found is not None
    return found


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


# -- what is let in ----------------------------------------------------------------------------------

DRAWN = np.random.default_rng(7).lognormal(3.0, 0.6, 50_000)


def test_every_way_to_say_a_distribution_says_the_same() -> None:
    shares = [0.0, *np.linspace(0.005, 0.995, 60).tolist(), 0.999, 0.9999, 1.0]
    counts, edges = np.histogram(DRAWN, bins=250)
    exact = {"mean": float(DRAWN.mean()), "sd": float(DRAWN.std())}
    ways = [{"quantiles": [[share, float(np.quantile(DRAWN, share))] for share in shares]},
            {"histogram": {"edges": edges.tolist(), "counts": [float(count) for count in counts]}},
            exact | {"sketch": summary(DRAWN).sketch}]
    wanted = None
    for way in ways:
        for more in ({}, exact):
            body = body_of(event({"features": {"x": way | more}}).profile)      # type: ignore[arg-type]
            found = known(body, "feature.x", "mean")
            log = np.log(DRAWN)
            assert found.reference.raw_mean == pytest.approx(exact["mean"], rel=0.03)
            assert found.reference.raw_spread == pytest.approx(exact["sd"], rel=0.06)
            if found.reference.log:
                assert found.reference.mean == pytest.approx(log.mean(), abs=0.03)
                assert found.reference.spread == pytest.approx(log.std(), rel=0.06)
            assert sum(count for _, count in found.sketch) == pytest.approx(50_000, rel=0.001)
            wanted = wanted or found.reference.log
            assert found.reference.log == wanted


def test_a_distribution_that_is_narrower_than_a_bucket_has_its_own_mean_and_spread() -> None:
    """Buckets are 1% wide: of 1,000 +- 1 they know next to nothing."""
    values = np.random.default_rng(2).normal(1_000.0, 1.0, 20_000)
    quantiles = [[share, float(np.quantile(values, share))] for share in np.linspace(0.0, 1.0, 101).tolist()]
    world = Trained()
    world.learn(event({"features": {"level": {"quantiles": quantiles}}}))
    assert world.give(Serving(1).windows(400)) == []
    assert moved(world.give(Serving(2).windows(60, shifted("feature.level", 1.0), first=400))) == {
        ("feature.level", "mean")}


BAD: list[tuple[Any, str, str]] = [
    ({}, "", "an empty profile"),
    ({"rows": 0, "features": TRAINED}, "rows", "greater than or equal to 1"),
    ({"features": {"a": {}}}, "features.a", "say what its values are"),
    ({"features": {"a": {"mean": 1.0}}}, "features.a", "need both mean and sd"),
    ({"features": {"a": {"mean": 1.0, "sd": -1.0}}}, "features.a.sd", "greater than or equal to 0"),
    ({"features": {"a": {"mean": 1.0, "sd": 1.0, "classes": {"b": 1}}}}, "features.a", "numbers or classes"),
    ({"features": {"a": {"mean": 1.0, "sd": 1.0, "missing_share": 1.5}}}, "features.a.missing_share", "less than or"),
    ({"features": {"a": {"classes": {"b": 0.0}}}}, "features.a", "all shares are 0"),
    ({"features": {"a": {"classes": {f"c{i}": 1 for i in range(257)}}}}, "features.a.classes", "at most 256"),
    ({"features": {"a": {"quantiles": [[0.5, 1.0]]}}}, "features.a", "two at least"),
    ({"features": {"a": {"quantiles": [[0.5, 1.0], [0.4, 2.0]]}}}, "features.a", "ascend"),
    ({"features": {"a": {"quantiles": [[0.1, 1.0], [0.4, 0.5]]}}}, "features.a", "ascend"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 1.0], "counts": [1.0, 2.0]}}}}, "features.a.histogram", "edges"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 0.0], "counts": [1.0]}}}}, "features.a.histogram", "ascend"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 1.0], "counts": [0.0]}}}}, "features.a.histogram", "all its"),
    ({"features": {"a": {"mean": 1, "sd": 1, "sketch": [[5, 1], [5, 1]]}}}, "features.a", "ascend, each once"),
    ({"features": {"a": {"sketch": [[5, 1]]}}}, "features.a", "comes with mean and sd"),
    ({"features": {"a": {"sketch": [[10**9, 1]]}}}, "features.a.sketch", "less than or equal"),
    ({"features": {"a": {"sketch": [[1, 1]] * 1_025}}}, "features.a.sketch", "at most 1024"),
    ({"features": {f"f{i}": {"mean": 1.0, "sd": 1.0} for i in range(257)}}, "features", "at most 256"),
    ({"features": [1]}, "features", "object"),
    ({"prediction": {"mean": float("nan"), "sd": 1.0}}, "prediction.mean", "finite"),
    ({"rows": 10**30, "features": TRAINED}, "rows", "less than or equal"),
]


@pytest.mark.parametrize(("profile", "field", "message"), BAD)
def test_a_profile_that_breaks_the_contract_is_kept_with_its_reason(profile: Any, field: str, message: str) -> None:
    good = event({"features": TRAINED}).model_dump(mode="json")
    bad = json.dumps(good | {"profile": {"rows": 50, **profile}}).encode()
    records = [WireRecord(at, 0, b"m", value) for at, value in enumerate([json.dumps(good).encode(), bad, b"", b"{"])]
    found = decode_lifecycle(RecordBatch("lifecycle-events", 0, records), Limits())
    assert [offset for offset, _ in found.events] == [0]
    assert [record.offset for record in found.rejected] == [1, 2, 3]
    assert found.rejected[0].field.startswith(f"profile.{field}".rstrip("."))
    assert message in found.rejected[0].message
    assert found.rejected[0].payload_size_bytes == len(bad)


NUMBER = st.floats(allow_nan=False, allow_infinity=False)
FIELD = st.one_of(
    st.builds(lambda mean, sd: {"mean": mean, "sd": abs(sd)}, NUMBER, NUMBER),
    st.builds(lambda values: {"quantiles": [[i / len(values), value] for i, value in enumerate(sorted(values))]},
              st.lists(NUMBER, min_size=2, max_size=9)),
    st.builds(lambda edges, count: {"histogram": {"edges": sorted(edges), "counts": [count] * (len(edges) - 1)}},
              st.lists(NUMBER, min_size=2, max_size=9, unique=True), st.floats(1e-300, 1e12)),
    st.builds(lambda codes: {"mean": 1.0, "sd": 2.0, "sketch": [[code, 10**12] for code in sorted(codes)]},
              st.lists(st.integers(-131_000, 131_000), min_size=1, max_size=9, unique=True)),
    st.builds(lambda classes, share: {"classes": classes, "missing_share": share},
              st.dictionaries(st.text(max_size=9), st.floats(0, 1e12), min_size=1, max_size=40), st.floats(0, 1)))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=12), FIELD, min_size=1, max_size=3), st.integers(1, 10**12))
def test_whatever_the_contract_lets_in_serves_as_a_reference(features: dict[str, Any], rows: int) -> None:
    try:
        profile = Profile.model_validate_json(json.dumps({"rows": rows, "features": features}))
    except ValidationError:
        return
    body = body_of(profile)
    for found in body.known.values():
        assert all(math.isfinite(value) for value in msgspec.structs.astuple(found.reference))
        assert found.reference.error(1) > 0.0
        assert len(found.sketch) <= 64
    world = Trained()
    world.learn(event({"rows": rows, "features": features}))
    for second in range(30):        # nothing that comes may raise
        fields = {f"feature.{name}": summary([1.0, -1e308, 1e308, 0.0, math.nan]) for name in features}
        fields |= {f"feature.{name}=x": summary([1.0] * 20) for name in features}
        world.give([window(second, fields, 25)])
        world.restart()


def test_a_wide_profile_is_kept_as_far_as_there_is_room() -> None:
    wide = {f"f{i}": {"classes": {f"c{j}" + "x" * 100: 1 for j in range(256)}} for i in range(250)}
    wide["narrow"] = {"mean": 1.0, "sd": 1.0}       # type: ignore[assignment, dict-item]
    profile = Profile(rows=5, features={name: FieldProfile.model_validate(field) for name, field in wide.items()})
    body = body_of(profile)
    assert MOST_STATISTICS - 40 < len(body.known) <= MOST_STATISTICS
    assert len(msgspec.msgpack.encode(body)) < 1_000_000
    unseen: Statistic = ("feature.f0=never", "rate")
    assert known(body, *unseen).reference.mean == 0.0
