"""What the live view knows: rates over restarts, unknowns, and pages that make no sense."""

from __future__ import annotations

import json
from typing import Any

from infra.cli.sight import Watcher, parse

WORKER, GATEWAY = "http://w", "http://g"


class World:
    """Pages by address, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        self.now = 100.0

    def ask(self, url: str) -> str | None:
        self.asked.append(url)
        return self.pages.get(url.split("?")[0])

    def watcher(self, *workers: str) -> Watcher:
        return Watcher(workers or (WORKER,), GATEWAY, "t", ask=self.ask, clock=lambda: self.now,
                       wall_ms=lambda: 1_000)

    def metrics(self, worker: str = WORKER, **values: float) -> None:
        self.pages[f"{worker}/metrics"] = "\n".join(f"streamgauge_{name} {value}" for name, value in values.items())


def test_nothing_that_answers_is_all_unknown() -> None:
    found = World().watcher().look()
    assert (found.events, found.events_per_s, found.lag, found.incidents, found.models) == (None,) * 5
    assert found.ready == {WORKER: False, GATEWAY: False}


def test_the_rate_is_of_the_last_seconds() -> None:
    world = World()
    watcher = world.watcher()
    rates = []
    for events in (0, 100, 200, 300, 400, 500, 600, 600, 600, 600, 600, 600):
        world.metrics(events_total=events)
        rates.append(watcher.look().events_per_s)
        world.now += 1
    assert rates[0] is None
    assert rates[1] == rates[6] == 100
    assert rates[-1] == 0
    assert len(watcher.latest.history) == len(rates) - 1


def test_a_worker_that_was_started_again_takes_nothing_back() -> None:
    world = World()
    watcher = world.watcher()
    for events in (1_000, 1_100, 50):
        world.metrics(events_total=events)
        found = watcher.look()
        world.now += 1
    assert found.events == 1_150
    assert found.events_per_s == 75


def test_a_worker_that_is_away_for_a_while_does_not_make_a_leap() -> None:
    world = World()
    watcher = world.watcher(WORKER, "http://v")
    world.metrics(events_total=100)
    world.metrics("http://v", events_total=1_000)
    watcher.look()
    world.now += 1
    away = world.pages.pop("http://v/metrics")
    world.metrics(events_total=110)
    assert watcher.look().events_per_s == 10
    world.now += 1
    world.pages["http://v/metrics"] = away
    assert watcher.look().events == 1_110


def test_figures_are_added_over_workers_and_lag_is_of_telemetry_alone() -> None:
    world = World()
    for worker in (WORKER, "http://v"):
        world.pages[f"{worker}/metrics"] = (
            '# HELP x\nstreamgauge_rejected_total{reason="not_json"} 3.0\n'
            'streamgauge_rejected_total{reason="too_old"} 1.0\n'
            'streamgauge_consumer_lag{partition="0",topic="telemetry"} 5.0\n'
            'streamgauge_consumer_lag{partition="0",topic="metrics"} 70.0\n'
            "streamgauge_snapshot_seconds_sum 0.5\nstreamgauge_snapshot_seconds_count 10.0\n"
            'streamgauge_watermark_delay_seconds{partition="1"} 0.5\n')
    found = world.watcher(WORKER, "http://v").look()
    assert (found.rejected, found.rejected_most, found.lag, found.checkpoint_ms, found.delay_s) == \
        (8, "not_json", 10, 50, 0.5)


def test_events_kept_aside_as_too_late_are_refused_like_others() -> None:
    world = World()
    world.pages[f"{WORKER}/metrics"] = ('streamgauge_rejected_total{reason="not_json"} 3.0\n'
                                        "streamgauge_too_late_total 22695.0\n")
    found = world.watcher().look()
    assert (found.rejected, found.rejected_most) == (22_698, "too_old")


def test_alerts_of_a_run_before_this_one_are_left_out() -> None:
    world = World()
    world.pages[f"{GATEWAY}/api/alerts"] = json.dumps([{"alert_id": name, "published_ms": ms}
                                                       for name, ms in (("new", 1_000), ("old", 999))])
    watcher = Watcher([WORKER], GATEWAY, "token", ask=world.ask, since_ms=1_000)
    assert [row["alert_id"] for row in watcher.look().alerts or ()] == ["new"]


def test_pages_that_make_no_sense_are_unknown() -> None:
    world = World()
    world.pages[f"{WORKER}/metrics"] = "<html>\nstreamgauge_events_total nonsense\n{} 1\n\x00"
    for path, body in (("/api/incidents", "not json"), ("/api/alerts", '{"a": 1}'), ("/api/models", "[1, null]")):
        world.pages[GATEWAY + path] = body
    found = world.watcher().look()
    assert (found.incidents, found.alerts, found.models) == (None, None, [])


def test_models_are_asked_for_less_often() -> None:
    world, rows = World(), [{"model": "churn"}]
    world.pages[f"{GATEWAY}/api/models"] = json.dumps(rows)
    watcher = world.watcher()
    for _ in range(11):
        found: Any = watcher.look()
        world.now += 1
    assert found.models == rows
    assert sum(url.endswith("/api/models") for url in world.asked) == 3


def test_labels_with_quotes_and_commas_are_read() -> None:
    (sample,) = parse('a_total{x="1,2",y="say \\"hi\\""} 2.5e3')
    assert (sample.name, sample.value, sample.labels["x"]) == ("a_total", 2_500, "1,2")
