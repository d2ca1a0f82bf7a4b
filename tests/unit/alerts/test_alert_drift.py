"""Drift events into incidents."""

import pytest
from alert_world import ORIGIN_MS, World, drift, window

from agents.alerts.engine import AlertOptions
from agents.alerts.incident import REMEMBERED_MS
from agents.alerts.options import MAX_EVIDENCE, MAX_SIGNALS
from schemas.drift import Moved


def test_fields_of_one_family_are_one_incident_that_ends_when_all_have_recovered() -> None:
    world = World()
    opened, *rest = world.feed(drift(50), drift(51, "feature.income"), drift(52, "prediction", kind="prediction"))
    assert rest == []
    assert (opened.state, opened.cause, opened.field, opened.severity) == ("open", "drift", "feature.tenure", "warning")
    assert opened.title == "prod/churn: feature tenure rose from 12 to 12000"
    assert (opened.onset_ms, opened.ts) == (ORIGIN_MS + 40_000, ORIGIN_MS + 50_000)
    assert world.feed(drift(80, state="recovered"), drift(81, "feature.income", "recovered")) == []
    [resolved] = world.feed(drift(90, "prediction", "recovered", kind="prediction"))
    assert (resolved.state, resolved.incident_id) == ("resolved", opened.incident_id)
    assert resolved.evidence_total == 3


@pytest.mark.parametrize(("kind", "field", "family", "cause"), [
    ("data", "feature.x", "data", "drift"), ("prediction", "prediction=yes", "data", "drift"),
    ("operational", "latency_ms", "latency", "latency"), ("operational", "error_rate", "errors", "error_rate"),
    ("operational", "confidence", "data", "drift"), ("performance", "error", "performance", "performance"),
    ("performance", "error_rate", "performance", "performance"),
])
def test_each_field_has_its_family(kind: str, field: str, family: str, cause: str) -> None:
    [alert] = World().feed(drift(50, field, kind=kind))
    assert f"-{family}-" in alert.incident_id
    assert alert.cause == cause


@pytest.mark.parametrize(("kind", "field"), [("operational", "latency_ms"), ("operational", "error_rate"),
                                             ("performance", "error")])
def test_a_fall_of_latency_or_errors_opens_nothing_and_ends_the_rise_before_it(kind: str, field: str) -> None:
    world = World()
    assert world.feed(drift(50, field, kind=kind, before=40.0, after=10.0)) == []
    [opened] = world.feed(drift(60, field, kind=kind, before=10.0, after=40.0))
    [resolved] = world.feed(drift(90, field, kind=kind, before=40.0, after=10.0))
    assert (opened.state, resolved.state) == ("open", "resolved")


def test_latency_that_rose_by_next_to_nothing_opens_nothing() -> None:
    world = World(AlertOptions(latency_excess_ms=2.0))
    assert world.feed(drift(50, "latency_ms", kind="operational", before=0.2, after=1.9)) == []
    assert len(world.feed(drift(60, "latency_ms", kind="operational", before=0.2, after=2.3))) == 1


def test_unusual_events_and_drift_of_the_same_component_are_one_incident() -> None:
    world = World()
    world.calm(0, 60)
    for second in range(60, 63):
        world.feed(*world.odd(second, 12), window(second))
    assert world.feed(drift(63), *world.odd(63, 1)) == []
    assert len(world.model().slots) == 1
    assert world.calm(63, 100) == [], "the rate is calm, the drift is not over"
    [resolved] = world.feed(drift(100, state="recovered"))
    assert resolved.cause == "anomaly_rate"
    assert {clue.kind for clue in resolved.evidence} == {"anomaly", "drift"}


def test_critical_drift_escalates_a_warning_once() -> None:
    world = World()
    world.feed(drift(50))
    assert [alert.state for alert in world.feed(drift(51, "feature.b", severity="critical"))] == ["escalated"]
    assert world.feed(drift(52, "feature.c", severity="critical")) == []


def test_drift_that_never_recovers_is_accepted_after_an_hour() -> None:
    world = World()
    world.feed(drift(50))
    assert world.feed(*(window(second) for second in range(60, 3_600, 60))) == []
    [resolved] = world.feed(*(window(second) for second in range(3_600, 3_780, 60)))
    assert "accepted as the new level" in resolved.title
    assert world.feed(drift(3_800, state="recovered")) == []


def test_a_repeated_drift_event_is_dropped() -> None:
    world = World()
    world.feed(drift(50), drift(60, state="recovered"))
    assert world.feed(drift(50)) == []
    assert world.model().slots != {}, "only the cooldown is left"
    assert all(not slot.signals for slot in world.model().slots.values())


def test_drift_within_the_cooldown_is_told_when_it_is_over_if_it_still_lasts() -> None:
    world = World(AlertOptions(cooldown_ms=60_000))
    world.feed(drift(50), drift(60, state="recovered"))
    assert world.feed(drift(70, "feature.b"), *(window(second) for second in range(70, 119))) == []
    [again] = world.feed(window(119))
    assert (again.state, again.field) == ("open", "feature.b")
    assert again.onset_ms == ORIGIN_MS + 60_000


