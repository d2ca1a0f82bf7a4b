"""The rules on rates: unusual events and errors."""

import pytest
from alert_world import ORIGIN_MS, World, window

from agents.alerts.engine import AlertOptions
from agents.alerts.options import SURPRISE_NATS
from agents.alerts.rules import surprise_nats
from schemas.alerts import Alert


def odd_seconds(world: World, first: int, last: int, unusual: int, count: int = 20, **values: object) -> list[Alert]:
    """Seconds of `count` events of which `unusual` are anomalies."""
    return [alert for second in range(first, last)
            for alert in world.feed(*world.odd(second, unusual, **values), window(second, count=count))]


def failing_seconds(world: World, first: int, last: int, errors: int, count: int = 20, **values: str) -> list[Alert]:
    return [alert for second in range(first, last)
            for alert in world.feed(window(second, count=count, errors=errors, **values))]


def test_a_high_share_of_unusual_events_opens_an_incident_that_names_the_feature() -> None:
    world = World()
    world.calm(0, 60)
    [alert] = odd_seconds(world, 60, 62, unusual=12)
    assert alert.title == "prod/churn: feature tenure out of range in 60% of events"
    assert (alert.state, alert.cause, alert.severity, alert.field) == (
        "open", "anomaly_rate", "critical", "feature.tenure")
    assert alert.ts == alert.opened_ms == ORIGIN_MS + 61_000
    assert alert.onset_ms == ORIGIN_MS + 60_000
    assert alert.value == pytest.approx(0.6)
    assert alert.threshold == 0.05
    assert alert.evidence_total == 12
    assert {clue.kind for clue in alert.evidence} == {"anomaly"}
    assert alert.published_ms == 0


@pytest.mark.parametrize(("unusual", "count"), [(4, 20), (9, 19), (4, 9)])
def test_too_few_events_or_anomalies_open_nothing(unusual: int, count: int) -> None:
    world = World()
    assert odd_seconds(world, 0, 1, unusual, count) == []


def test_half_of_ten_events_is_enough_once_the_model_is_known() -> None:
    world = World()
    world.calm(0, 60)
    world.calm(200, 201, count=1)
    [alert] = odd_seconds(world, 201, 202, unusual=6, count=10)
    assert alert.severity == "critical"


def test_a_rate_below_the_limit_opens_nothing() -> None:
    assert odd_seconds(World(), 0, 120, unusual=4, count=100) == []


def test_a_slow_burn_above_the_limit_is_found_over_thirty_seconds() -> None:
    world = World()
    world.calm(0, 60, count=20)
    alerts = odd_seconds(world, 60, 90, unusual=2)
    assert [alert.state for alert in alerts] == ["open"]
    assert alerts[0].severity == "warning"


def test_bursts_that_are_usual_for_a_model_are_no_alarm() -> None:
    noisy, quiet = World(), World()
    failing_seconds(noisy, 0, 120, errors=4, count=100)
    failing_seconds(quiet, 0, 120, errors=0, count=100)
    assert failing_seconds(noisy, 120, 121, errors=12, count=100) == [], "5.6% over five seconds, usually 4%"
    assert len(failing_seconds(quiet, 120, 121, errors=28, count=100)) == 1, "5.6% over five seconds, usually none"


def test_surprise_grows_with_events_and_is_zero_at_the_usual_rate() -> None:
    assert surprise_nats(100, 5, 0.05) == 0.0
    assert surprise_nats(20, 6, 0.005) > SURPRISE_NATS > surprise_nats(20, 3, 0.005)
    assert surprise_nats(200, 20, 0.05) == pytest.approx(2 * surprise_nats(100, 10, 0.05))
    assert surprise_nats(10, 12, 0.5) == pytest.approx(10 * 0.6931, rel=1e-3), "more hits than events count as all"


