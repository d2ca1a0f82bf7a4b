"""The rule on latency."""

import pytest
from alert_world import ORIGIN_MS, World, window

from agents.alerts.engine import AlertOptions
from schemas.alerts import Alert


def seconds(world: World, first: int, last: int, *means: float, count: int = 20) -> list[Alert]:
    """One window a second; the means repeat."""
    return world.feed(*(window(second, count=count, latency=means[second % len(means)])
                        for second in range(first, last)))


def test_latency_far_above_the_usual_opens_and_half_way_back_for_ten_seconds_resolves() -> None:
    world = World()
    assert seconds(world, 0, 60, 5.0, 6.0, 5.0) == []
    [opened] = seconds(world, 60, 80, 20.0)
    assert (opened.state, opened.cause, opened.severity, opened.field) == (
        "open", "latency", "warning", "latency_ms")
    assert opened.title == "prod/churn: 20 ms a request, usually 5 ms"
    assert opened.onset_ms == ORIGIN_MS + 60_000
    assert opened.ts == ORIGIN_MS + 68_000, "eight of fifteen windows are slow"
    assert seconds(world, 80, 100, 12.0) == [], "between half-way and the limit"
    [resolved] = seconds(world, 100, 130, 5.0)
    assert (resolved.state, resolved.incident_id) == ("resolved", opened.incident_id)


def test_ten_times_the_usual_is_critical_and_escalates_what_was_open() -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    assert [alert.severity for alert in seconds(world, 60, 70, 20.0)] == ["warning"]
    assert [(alert.state, alert.severity) for alert in seconds(world, 70, 130, 90.0)] == [("escalated", "critical")]


def test_no_level_is_usual_before_thirty_windows_have_settled() -> None:
    young, grown = World(), World()
    assert seconds(young, 0, 30, 5.0) == []
    assert young.model().components["model"].usual_ms is None
    assert seconds(young, 30, 38, 50.0) == []
    seconds(grown, 0, 45, 5.0)
    assert grown.model().components["model"].usual_ms == 5.0
    assert len(seconds(grown, 45, 55, 40.0)) == 1


def test_one_slow_second_is_no_regression() -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    assert seconds(world, 60, 61, 1_000.0) == []
    assert seconds(world, 61, 90, 5.0) == []


def test_a_pause_of_some_seconds_is_no_regression() -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    assert seconds(world, 60, 66, 50.0) == []
    assert seconds(world, 66, 120, 5.0) == []


def test_one_slow_request_in_each_window_is_no_regression() -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    assert world.feed(*(window(second, latency=5.0, outlier=10_000.0) for second in range(60, 90))) == []


def test_slowness_below_two_milliseconds_is_no_matter() -> None:
    world = World()
    seconds(world, 0, 60, 0.1)
    assert seconds(world, 60, 90, 1.9) == []
    assert len(seconds(world, 90, 100, 2.5)) == 1


@pytest.mark.parametrize(("count", "opens"), [(4, 0), (5, 1)])
def test_it_takes_twenty_requests(count: int, opens: int) -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    alerts = world.feed(*(window(second, count=count, latency=50.0) for second in range(200, 205)))
    assert len(alerts) == opens


def test_the_usual_level_is_not_learnt_from_the_trouble() -> None:
    world = World()
    seconds(world, 0, 60, 5.0)
    seconds(world, 60, 600, 20.0)
    assert world.model().components["model"].usual_ms == 5.0
    assert [alert.state for alert in seconds(world, 600, 640, 5.0)] == ["resolved"]


def test_slowness_that_lasts_becomes_the_usual_level() -> None:
    world = World(AlertOptions(accept_ms=120_000))
    seconds(world, 0, 60, 5.0)
    opened, resolved = seconds(world, 60, 300, 20.0)
    assert (opened.state, resolved.state) == ("open", "resolved")
    assert "accepted as the new level" in resolved.title
    assert world.model().components["model"].usual_ms == 20.0
    assert len(seconds(world, 300, 310, 80.0)) == 1


def test_slow_versions_are_listed() -> None:
    world = World()
    world.calm(0, 60, latency=5.0)
    alerts = world.feed(*(window(second, count=40, latency=mean, version=version)
                          for second in range(60, 80) for version, mean in (("1", 5.0), ("2", 60.0))))
    assert alerts[0].versions == ["2"]
