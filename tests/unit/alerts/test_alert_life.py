"""Acknowledging, notes, silences, escalation and flapping; carried out once, and kept by the state."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from alert_world import ORIGIN_MS, World, window

from agents.alerts import life
from agents.alerts.engine import AlertOptions
from agents.alerts.life import POLICY, Policy, PolicyCodec, falls_under
from agents.alerts.options import FLAP_OPENINGS, MAX_LEVEL
from schemas.alerts import Alert, AlertCommand, Silence
from streams.state.keyed import KeyedStates

TOPIC = "alert-commands"


class People:
    """A world in which people answer; `policies` is the partition's policy state."""

    def __init__(self, **options: Any) -> None:
        self.world = World(AlertOptions(**options))
        self.rows: dict[str, bytes] = {}
        self.policies: KeyedStates[Policy] = KeyedStates("alerts.policy", 0, PolicyCodec(), self.rows)
        self.sent = 0

    def say(self, action: str, incident: Alert | None = None, command_id: str = "", **more: Any) -> list[Alert]:
        about = {} if incident is None else {"environment": incident.environment, "model": incident.model,
                                             "incident_id": incident.incident_id}
        command = AlertCommand(command_id=command_id or f"c{self.sent}", ts=ORIGIN_MS, actor="ana", action=action,
                               **about, **more)
        return self.deliver(self.sent, command)

    def deliver(self, offset: int, command: AlertCommand) -> list[Alert]:
        self.world.engine.on_commands([(offset, command)], self.world.states, self.policies, TOPIC)
        self.sent = max(self.sent, offset + 1)
        return self.world.publish()

    def silence(self, silence_id: str = "s1", last: int = 3_600, **about: str) -> None:
        self.say("silence", silence=Silence(silence_id=silence_id, from_ms=ORIGIN_MS, until_ms=ORIGIN_MS + last * 1000,
                                            reason="works", **about))

    def fail(self, first: int, last: int, **more: Any) -> list[Alert]:
        """Requests that fail, from second to second."""
        return self.world.feed(*(window(second, count=30, errors=15, **more) for second in range(first, last)))

    def opened(self) -> Alert:
        self.world.calm(0, 40)
        [alert] = self.fail(40, 44)
        assert alert.state == "open"
        return alert


def test_an_incident_is_acknowledged_once_and_the_alert_says_by_whom() -> None:
    people = People()
    incident = people.opened()
    [told] = people.say("acknowledge", incident, text="rolling back")
    assert (told.state, told.actor, told.note, told.incident_id) == ("acknowledged", "ana", "rolling back",
                                                                     incident.incident_id)
    assert told.ts >= incident.ts and told.alert_id.endswith("-acknowledged-1")
    assert people.say("acknowledge", incident) == []


def test_notes_are_told_in_order_and_a_repeated_command_changes_nothing() -> None:
    people = People()
    incident = people.opened()
    [first] = people.say("note", incident, command_id="n1", text="seen since 12:03")
    [second] = people.say("note", incident, command_id="n2", text="upstream table is empty")
    assert [first.state, second.state] == ["noted", "noted"]
    assert [first.alert_id[-2:], second.alert_id[-2:]] == ["-1", "-2"]
    assert people.say("note", incident, command_id="n2", text="upstream table is empty") == []


def test_a_command_about_what_is_over_or_was_never_there_is_let_go() -> None:
    people = People()
    incident = people.opened()
    ended = people.world.calm(44, 120)
    assert [alert.state for alert in ended] == ["resolved"]
    assert people.say("acknowledge", incident) == []
    assert people.say("note", incident.model_copy(update={"model": "nobody"}), text="x") == []
    assert [*people.world.states.keys()] == ["prod\x1fchurn"]