def test_an_anomaly_counts_whether_it_comes_before_or_after_its_window() -> None:
    early, late = World(), World()
    early.calm(0, 30)
    late.calm(0, 30)
    [before] = early.feed(*early.odd(30, 12), window(30))
    assert late.feed(window(30)) == []
    after = late.feed(*late.odd(30, 12))[0]
    assert before.incident_id == after.incident_id
    assert before.opened_ms == after.opened_ms


def test_anomalies_far_behind_their_windows_are_counted_as_stale() -> None:
    world = World()
    world.calm(0, 100)
    assert world.feed(*world.odd(10, 20)) == []
    assert world.model().components["model"].stale == 20


def test_an_incident_resolves_ten_seconds_after_the_rate_fell_and_only_once() -> None:
    world = World()
    world.calm(0, 60)
    odd_seconds(world, 60, 70, unusual=12)
    assert world.calm(70, 83) == [], "the last odd second leaves the five seconds at 75, and calm takes ten more"
    [alert] = world.calm(83, 120)
    assert alert.state == "resolved"
    assert alert.severity == "critical", "severity is kept"
    assert alert.ts == ORIGIN_MS + 85_000
    assert alert.title == "prod/churn: data back to normal after 24 s"


def test_a_rate_between_half_the_limit_and_the_limit_keeps_an_incident_open() -> None:
    world = World()
    world.calm(0, 60, count=100)
    opened = odd_seconds(world, 60, 70, unusual=30, count=100)
    assert [alert.state for alert in opened] == ["open"]
    assert odd_seconds(world, 70, 120, unusual=4, count=100) == []
    assert [alert.state for alert in odd_seconds(world, 120, 150, unusual=1, count=100)] == ["resolved"]


def test_an_incident_that_gets_worse_escalates_once() -> None:
    world = World()
    world.calm(0, 60, count=100)
    states = [alert.state for alert in odd_seconds(world, 60, 70, unusual=20, count=100)]
    assert states == ["open"]
    worse = odd_seconds(world, 70, 110, unusual=90, count=100)
    assert [(alert.state, alert.severity) for alert in worse] == [("escalated", "critical")]
    assert odd_seconds(world, 110, 120, unusual=20, count=100) == []


def test_a_feature_that_is_missing_is_said_to_be_missing() -> None:
    world = World()
    world.calm(0, 30)
    [alert] = odd_seconds(world, 30, 31, unusual=12, value=None)
    assert alert.title == "prod/churn: feature tenure missing in 60% of events"


def test_when_no_feature_dominates_the_title_says_so() -> None:
    world = World()
    world.calm(0, 30)
    [alert] = odd_seconds(world, 30, 31, unusual=12, share=0.2)
    assert alert.title == "prod/churn: 60% of events are unusual (limit 5%), feature tenure most"


def test_a_broken_new_version_is_named_and_the_old_one_is_not() -> None:
    world = World()
    world.calm(0, 60, environment="staging", model="digits", version="2")
    both = [window(second, environment="staging", model="digits", version=version, errors=errors, count=25)
            for second in range(60, 63) for version, errors in (("2", 0), ("3", 12))]
    [alert] = world.feed(*both)
    assert alert.title == "staging/digits v3: 48% of requests fail (limit 5%)"
    assert (alert.version, alert.versions, alert.cause) == ("3", ["3"], "error_rate")
    assert "roll back v3" in alert.detail


def test_a_version_that_is_withdrawn_ends_its_errors() -> None:
    world = World()
    world.calm(0, 60)
    for second in range(60, 70):
        world.feed(window(second), window(second, version="2", errors=10))
    [alert] = world.calm(70, 140)
    assert alert.state == "resolved"
    assert "no more traffic" in alert.title


def test_after_a_pause_of_the_whole_model_no_version_counts_as_withdrawn() -> None:
    world = World()
    world.calm(0, 60)
    for second in range(60, 65):
        world.feed(window(second), window(second, version="2", errors=10))
    assert world.feed(window(500), window(500, version="2", errors=10)) == []