def test_drift_from_before_the_end_of_an_incident_that_comes_after_it_is_none_of_its_own() -> None:
    world = World(AlertOptions(cooldown_ms=60_000))
    world.calm(0, 60)
    assert [alert.state for alert in world.feed(*world.odd(60, 20), window(60))] == ["open"]
    [over] = world.calm(61, 120)
    assert over.state == "resolved"
    late = drift(65, severity="critical")
    assert world.feed(late) == []
    assert world.calm(120, 500) == []
    assert world.feed(drift(95, state="recovered")) == []
    assert world.calm(500, 900) == []


def test_drift_that_came_late_and_lasts_is_told_in_the_end() -> None:
    world = World(AlertOptions(cooldown_ms=60_000))
    world.calm(0, 60)
    world.feed(*world.odd(60, 20), window(60))
    [over] = world.calm(61, 120)
    world.feed(drift(65))
    end_s = (over.ts - ORIGIN_MS + REMEMBERED_MS) // 1_000
    assert world.calm(120, end_s - 2) == []
    [told] = world.calm(end_s - 2, end_s + 3)
    assert (told.state, told.cause, told.onset_ms) == ("open", "drift", ORIGIN_MS + 55_000)


def test_what_is_kept_of_a_wide_drift_is_bounded_and_all_of_it_is_counted() -> None:
    world = World()
    world.feed(*(drift(50, f"feature.f{number}") for number in range(200)))
    [slot] = world.model().slots.values()
    assert len(slot.signals) == MAX_SIGNALS
    assert slot.incident is not None
    assert (len(slot.incident.evidence), slot.incident.evidence_total) == (MAX_EVIDENCE, 200)


def test_a_recovery_ends_its_own_statistic_first_and_another_if_there_is_no_such() -> None:
    world = World()
    world.feed(drift(50), drift(51, statistic="missing_share"))
    assert world.feed(drift(60, state="recovered", statistic="missing_share")) == []
    [alert] = world.feed(drift(61, state="recovered", statistic="missing_share"))
    assert alert.state == "resolved"


def test_versions_accumulate() -> None:
    world = World()
    world.feed(drift(50, versions=["1", "2"]), drift(51, "feature.b", version="3"))
    world.feed(drift(60, state="recovered"))
    [resolved] = world.feed(drift(61, "feature.b", "recovered", version="3"))
    assert resolved.versions == ["1", "2", "3"]


@pytest.mark.parametrize(("more", "said"), [
    ({"field": "feature.x", "statistic": "missing_share", "before": 0.01, "after": 0.62},
     "feature x missing in 62% of events (was 1%)"),
    ({"field": "prediction=spam", "kind": "prediction", "statistic": "rate", "before": 0.125, "after": 0.4},
     "prediction is spam in 40% of events (was 12%)"),
    ({"field": "error", "kind": "performance", "statistic": "rate", "before": 0.081, "after": 0.4},
     "40% of predictions are wrong (was 8.1%)"),
    ({"field": "latency_ms", "kind": "operational", "before": 2.125, "after": 12.0},
     "latency rose from 2.125 to 12 ms"),
    ({"field": "error_rate", "kind": "operational", "statistic": "rate", "before": 0.0, "after": 0.3},
     "error rate at 30% (was 0%)"),
])
def test_titles_say_what_moved(more: dict[str, object], said: str) -> None:
    [alert] = World().feed(drift(50, **more))  # type: ignore[arg-type]
    assert alert.title == f"prod/churn: {said}"


def test_the_longest_names_still_fit_into_an_alert() -> None:
    long = "x" * 128
    world = World()
    about = {"environment": long, "model": long, "component": long, "version": long}
    world.feed(window(1, **about), window(1, **(about | {"version": "2"})))  # type: ignore[arg-type]
    [alert] = world.feed(drift(50, "f" * 128, **about))
    assert len(alert.title) == 512


@pytest.mark.parametrize(("broken", "says"), [("unit_change", "its unit changed"), ("null_column", "no longer filled"),
                                              ("schema", "text where it was a number"), (None, "is broken.")])
def test_a_broken_feed_is_told_to_its_owner_and_not_to_who_retrains(broken: str | None, says: str) -> None:
    [alert] = World().feed(drift(50, "prediction=yes", kind="prediction", cause="data_quality", breakage=broken,
                                 broken_field="feature.tenure"))
    assert "The feed of feature tenure" in alert.detail and says in alert.detail
    assert "for the owner of that feed" in alert.detail
    [other] = World().feed(drift(50, cause="real_change"))
    assert "owner" not in other.detail


def test_features_that_part_are_named() -> None:
    pair = Moved(field="feature.age ~ feature.tenure", before=0.72, after=-0.04, share=0.9)
    [opened] = World().feed(drift(100, "features", ranked=[pair], detector="mmd"))
    assert "feature age and feature tenure do not go together as they did (correlation -0.04, was 0.72)" in opened.title
    [opened] = World().feed(drift(100, "features", detector="mmd"))
    assert "features do not go together as they did" in opened.title


def test_confidence_that_is_not_earned_opens_an_incident_that_says_so() -> None:
    [opened] = World().feed(drift(100, "calibration", kind="performance", before=-0.01, after=-0.18))
    assert opened.cause == "performance"
    assert "right 18% less often than their confidence says (was 1% less)" in opened.title


def test_traffic_is_told_by_the_minute() -> None:
    [opened] = World().feed(drift(100, "traffic", kind="operational", before=180.0, after=50.0))
    assert opened.title == "prod/churn: traffic fell from 180 to 50 events a minute"
