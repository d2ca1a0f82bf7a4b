"""What the fleet publishes: valid, repeatable, and really changed by each kind of incident."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from infra.demo.fleet import Fleet
from infra.demo.incidents import SLOW_TIMES, Incident
from infra.demo.models import Model, train_all
from infra.demo.schedule import KINDS, Kind, Slot, Target
from infra.demo.serving import Message
from schemas.telemetry import Feedback, TelemetryEvent

ORIGIN = 1_700_000_000_000
CONTRACTS = {"telemetry": TelemetryEvent, "feedback": Feedback}
START, END = 40_000, 80_000


@pytest.fixture(scope="module")
def models() -> list[Model]:
    return train_all(1)


def counting_clock() -> Any:
    """A CPU clock that advances by one millisecond a reading: latency then tells how often it was read."""
    return itertools.count(0, 1_000_000).__next__


def messages_of(fleet: Fleet, length_ms: int, step_ms: int = 1_000) -> list[Message]:
    return [message for until in range(step_ms, length_ms + 1, step_ms)
            for message in fleet.advance(ORIGIN + until)]


def alone(models: list[Model], model: str) -> Fleet:
    """A fleet of one model, undisturbed."""
    return Fleet([each for each in models if each.spec.name == model], 50.0, ORIGIN, seed=5, incidents=False)


def scripted(models: list[Model], kind: Kind, environment: str, model: str,
             draw: float) -> tuple[Incident, list[dict[str, Any]]]:
    """One incident of a kind, from second 40 to second 80, and all telemetry and feedback of its deployment."""
    fleet = alone(models, model)
    spec = fleet.models[model].spec
    slot = Slot(0, kind, Target(environment, model, 1.0, spec.components), START, END, draw)
    fleet._slots, fleet._next = iter(()), slot
    bodies = [message.body | {"topic": message.topic} for message in messages_of(fleet, 110_000, 2_000)
              if message.body["environment"] == environment]
    assert [incident.closed for incident in fleet.closed] == [True]
    return fleet.closed[0], bodies


def split(bodies: list[dict[str, Any]], topic: str = "telemetry", component: str | None = None
          ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(calm, disturbed): before the start, and within."""
    mine = [b | {"at": b.get("predicted_at", b["ts"]) - ORIGIN} for b in bodies
            if b["topic"] == topic and component in (None, b["component"])]
    return [b for b in mine if b["at"] < START], [b for b in mine if START <= b["at"] < END]


