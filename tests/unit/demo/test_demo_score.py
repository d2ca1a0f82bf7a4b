"""Matching alerts with the truth, on cases made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from infra.demo.incidents import Incident
from infra.demo.score import DAY_MS, TOLERANCE_MS, Score, score
from schemas.alerts import Alert

T0 = 1_700_000_000_000


def incident(number: int = 0, start_s: int = 100, end_s: int = 160, **changed: Any) -> Incident:
    fields: dict[str, Any] = {"environment": "prod", "model": "m", "kind": "error_burst", "version": "",
                              "component": "model", "field": "", "cause": "a test"}
    return Incident(incident_id=f"i-{number}", start_ms=T0 + start_s * 1000, end_ms=T0 + end_s * 1000,
                    **(fields | changed))


def alert(opened_s: float, incident_id: str = "a", **changed: Any) -> Alert:
    opened = int(T0 + opened_s * 1000)
    fields: dict[str, Any] = {"environment": "prod", "model": "m", "version": "v1", "state": "open",
                              "cause": "error_rate", "severity": "critical", "title": "Errors", "ts": opened,
                              "opened_ms": opened, "onset_ms": opened, "alert_id": f"{incident_id}-{opened}"}
    return Alert(incident_id=incident_id, **(fields | changed))


def scored(incidents: list[Incident], alerts: list[Alert], length_s: int = 1_000, deployments: int = 2) -> Score:
    return score(incidents, alerts, T0, T0 + length_s * 1000, deployments)


def test_an_alert_within_the_incident_finds_it_and_the_delay_is_event_time() -> None:
    result = scored([incident()], [alert(104.5)])
    assert result.found == 1 and not result.false_alerts
    assert result.rows[0].delay_s == 4.5 and result.median_delay_s == 4.5


@pytest.mark.parametrize("opened_s", [99.9, 160 + TOLERANCE_MS / 1000 + 0.1])
def test_an_alert_before_the_start_or_long_after_the_end_is_false(opened_s: float) -> None:
    result = scored([incident()], [alert(opened_s)])
    assert result.found == 0 and len(result.false_alerts) == 1 and result.median_delay_s is None


def test_an_alert_about_the_way_back_belongs_to_the_incident() -> None:
    result = scored([incident()], [alert(104), alert(160 + TOLERANCE_MS / 1000, "b")])
    assert result.found == 1 and not result.false_alerts


@pytest.mark.parametrize("other", [{"environment": "staging"}, {"model": "n"}])
def test_an_alert_about_another_deployment_is_false(other: dict[str, str]) -> None:
    result = scored([incident()], [alert(104, **other)])
    assert result.found == 0 and len(result.false_alerts) == 1


def test_several_alerts_find_one_incident_and_the_earliest_gives_the_delay() -> None:
    result = scored([incident()], [alert(120, "b"), alert(110, "a"), alert(130, "c")])
    assert result.found == 1 and result.rows[0].delay_s == 10 and not result.false_alerts


def test_a_resolved_record_alone_finds_nothing_and_is_not_false() -> None:
    result = scored([incident()], [alert(110, state="resolved")])
    assert result.found == 0 and not result.false_alerts


def test_repeats_and_escalations_of_one_false_alert_count_once() -> None:
    one = alert(500)
    result = scored([incident()], [one, one, alert(500, state="escalated", ts=T0 + 520_000)])
    assert len(result.false_alerts) == 1


def test_alerts_opened_outside_the_run_do_not_count() -> None:
    result = scored([incident()], [alert(-5), alert(1_000.001, "b")])
    assert result.found == 0 and not result.false_alerts


def test_a_delay_is_never_negative() -> None:
    assert scored([incident()], [alert(101, ts=T0 + 99_000)]).rows[0].delay_s == 0


def test_where_two_incidents_would_do_the_later_one_is_meant() -> None:
    both = [incident(0, 100, 160), incident(1, 200, 260)]
    assert [row.alert is not None for row in scored(both, [alert(210)]).rows] == [False, True]


def test_the_summary_counts_false_alerts_by_model_and_day() -> None:
    incidents = [incident(0), incident(1, 400, 460, kind="null_column"), incident(2, 700, 760, kind="null_column")]
    result = scored(incidents, [alert(110), alert(403, "b"), alert(900, "c")], length_s=DAY_MS // 2000, deployments=4)
    assert result.summary() == {
        "incidents": 3, "found": 2, "false_alerts": 1, "false_alerts_per_model_day": 0.5, "median_delay_s": 6.5}
    assert result.by_kind() == {"error_burst": (1, 1), "null_column": (2, 1)}


def test_no_incidents_and_no_alerts_make_an_empty_score() -> None:
    assert scored([], [], length_s=0).summary() == {
        "incidents": 0, "found": 0, "false_alerts": 0, "false_alerts_per_model_day": None, "median_delay_s": None}