def test_what_people_said_survives_a_restart_and_is_not_carried_out_again() -> None:
    people = People()
    incident = people.opened()
    command = AlertCommand(command_id="c9", ts=ORIGIN_MS, actor="ana", action="acknowledge", environment="prod",
                           model="churn", incident_id=incident.incident_id)
    people.deliver(7, command)
    people.silence(model="ch*")
    for states, rows in ((people.world.states, people.world.rows), (people.policies, people.rows)):
        frozen = states.freeze(1)
        rows.update(frozen.puts)
    again = People()
    again.world, again.rows = World(rows=people.world.rows), people.rows
    again.policies = KeyedStates("alerts.policy", 0, PolicyCodec(), again.rows)
    again.world.engine.obey(again.policies)
    assert again.deliver(7, command) == []
    assert again.say("acknowledge", incident) == [], "somebody has acknowledged it"
    assert [silence.silence_id for silence in life.silences_of(again.policies.entry(POLICY).state)] == ["s1"]
    again.sent = 9
    [resolved] = again.world.calm(44, 120)
    assert resolved.silenced_by == "s1"


def test_what_falls_under_a_silence_is_kept_and_marked() -> None:
    people = People()
    people.silence(environment="prod", model="chu*")
    people.silence("s2", environment="staging")
    assert people.opened().silenced_by == "s1"
    [other] = [*people.world.calm(0, 40, model="fraud"), *people.fail(40, 44, model="fraud")]
    assert other.silenced_by == ""
    people.say("unsilence", text="s1")
    [resolved] = people.world.calm(44, 120)
    assert resolved.silenced_by == ""


@pytest.mark.parametrize(("about", "inside"), [
    ({}, True), ({"model": "churn"}, True), ({"model": "chur"}, False), ({"model": "chur*"}, True),
    ({"cause": "latency"}, False), ({"component": "model"}, True), ({"environment": "staging"}, False),
    ({"until_ms": ORIGIN_MS}, False), ({"from_ms": ORIGIN_MS + 1}, False)])
def test_whom_a_silence_is_about(about: dict[str, Any], inside: bool) -> None:
    alert = Alert(environment="prod", model="churn", version="1", alert_id="a", incident_id="i", state="open",
                  cause="error_rate", severity="warning", title="x", ts=ORIGIN_MS, opened_ms=ORIGIN_MS,
                  onset_ms=ORIGIN_MS)
    silence = Silence(**{"silence_id": "s", "from_ms": ORIGIN_MS, "until_ms": ORIGIN_MS + 1} | about)
    assert falls_under(alert, silence) is inside


def test_what_nobody_acknowledges_escalates_later_each_time_and_not_for_ever() -> None:
    people = People(escalate_ms=60_000)
    incident = people.opened()
    told = []
    for second in range(44, 2_000, 4):
        told += people.fail(second, second + 4)
        told += people.world.tick(1_000 * second)
    waits = [(alert.ts - incident.opened_ms) // 1000 for alert in told]
    assert [(alert.state, alert.level) for alert in told] == [("escalated", level) for level in range(1, MAX_LEVEL + 1)]
    assert [wait // 60 for wait in waits] == [1, 3, 7]


def test_what_is_acknowledged_does_not_escalate() -> None:
    people = People(escalate_ms=60_000)
    people.say("acknowledge", people.opened())
    told = []
    for second in range(44, 400, 4):
        told += people.fail(second, second + 4)
        told += people.world.tick(1_000 * second)
    assert told == []


def test_what_opens_again_and_again_is_damped_and_says_so() -> None:
    people = People(cooldown_ms=5_000)
    people.world.calm(0, 40)
    opened, second = [], 40
    while second < 850:
        told = people.fail(second, second + 5) + people.world.calm(second + 5, second + 50)
        opened += [alert for alert in told if alert.state == "open"]
        second += 50
    gaps = [(b.opened_ms - a.opened_ms) // 1000 for a, b in pairwise(opened)]
    assert len(opened) > FLAP_OPENINGS
    assert [alert.flapping for alert in opened][:FLAP_OPENINGS] == [False] * (FLAP_OPENINGS - 1) + [True]
    assert set(gaps[:FLAP_OPENINGS]) == {50} and max(gaps) >= 100, gaps