def column(bodies: list[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    return np.array([b["features"][name] for b in bodies if b.get("features")], np.float64)


def errors(bodies: list[dict[str, Any]]) -> float:
    return float(np.mean(["error" in b for b in bodies]))


def test_every_message_of_a_run_with_all_kinds_passes_its_contract(models: list[Model]) -> None:
    fleet = Fleet(models, 240.0, ORIGIN, seed=3, length_ms=400_000)
    seen = set()
    for message in messages_of(fleet, 400_000, 5_000):
        CONTRACTS[message.topic].model_validate_json(msgspec.json.encode(message.body))
        assert message.model == message.body["model"]
        key = (message.topic, message.body["event_id"])
        assert key not in seen
        seen.add(key)
    assert {incident.kind for incident in fleet.opened} == set(KINDS)


def test_the_same_seed_gives_the_same_events_except_measured_latency(models: list[Model]) -> None:
    def run(seed: int, step_ms: int) -> list[Message]:
        fleet = Fleet(models, 120.0, ORIGIN, seed, length_ms=200_000)
        found = messages_of(fleet, 70_000, step_ms)
        for message in found:
            assert message.topic == "feedback" or message.body.pop("latency_ms") >= 0
        return sorted(found, key=lambda message: (message.ts_ms, message.topic, message.body["event_id"]))

    first = run(9, 5_000)
    assert first == run(9, 5_000)
    assert first == run(9, 1_000), "how much is served at once must not show"
    assert first != run(10, 5_000)


def test_event_time_never_goes_back_and_stays_within_what_was_asked(models: list[Model]) -> None:
    fleet = Fleet(models, 120.0, ORIGIN, seed=2)
    last = ORIGIN
    for until in range(ORIGIN + 700, ORIGIN + 30_000, 700):
        for message in fleet.advance(until):
            assert last <= message.ts_ms < until
            last = message.ts_ms


def test_the_rate_is_met(models: list[Model]) -> None:
    fleet = Fleet(models, 500.0, ORIGIN, seed=2, incidents=False)
    events = sum(message.topic == "telemetry" for message in messages_of(fleet, 60_000, 5_000))
    assert 500 * 60 * 0.95 < events < 500 * 60 * 1.05


def test_a_unit_change_multiplies_one_column_by_a_thousand(models: list[Model]) -> None:
    incident, bodies = scripted(models, "unit_change", "prod", "wine-grader", 0.1)
    calm, hit = split(bodies)
    name = incident.field.removeprefix("feature.")
    assert column(hit, name).mean() / column(calm, name).mean() == pytest.approx(1000, rel=0.2)


def test_a_null_column_is_null_and_the_model_still_answers(models: list[Model]) -> None:
    incident, bodies = scripted(models, "null_column", "prod", "digit-reader", 0.1)
    name = incident.field.removeprefix("feature.")
    calm, hit = split(bodies, component="preprocess")
    assert not np.isnan(column(calm, name)).any() and np.isnan(column(hit, name)).all()
    answers = split(bodies, component="model")[1]
    assert answers and all("prediction" in b for b in answers)


def test_a_covariate_shift_moves_its_columns_up(models: list[Model]) -> None:
    incident, bodies = scripted(models, "covariate_shift", "staging", "tumour-check", 0.1)
    name = incident.field.removeprefix("feature.")
    calm, hit = split(bodies)
    assert column(hit, name).mean() > column(calm, name).mean() + 2 * column(calm, name).std()


def test_a_concept_shift_changes_the_truth_and_nothing_else(models: list[Model]) -> None:
    def wrong(bodies: list[dict[str, Any]]) -> float:
        return float(np.mean([b["prediction"] != b["label"] for b in bodies]))

    _, bodies = scripted(models, "concept_shift", "prod", "scene-labels", 0.1)
    calm, hit = split(bodies, "feedback")
    north = [b for b in hit if b["segment"]["region"] == "north"]
    others = [b for b in hit if b["segment"]["region"] != "north"]
    assert wrong(calm) < 0.15 and wrong(north) > 0.85 and wrong(others) < 0.15

    def telemetry(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in b.items() if k != "latency_ms"} for b in bodies if b["topic"] == "telemetry"]

    same = [m.body | {"topic": m.topic} for m in messages_of(alone(models, "scene-labels"), 110_000, 2_000)
            if m.body["environment"] == "prod"]
    assert telemetry(bodies) == telemetry(same)


def test_late_labels_come_two_to_twenty_seconds_after_the_prediction(models: list[Model]) -> None:
    _, bodies = scripted(models, "null_column", "prod", "wine-grader", 0.1)
    delays = np.array([b["ts"] - b["predicted_at"] for b in bodies if b["topic"] == "feedback"])
    assert delays.min() >= 2_000 and delays.max() < 20_000 and delays.std() > 2_000


@pytest.mark.parametrize(("draw", "slow", "calm_one"), [(0.1, "preprocess", "model"), (0.9, "model", "preprocess")])
def test_a_latency_regression_slows_the_named_component_by_real_work(
        models: list[Model], draw: float, slow: str, calm_one: str) -> None:
    incident, bodies = scripted(models, "latency_regression", "prod", "digit-reader", draw)
    assert incident.component == slow

    def usual_ms(part: list[dict[str, Any]]) -> float:
        return float(np.median([b["latency_ms"] for b in part]))

    calm, hit = split(bodies, component=slow)
    assert usual_ms(hit) > SLOW_TIMES / 3 * usual_ms(calm), "CPU time, so other processes do not show"
    calm, hit = split(bodies, component=calm_one)
    assert usual_ms(hit) < SLOW_TIMES / 3 * usual_ms(calm)


@pytest.mark.parametrize("model", ["phishing-filter", "digit-reader"])
def test_an_error_burst_makes_half_of_the_requests_raise(models: list[Model], model: str) -> None:
    incident, bodies = scripted(models, "error_burst", "prod", model, 0.4)
    calm, hit = split(bodies, component=incident.component)
    assert errors(calm) == 0.0 and 0.4 < errors(hit) < 0.6
    failed = [b for b in hit if "error" in b]
    assert all("could not convert string to float" in b["error"] and "prediction" not in b for b in failed)


@pytest.mark.parametrize(("draw", "raises"), [(0.1, True), (0.9, False)])
def test_a_broken_version_takes_half_of_the_traffic(models: list[Model], draw: float, raises: bool) -> None:
    incident, bodies = scripted(models, "broken_version", "prod", "scene-labels", draw)
    calm, hit = split(bodies, component="model")
    assert incident.version not in {b["version"] for b in calm}
    new = [b for b in hit if b["version"] == incident.version]
    old = [b for b in hit if b["version"] != incident.version]
    assert 0.4 < len(new) / len(hit) < 0.6
    if raises:
        assert errors(new) == 1.0 and errors(old) == 0.0
    else:
        assert np.mean([b["confidence"] for b in new]) < np.mean([b["confidence"] for b in old]) - 0.3
        truth = split(bodies, "feedback")[1]
        assert np.mean([b["prediction"] == b["label"] for b in truth if b["version"] == incident.version]) < 0.5


def test_latency_is_the_cpu_time_of_the_component(models: list[Model]) -> None:
    fleet = Fleet(models, 120.0, ORIGIN, seed=2, incidents=False, clock_ns=counting_clock())
    for message in messages_of(fleet, 5_000):
        if message.topic == "telemetry":
            parts = 2 if len(fleet.models[message.model].spec.components) == 1 else 1
            assert message.body["latency_ms"] == parts


def test_a_stop_in_the_middle_of_an_incident_closes_it_then(models: list[Model]) -> None:
    fleet = Fleet(models, 120.0, ORIGIN, seed=2, length_ms=600_000)
    messages_of(fleet, 60_000, 5_000)
    assert [incident.kind for incident in fleet.opened] == ["error_burst"]
    assert fleet.opened[0].start_ms == ORIGIN + 50_000
    (ended,) = fleet.stop()
    assert ended.closed and ended.end_ms == ORIGIN + 60_000 and fleet.stop() == []


def test_a_fleet_that_does_not_begin_on_a_whole_second_is_refused(models: list[Model]) -> None:
    with pytest.raises(ValueError, match="whole second"):
        Fleet(models, 120.0, ORIGIN + 1, seed=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the command does: all CPU time is then the measuring thread's."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
