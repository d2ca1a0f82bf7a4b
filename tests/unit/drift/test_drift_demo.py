"""The demo's incidents: found, rightly judged, dated, and no retraining asked for where a feed is broken."""

from __future__ import annotations

import pytest
from demo_drift import Played, play

from infra.demo.incidents import Incident
from infra.demo.models import train_all
from schemas.drift import DriftCause

pytestmark = pytest.mark.slow

CAUSES: dict[str, DriftCause] = {
    "error_burst": "data_quality",      # callers send text for a number
    "unit_change": "data_quality", "null_column": "data_quality", "covariate_shift": "real_change",
    "concept_shift": "real_change", "latency_regression": "operational", "broken_version": "new_version"}
BREAKAGES = {"unit_change": "unit_change", "null_column": "null_column"}
MINUTES = 30


@pytest.fixture(scope="module")
def played() -> Played:
    return play(train_all(42), 42, MINUTES)


def verdict(played: Played, incident: Incident) -> tuple[DriftCause | None, str | None]:
    """What its drift events say together: a broken feed explains the rest, as does a new version; else the first one
    that knows.
    """
    events = [event for event in played.of(incident) if event.cause != "unknown"]
    for cause in ("data_quality", "new_version"):
        for event in events:
            if event.cause == cause:
                return event.cause, event.breakage
    return (events[0].cause, None) if events else (None, None)


def test_every_drift_is_found_and_none_is_stray(played: Played) -> None:
    assert len(played.incidents) >= 15
    assert {incident.kind for incident in played.incidents} == set(CAUSES)
    assert [incident for incident in played.incidents if not played.of(incident)] == []
    assert played.stray() == []


def test_the_cause_is_right_nine_times_of_ten(played: Played) -> None:
    wrong = [(incident.kind, incident.model, verdict(played, incident)) for incident in played.incidents
             if verdict(played, incident)[0] != CAUSES[incident.kind]]
    assert len(wrong) <= 0.1 * len(played.incidents), wrong
    for incident in played.incidents:
        if incident.kind in BREAKAGES:
            assert verdict(played, incident)[1] == BREAKAGES[incident.kind]


def test_the_onset_is_within_a_tenth_of_the_incident_nine_times_of_ten(played: Played) -> None:
    """Of the event that was there first."""
    off = []
    for incident in played.incidents:
        event = min(played.of(incident), key=lambda event: event.detected_ms)
        by = abs(event.onset_ms - incident.start_ms)
        if by > 0.1 * (incident.end_ms - incident.start_ms):
            off.append((incident.kind, incident.model, by))
    assert len(off) <= 0.1 * len(played.incidents), off


def test_broken_feeds_ask_for_no_retraining_and_real_changes_do(played: Played) -> None:
    asked = {incident.incident_id: [
        request for request in played.requests
        if (request.environment, request.model) == (incident.environment, incident.model)
        and incident.start_ms <= request.ts <= incident.end_ms + 60_000] for incident in played.incidents}
    for incident in played.incidents:
        if CAUSES[incident.kind] == "real_change":
            assert asked[incident.incident_id], incident
        else:
            assert asked[incident.incident_id] == [], incident