def test_errors_of_few_requests_open_nothing_and_of_enough_do() -> None:
    assert failing_seconds(World(), 0, 1, errors=2, count=20) == []
    assert failing_seconds(World(), 0, 1, errors=15, count=20)[0].severity == "critical"


def test_with_little_traffic_the_look_reaches_back_two_minutes() -> None:
    world = World()
    world.feed(*(window(second, count=1) for second in range(0, 600, 3)))
    alerts = world.feed(*(window(second, count=1, errors=1) for second in range(600, 700, 3)))
    assert alerts[0].state == "open"
    assert alerts[0].onset_ms == ORIGIN_MS + 600_000


def test_within_the_cooldown_an_incident_opens_again_only_when_it_is_over() -> None:
    world = World(AlertOptions(cooldown_ms=60_000))
    world.calm(0, 60, count=100)
    failing_seconds(world, 60, 65, errors=20, count=100)
    [resolved] = failing_seconds(world, 65, 100, errors=0, count=100)
    again = failing_seconds(world, 100, 200, errors=20, count=100)
    assert [alert.state for alert in again] == ["open"]
    assert again[0].opened_ms == resolved.ts + 60_000
    assert again[0].onset_ms < again[0].opened_ms
    assert again[0].incident_id != resolved.incident_id


def test_within_the_cooldown_something_critical_opens_after_a_warning() -> None:
    world = World(AlertOptions(cooldown_ms=60_000))
    world.calm(0, 60, count=100)
    failing_seconds(world, 60, 65, errors=20, count=100)
    [resolved] = failing_seconds(world, 65, 100, errors=0, count=100)
    [again] = failing_seconds(world, 100, 103, errors=90, count=100)
    assert (resolved.severity, again.severity) == ("warning", "critical")
    assert again.opened_ms < resolved.ts + 60_000


def test_trouble_that_goes_away_within_the_cooldown_stays_untold() -> None:
    world = World(AlertOptions(cooldown_ms=120_000))
    world.calm(0, 60, count=100)
    failing_seconds(world, 60, 65, errors=20, count=100)
    failing_seconds(world, 65, 100, errors=0, count=100)
    assert failing_seconds(world, 100, 105, errors=20, count=100) == []
    assert failing_seconds(world, 105, 800, errors=0, count=100) == []
    assert world.model().slots == {}


def test_components_and_environments_are_incidents_of_their_own() -> None:
    world = World()
    for environment in ("prod", "staging"):
        for component in ("model", "ranker"):
            world.calm(0, 30, environment=environment, component=component)
    alerts = world.feed(*(window(30, environment=environment, component=component, errors=15)
                          for environment in ("prod", "staging") for component in ("model", "ranker")))
    assert len({alert.incident_id for alert in alerts}) == 4
    assert {alert.title.split(":")[0] for alert in alerts} == {
        "prod/churn", "prod/churn ranker", "staging/churn", "staging/churn ranker"}


def test_repeats_and_amendments_change_nothing() -> None:
    world = World()
    world.calm(0, 30)
    anomalies = world.odd(30, 3)
    world.feed(*anomalies, window(30))
    assert world.feed(*anomalies * 5, window(30, count=40, errors=40), window(29, count=40, errors=40)) == []


def test_windows_of_other_granularities_are_skipped() -> None:
    world = World()
    assert world.feed(*(window(second, errors=20, size_ms=10_000) for second in range(0, 100, 10))) == []
    assert list(world.states.keys()) == []


def test_partitions_of_one_model_that_open_in_the_same_second_have_incidents_of_their_own() -> None:
    here, there = World(), World(partition=1)
    [one], [other] = failing_seconds(here, 0, 1, errors=20), failing_seconds(there, 0, 1, errors=20)
    assert (one.opened_ms, one.partition) == (other.opened_ms, 0)
    assert other.partition == 1
    assert one.incident_id != other.incident_id
    assert one.alert_id != other.alert_id
