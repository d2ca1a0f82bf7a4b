"""State as it is written, the outbox, and the fences."""

import msgspec
import pytest
from alert_world import ORIGIN_MS, World, anomaly, drift, window

from agents.alerts.buckets import MAX_PENDING
from agents.alerts.engine import AlertOptions
from agents.alerts.options import MAX_COMPONENTS, MAX_DRIFT_IDS, MAX_VERSIONS
from agents.alerts.state import ModelCodec, StateFormatError
from streams.settings import Settings


def restart(world: World) -> World:
    """The engine anew, over the snapshot of now; offsets go on."""
    world.states.written(world.states.freeze(1))
    again = World(world.engine.options, dict(world.rows))
    again.offsets, again.place = dict(world.offsets), world.place
    return again


def test_thresholds_come_from_the_settings() -> None:
    options = AlertOptions.from_settings(Settings(
        granularities_ms=(2_000, 10_000), anomaly_rate_limit=0.1, error_rate_limit=0.2, latency_factor=7.0,
        silence_ms=5_000, alert_cooldown_ms=9_000))
    assert options == AlertOptions(
        bucket_ms=2_000, anomaly_rate_limit=0.1, error_rate_limit=0.2, latency_factor=7.0, strong_latency=14.0,
        silence_ms=5_000, cooldown_ms=9_000)


def test_a_state_in_the_middle_of_everything_survives_being_written() -> None:
    world = World()
    world.calm(0, 60, latency=5.0)
    world.calm(0, 60, latency=5.0, component="ranker")
    for second in range(60, 66):
        world.feed(*world.odd(second, 12), window(second, latency=50.0, errors=12), drift(second),
                   window(second, version="2", component="ranker"))
    world.deliver("anomalies", [(world.offsets["anomalies"], world.odd(80, 1)[0])])
    codec = ModelCodec()
    data = codec.encode("prod\x1fchurn", world.model())
    again = codec.decode("prod\x1fchurn", data)
    assert again == world.model()
    assert codec.encode("prod\x1fchurn", again) == data


def test_a_state_of_a_later_format_is_refused_with_a_reason() -> None:
    codec = ModelCodec()
    data = msgspec.json.encode(msgspec.json.decode(codec.encode("a\x1fb", codec.new("a\x1fb"))) | {"format": 2})
    with pytest.raises(StateFormatError, match="format 2"):
        codec.decode("a\x1fb", data)


def test_a_restart_goes_on_as_if_nothing_had_been() -> None:
    """The same inputs, with a restart after each second or with none: the same alerts."""
    def run(restarts: bool) -> list[str]:
        world, told = World(), []
        for second in range(120):
            bad = 60 <= second < 70
            told += world.feed(*world.odd(second, 12 if bad else 0), window(
                second, latency=60.0 if 20 <= second - 60 < 30 else 5.0, errors=6 if bad else 0))
            if restarts:
                world = restart(world)
        return [alert.model_dump_json() for alert in told]
    assert run(restarts=True) == run(restarts=False)
    assert len(run(restarts=False)) >= 4


def test_an_alert_stays_in_the_outbox_until_it_is_said_to_be_published() -> None:
    world = World()
    world.deliver("drift-events", [(0, drift(50))])
    first = world.engine.outbox(world.states)
    assert len(first) == 1
    again = restart(world)
    assert again.engine.outbox(again.states) == first
    again.engine.published(again.states, ["another"])
    assert again.engine.outbox(again.states) == first
    again.engine.published(again.states, [first[0].alert_id])
    assert again.engine.outbox(again.states) == []
    last = restart(again)
    assert last.engine.outbox(last.states) == []


def test_the_ids_of_an_incident_tell_its_transitions_apart_and_fit() -> None:
    world = World()
    alerts = world.feed(drift(50), drift(51, "feature.b", severity="critical"), drift(60, state="recovered"),
                        drift(60, "feature.b", "recovered"))
    assert [alert.alert_id.removeprefix(alert.incident_id) for alert in alerts] == [
        "-open-0", "-escalated-1", "-resolved-2"]
    assert alerts[0].incident_id.endswith(f"-data-{ORIGIN_MS + 50_000}")


def test_records_before_the_fence_of_each_topic_are_skipped() -> None:
    """More drift than its ids are remembered of, so that only the fence can tell."""
    world = World(AlertOptions(cooldown_ms=0))
    batch = [(number, drift(50 + number, f"feature.f{number // 2}", ("drifted", "recovered")[number % 2]))
             for number in range(2 * MAX_DRIFT_IDS)]
    world.deliver("drift-events", batch)
    world.publish()
    before = world.engine.codec.encode("", world.model())
    world.deliver("drift-events", batch)
    assert world.engine.codec.encode("", world.model()) == before
    assert world.states.entry("prod\x1fchurn").fence == {"drift-events": 2 * MAX_DRIFT_IDS - 1}


def test_memory_is_bounded_whatever_the_names_and_the_rates() -> None:
    world = World()
    world.feed(*(window(second, version=f"v{second}") for second in range(100)))
    world.feed(*(window(second, component=f"c{second}") for second in range(100)))
    world.feed(*(anomaly(1_000 + place, place, component="ahead") for place in range(2_000)))
    state = world.model()
    assert len(state.components) == MAX_COMPONENTS
    assert len(world.model().components["ahead"].versions["1"].buckets) == MAX_PENDING
    busy = World()
    busy.calm(0, 1_000, count=1_000, latency=3.14159)
    [series] = busy.model().components["model"].versions.values()
    assert len(series.buckets) <= 31
    assert series.events == sum(bucket.count for bucket in series.buckets)
    assert len(busy.engine.codec.encode("", busy.model())) < 8_000
    many = World()
    many.feed(*(window(second, version=f"v{second % 50}") for second in range(500)))
    assert len(many.model().components["model"].versions) <= MAX_VERSIONS
