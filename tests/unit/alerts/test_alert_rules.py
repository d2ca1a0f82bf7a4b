"""People's rules: what they find, when they are pending, and what becomes of them when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alert_world import ORIGIN_MS, World, drift, window

from agents.alerts import ruleset
from agents.alerts.engine import AlertOptions
from agents.alerts.life import Policy, PolicyCodec
from agents.alerts.rulesfile import RulesFile
from agents.alerts.ruleset import RuleSet
from agents.alerts.state import ModelState
from schemas.alerts import Alert, AlertCommand
from streams.state.keyed import KeyedStates
from streams.windows.record import SummaryRecord


def world(*rules: dict[str, Any], **options: Any) -> World:
    """Only these rules."""
    return World(AlertOptions(ruleset=RuleSet.model_validate({"rules": rules}), built_in=False, **options))


def story(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.rule, alert.state) for alert in alerts]


RATE = {"name": "odd", "kind": "anomaly_rate", "limit": 0.1, "over_s": 20}
CEL = {"name": "bad", "kind": "cel", "when": "errors > 5.0"}
OBJECTIVE = {"name": "slo", "kind": "objective", "target": 0.99,
             "burns": [{"long_s": 60, "short_s": 10, "factor": 5, "severity": "critical"}]}


# -- what they find ----------------------------------------------------------------------------------


def test_an_anomaly_rate_above_the_limit_opens_and_below_it_resolves() -> None:
    found = world(RATE)
    found.calm(0, 40)
    told: list[Alert] = []
    for second in range(40, 60):
        told += found.feed(*found.odd(second, 5), window(second))
    told += found.calm(60, 120)
    assert story(told) == [("odd", "open"), ("odd", "resolved")]
    assert (told[0].cause, told[0].severity, told[0].threshold) == ("anomaly_rate", "warning", 0.1)
    assert told[0].value is not None and told[0].value > 0.1


def test_an_anomaly_rate_below_the_limit_is_let_be() -> None:
    found = world(RATE)
    assert [alert for second in range(80) for alert in found.feed(*found.odd(second, 1), window(second))] == []


@pytest.mark.parametrize(("errors_by_second", "states"), [
    ({}, []),
    (dict.fromkeys(range(70, 72), 10), []),                     # short only: not long enough to matter
    (dict.fromkeys(range(40, 70), 4), ["open"]),                # 20% bad: 20 times the budget
    (dict.fromkeys(range(40, 70), 4) | {71: 1}, ["open"])])
def test_an_objective_needs_both_of_its_windows(errors_by_second: dict[int, int], states: list[str]) -> None:
    found = world(OBJECTIVE)
    told = found.feed(*(window(second, errors=errors_by_second.get(second, 0)) for second in range(75)))
    assert [alert.state for alert in told] == states
    assert {alert.cause for alert in told} <= {"objective"} and {alert.severity for alert in told} <= {"critical"}


def test_an_objective_stops_when_the_short_window_is_clean_though_the_long_one_is_not() -> None:
    found = world(OBJECTIVE)
    told = found.feed(*(window(second, errors=4 if 40 <= second < 60 else 0) for second in range(100)))
    assert story(told) == [("slo", "open"), ("slo", "resolved")]
    assert told[1].ts - ORIGIN_MS < 60_000 + 10_000 + 10_000 + 5_000, "the long one burns on"


def slow(second: int, share: float) -> Any:
    """A window in which that share of 20 requests takes 100 ms instead of 5."""
    bad = round(20 * share)
    from streams.windows.record import buckets
    from streams.windows.sketch import bucket
    pairs = [(bucket(5.0), 20 - bad), *([(bucket(100.0), bad)] if bad else [])]
    total = 5.0 * (20 - bad) + 100.0 * bad
    import msgspec
    return msgspec.structs.replace(window(second), fields={"latency_ms": SummaryRecord(
        count=20, sum=total, mean=total / 20, max=100.0, buckets=buckets(pairs))})


def test_an_objective_of_latency_counts_what_is_slower_by_the_sketch() -> None:
    found = world({**OBJECTIVE, "of": "latency", "latency_ms": 50})
    told = found.feed(*(slow(second, 0.2 if 40 <= second < 60 else 0.0) for second in range(100)))
    assert story(told) == [("slo", "open"), ("slo", "resolved")]
    calm = world({**OBJECTIVE, "of": "latency", "latency_ms": 200})
    assert calm.feed(*(slow(second, 0.2) for second in range(100))) == []


@pytest.mark.parametrize(("when", "opens"), [
    ("errors / count > 0.3", True), ("errors / count > 0.6", False), ("fields['latency_ms'].mean > 8.0", True),
    ("fields['feature.gone'].mean > 8.0", False), ("'feature.gone' in fields", False), ("count", False),
    ("model == 'churn' && component == 'model' && seconds == 1.0", True), ("errors / 0.0 > 'x'", False)])
def test_a_condition_sees_a_window(when: str, opens: bool) -> None:
    found = world({**CEL, "when": when})
    told = found.feed(*(window(second, errors=10, latency=9.0) for second in range(3)))
    assert story(told) == ([("bad", "open")] if opens else [])


def test_a_condition_sees_quantiles() -> None:
    found = world({**CEL, "when": "fields['latency_ms'].p95 > 90.0 && fields['latency_ms'].p50 < 6.0"})
    assert story(found.feed(slow(0, 0.0), slow(1, 0.2))) == [("bad", "open")]


def test_a_rule_about_silence_says_how_long_whatever_was_usual() -> None:
    found = world({"name": "gone", "kind": "silence", "after_s": 90, "severity": "critical"})
    found.calm(0, 3)
    found.tick(0)
    told = [alert for second in range(0, 200, 10) for alert in found.tick(second * 1000)]
    assert story(told) == [("gone", "open")]
    assert (told[0].cause, told[0].severity) == ("silence", "critical")
    assert story(found.calm(300, 301)) == [("gone", "resolved")]


def test_a_rule_about_drift_takes_its_fields_and_severities_only() -> None:
    found = world({"name": "moved", "kind": "drift", "field": "feature.*", "least": "critical"})
    found.calm(0, 40)
    assert found.feed(drift(50, "feature.a"), drift(50, "latency_ms", severity="critical", kind="operational")) == []
    assert story(found.feed(drift(52, "feature.b", severity="critical"))) == [("moved", "open")]
    assert story(found.feed(drift(60, "feature.b", state="recovered"))) == [("moved", "resolved")]


def test_a_rule_is_about_whom_it_says() -> None:
    found = world({**CEL, "model": "fra*", "component": "ranker"})
    assert found.feed(window(0, errors=10), window(0, errors=10, model="fraud"),
                      window(0, errors=10, component="ranker")) == []
    assert story(found.feed(window(0, errors=10, model="fraud", component="ranker"))) == [("bad", "open")]


# -- pending, and cuts -------------------------------------------------------------------------------


def test_a_condition_is_pending_until_it_has_held_and_the_alert_says_since_when() -> None:
    found = world({**CEL, "for_s": 30})
    assert found.feed(*(window(second, errors=9 if second % 20 else 0) for second in range(60))) == []
    told = found.feed(*(window(second, errors=9) for second in range(61, 95)))
    assert story(told) == [("bad", "open")]
    assert told[0].pending_ms is not None and told[0].ts - told[0].pending_ms == 30_000


def test_what_a_rule_has_counted_survives_a_restart() -> None:
    whole, parts = world(OBJECTIVE), world(OBJECTIVE)
    messages = [window(second, errors=4 if second >= 40 else 0) for second in range(75)]
    expected = whole.feed(*messages)
    told: list[Alert] = []
    for second, message in enumerate(messages):
        told += parts.feed(message)
        if second % 10 == 0:
            rows = dict(parts.states.freeze(1).puts)
            offsets = parts.offsets
            parts = World(parts.engine.options, rows)
            parts.offsets = offsets
    assert told == expected and expected


# -- changing them -----------------------------------------------------------------------------------


def commanded(found: World, rules: list[dict[str, Any]], version: int, offset: int) -> None:
    policies: KeyedStates[Policy] = KeyedStates("alerts.policy", 0, PolicyCodec(), {})
    command = AlertCommand(command_id=f"c{version}", ts=ORIGIN_MS, actor="ana", action="rules", version=version,
                           rules=json.dumps({"rules": rules}))
    found.engine.on_commands([(offset, command)], found.states, policies, "alert-commands")


def test_rules_of_a_command_are_in_force_from_then_on_and_their_incidents_end_with_them() -> None:
    found = world()
    assert found.feed(window(0, errors=10)) == []
    commanded(found, [CEL], 1, 0)
    assert story(found.feed(window(1, errors=10))) == [("bad", "open")]
    commanded(found, [], 2, 1)
    assert story(found.feed(window(2, errors=10))) == [("bad", "resolved")]
    found.tick(0)
    state: ModelState = found.model()
    assert state.tallies == {}


def test_rules_of_the_api_go_before_those_of_the_file() -> None:
    found = world(CEL, {**CEL, "name": "other"})
    commanded(found, [{**CEL, "when": "errors > 100.0"}], 1, 0)
    assert story(found.feed(window(1, errors=10))) == [("other", "open")]


def test_rules_that_do_not_read_change_nothing() -> None:
    found = world(CEL)
    commanded(found, [{"name": "x", "kind": "magic"}], 1, 0)
    assert story(found.feed(window(1, errors=10))) == [("bad", "open")]


def test_the_file_is_read_when_it_changes_and_half_an_edit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    file = RulesFile(path)
    assert file.changed() is None
    path.write_text(json.dumps({"rules": [CEL]}))
    found = file.changed()
    assert found is not None and found.names == {"bad"} and file.changed() is None
    path.write_text('{"rules": [')
    assert file.changed() is None and file.rules.names == {"bad"}
    path.write_text('{"rules": []}')
    assert file.changed() == ruleset.NONE


@pytest.mark.parametrize(("rule", "said"), [
    ({**CEL, "when": "errors >"}, "parse"), ({**RATE, "limit": 1.5}, "less than 1"), ({**RATE, "over": 3}, "over"),
    ({**OBJECTIVE, "of": "latency"}, "latency_ms"), ({**OBJECTIVE, "latency_ms": 3}, "latency_ms"),
    ({**OBJECTIVE, "burns": [{"long_s": 5, "short_s": 5, "factor": 1}]}, "shorter"), ({"name": "x"}, "kind"),
    ({**CEL, "when": "fields.all(a, fields.exists(b, a == b))"}, "loops"), ({**CEL, "model": "a*b"}, "pattern")])
def test_what_is_wrong_with_a_rule_is_said(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ruleset.read(json.dumps({"rules": [rule]}))


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="two rules have the name bad"):
        ruleset.read(json.dumps({"rules": [CEL, CEL]}))
