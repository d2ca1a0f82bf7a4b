"""What a drift event says besides that something moved: why, since when, what else, where, and what it may cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drift_world import ORIGIN_MS, Serving, World, classes, summary, window

from agents.drift.options import DriftOptions
from agents.drift.performance import PerformanceEngine
from schemas.drift import DriftEvent
from schemas.telemetry import Feedback

ONSET_S = 120
Values = dict[str, Any]
Disturb = Callable[[Values], None]


def from_onset(disturb: Disturb, until_s: int = 1_000_000) -> Callable[[int, Values], None]:
    def at(second: int, values: Values) -> None:
        if ONSET_S <= second < until_s:
            disturb(values)
    return at


def first(events: list[DriftEvent], field: str) -> DriftEvent:
    return next(event for event in events if event.field == field and event.state == "drifted")


def told(disturb: Disturb, field: str, seed: int = 1, seconds: int = 40) -> DriftEvent:
    return first(World().give(Serving(seed).windows(ONSET_S + seconds, from_onset(disturb))), field)


def times(name: str, factor: float) -> Disturb:
    def disturb(values: Values) -> None:
        values[name] = values[name] * factor
    return disturb


def plus(name: str, by: float) -> Disturb:
    def disturb(values: Values) -> None:
        values[name] = values[name] + by
    return disturb


def equal_to(name: str, value: float) -> Disturb:
    def disturb(values: Values) -> None:
        values[name] = np.full(len(values[name]), value)
    return disturb


VERDICTS = [
    pytest.param(times("feature.age", 1_000), "feature.age", "data_quality", "unit_change", id="kilo"),
    pytest.param(times("feature.age", 0.01), "feature.age", "data_quality", "unit_change", id="percent"),
    pytest.param(times("feature.balance", 1_000), "feature.balance", "data_quality", "unit_change", id="a skewed one"),
    pytest.param(equal_to("feature.age", np.nan), "feature.age", "data_quality", "null_column", id="nulls"),
    pytest.param(lambda values: values.pop("feature.age"), "feature.age", "data_quality", "null_column", id="gone"),
    pytest.param(equal_to("feature.age", 60.0), "feature.age", "data_quality", "constant_column", id="stuck"),
    pytest.param(plus("feature.age", 10.0), "feature.age", "real_change", None, id="a shift of one sd"),
    pytest.param(plus("feature.age", 25.0), "feature.age", "real_change", None, id="a shift of 2.5 sd"),
    pytest.param(times("feature.balance", 5.0), "feature.balance", "real_change", None, id="five times as much"),
    pytest.param(times("confidence", 0.7), "confidence", "real_change", None, id="confidence"),
    pytest.param(times("latency_ms", 4.0), "latency_ms", "operational", None, id="latency"),
]


@pytest.mark.parametrize(("disturb", "field", "cause", "breakage"), VERDICTS)
def test_the_verdict_tells_a_broken_feed_from_a_real_change(disturb: Disturb, field: str, cause: str,
                                                            breakage: str | None) -> None:
    for seed in (1, 2, 3):
        event = told(disturb, field, seed, 60)
        assert (event.cause, event.breakage) == (cause, breakage)
        assert event.broken_field == (field if breakage else None)


def test_text_for_numbers_is_a_broken_schema() -> None:
    def windows() -> Any:
        for given in Serving(1).windows(ONSET_S + 40):
            if given.start_ms >= ORIGIN_MS + ONSET_S * 1000:
                kept = {name: value for name, value in given.fields.items() if name != "feature.age"}
                given = window(0, kept | classes("feature.age", ["forty"] * given.count), given.count, given.errors,
                               start_ms=given.start_ms)
            yield given
    event = first(World().give(list(windows())), "feature.age=forty")
    assert (event.cause, event.breakage, event.broken_field) == ("data_quality", "schema", "feature.age")


def test_what_follows_from_a_broken_feature_is_laid_to_it_and_after_it_is_mended_no_longer() -> None:
    def disturb(second: int, values: Values) -> None:
        if ONSET_S <= second < ONSET_S + 60:
            values["feature.age"] = values["feature.age"] * 1_000
        if ONSET_S + 20 <= second < ONSET_S + 80 or second >= ONSET_S + 400:
            values["confidence"] = values["confidence"] * 0.7
    found = [event for event in World().give(Serving(2).windows(ONSET_S + 440, disturb))
             if event.field == "confidence" and event.state == "drifted"]
    assert [(event.cause, event.broken_field) for event in found] == [("data_quality", "feature.age"),
                                                                       ("real_change", None)]


def test_a_new_version_that_differs_is_told_as_that() -> None:
    def other(second: int, values: Values) -> None:
        values["prediction"] = np.where(np.random.default_rng(second).random(15) < 0.9, "yes", "no")
    windows = [*Serving(1).windows(200), *Serving(2).windows(60, other, first=200, version="2")]
    assert first(World().give(windows), "prediction=yes").cause == "new_version"


def test_what_moved_is_ranked_with_its_share() -> None:
    def disturb(values: Values) -> None:
        values["feature.age"] = values["feature.age"] + 30
        values["feature.level"] = values["feature.level"] + 1
    events = World().give(Serving(3).windows(ONSET_S + 40, from_onset(disturb)))
    event = [event for event in events if event.state == "drifted"][-1]
    assert [moved.field for moved in event.ranked][:2] == ["feature.age", "feature.level"]
    shares = [moved.share for moved in event.ranked]
    assert shares[0] > 0.6 and sum(shares) == pytest.approx(1.0) and shares == sorted(shares, reverse=True)
    assert event.ranked[0].before == pytest.approx(40, abs=3)
    assert event.ranked[0].after == pytest.approx(70, abs=5)


def test_the_onset_lies_within_its_interval() -> None:
    """At nine changes of ten; and the interval is no longer than what was looked at."""
    inside, lengths = 0, []
    for seed in range(20):
        event = told(plus("feature.age", 8.0), "feature.age", 100 + seed)
        assert event.onset_low_ms is not None and event.onset_high_ms is not None
        assert event.onset_low_ms <= event.onset_ms <= event.onset_high_ms <= event.detected_ms
        inside += event.onset_low_ms <= ORIGIN_MS + ONSET_S * 1000 <= event.onset_high_ms
        lengths.append(event.onset_high_ms - event.onset_low_ms)
    assert inside >= 18
    assert np.median(lengths) <= 12_000


def test_sketches_before_and_after_and_their_distances() -> None:
    event = told(plus("feature.age", 20.0), "feature.age")
    assert sum(count for _, count in event.before_sketch) >= 300
    assert len(event.before_sketch) <= 48 and event.after_sketch
    assert event.distances["ks"] > 0.5 and event.distances["psi"] > 1
    assert event.distances["wasserstein"] == pytest.approx(20, abs=4)
    assert 0 < event.distances["jensen_shannon"] <= 1
    assert event.agreeing[0] == event.detector == "cusum"
    assert {"kolmogorov_smirnov", "psi"} <= set(event.agreeing)


def test_the_error_to_expect_follows_confidence() -> None:
    def disturb(values: Values) -> None:
        values["feature.age"] = values["feature.age"] + 30
        values["confidence"] = values["confidence"] * 0.6
    event = World().give(Serving(4).windows(ONSET_S + 40, from_onset(disturb)))[-1]
    assert event.expected_error_before == pytest.approx(0.2, abs=0.03)
    assert event.expected_error_after == pytest.approx(0.52, abs=0.08)


def labels(n: int, wrong: Callable[[int, str], float], seed: int = 1) -> list[Feedback]:
    rng = random.Random(seed)
    found = []
    for i in range(n):
        region = rng.choice(["north", "south", "west"])
        right = rng.random() >= wrong(i, region)
        found.append(Feedback(event_id=f"e{i}", ts=ORIGIN_MS + i * 500, environment="prod", model="m", version="1",
                              prediction="yes", label="yes" if right else "no", segment={"region": region}))
    return found


def test_a_drift_of_one_segment_is_told_as_its_own() -> None:
    found = World(PerformanceEngine()).give(
        labels(4_000, lambda i, region: 0.9 if i >= 3_000 and region == "north" else 0.1))
    assert found[0].segment == {"region": "north"} or found[1].segment == {"region": "north"}
    assert {event.cause for event in found if event.state == "drifted"} == {"real_change"}
    assert all(event.field != "error[region=south]" for event in found)


def test_a_drift_everywhere_has_no_segment() -> None:
    found = World(PerformanceEngine()).give(labels(4_000, lambda i, region: 0.5 if i >= 3_000 else 0.1))
    assert found and found[-1].segment == {}


def test_a_rise_too_small_for_a_point_is_found_and_its_end_too() -> None:
    found = World(PerformanceEngine()).give(labels(16_000, lambda i, region: 0.16 if 5_000 <= i < 9_000 else 0.1))
    event = next(event for event in found if event.field == "error")
    assert (event.detector, event.state) == ("likelihood", "drifted")
    assert event.after - event.before == pytest.approx(0.06, abs=0.03)
    assert ORIGIN_MS + 4_600 * 500 <= event.onset_ms <= ORIGIN_MS + 6_500 * 500
    assert [one.state for one in found if one.field == "error"] == ["drifted", "recovered"]


def test_a_summary_without_a_sketch_is_no_harm() -> None:
    def bare(given: Any) -> Any:
        fields = {"feature.age": summary(np.full(given.count, given.fields["feature.age"].mean), sketched=False)}
        return window(0, fields, given.count, start_ms=given.start_ms)
    windows = [bare(given) for given in Serving(5).windows(ONSET_S + 40, from_onset(plus("feature.age", 30.0)))]
    event = first(World().give(windows), "feature.age")
    assert (event.before_sketch, event.distances) == ([], {})


@pytest.mark.parametrize("key", ["\x1f", "\x1fa", "a\x1fb", "=", "[", "k" * 128])
def test_odd_names_of_segments_stop_nothing(key: str) -> None:
    rng, given = random.Random(2), []
    for i in range(3_000):
        wrong = rng.random() < (0.9 if i >= 2_000 else 0.1)
        given.append(Feedback(event_id=f"e{i}", ts=ORIGIN_MS + i * 500, environment="prod", model="m", version="1",
                              prediction="yes", label="no" if wrong else "yes",
                              segment={key: rng.choice(["v" * 128, "\x1f" * 128, "w"])}))
    assert World(PerformanceEngine()).give(given)


def test_a_version_whose_slice_made_room_for_another_stops_nothing() -> None:
    options = DriftOptions(most_slices=2, most_values=2)
    rng, given = random.Random(3), []
    for i in range(3_000):
        given.append(Feedback(event_id=f"e{i}", ts=ORIGIN_MS, environment="prod", model="m", version=rng.choice("12"),
                              prediction="yes", label="no" if i >= 2_000 else "yes",
                              segment={"region": rng.choice(["n", "s"]), "plan": rng.choice("abc")}))
    World(PerformanceEngine(options)).give(given)
