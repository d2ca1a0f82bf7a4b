"""Whatever the batches and the crashes: an answer is carried out once, what was told of it stays so, none is lost."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from alert_world import ORIGIN_MS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_alerts_recovery import Phases, Run, nothing_is_lost, script, with_repeats

from agents.alerts.life import POLICY, Policy, PolicyCodec, silences_of
from schemas.alerts import Alert, AlertCommand, Silence
from streams.state.keyed import KeyedStates

COMMANDS = "alert-commands"


class Answering(Run):
    """A run in which somebody answers half of what is told, some of it twice; commands are a log like the others."""

    def __post_init__(self) -> None:
        self.logs[COMMANDS] = []
        self.committed[COMMANDS] = 0
        self.policy_rows: dict[str, bytes] = {}
        self.answered: set[str] = set()
        super().__post_init__()

    def start(self) -> None:
        super().start()
        self.policies: KeyedStates[Policy] = KeyedStates("alerts.policy", 0, PolicyCodec(), dict(self.policy_rows))
        self.world.engine.obey(self.policies)
        world, deliver = self.world, self.world.deliver

        def either(topic: str, items: list[Any]) -> None:
            if topic == COMMANDS:
                world.engine.on_commands(items, world.states, self.policies, topic)
            else:
                deliver(topic, items)

        world.deliver = either  # type: ignore[method-assign]

    def checkpoint(self) -> None:
        """All agents' rows, before the commit."""
        frozen = self.policies.freeze(1)
        self.policy_rows.update(frozen.puts)
        self.policies.written(frozen)
        super().checkpoint()

    def tell(self) -> None:
        super().tell()
        for alert in list(self.told):
            if alert.state == "open" and alert.alert_id not in self.answered:
                self.answered.add(alert.alert_id)
                self.answer(alert)

    def answer(self, alert: Alert) -> None:
        number = len(self.answered)
        about = {"environment": alert.environment, "model": alert.model, "incident_id": alert.incident_id}
        for action in ("acknowledge", "note", "note"):
            if self.chance.random() < 0.5:
                self.logs[COMMANDS].append(AlertCommand(
                    command_id=f"{action}-{number}", ts=alert.ts, actor="ana", action=action,  # type: ignore[arg-type]
                    text=f"{action} {number}", **about))
        if number == 2:
            self.logs[COMMANDS].append(AlertCommand(
                command_id="s", ts=alert.ts, actor="ana", action="silence", silence=Silence(
                    silence_id="s", model="fraud", from_ms=ORIGIN_MS, until_ms=ORIGIN_MS + 10**9)))


@settings(max_examples=40, deadline=None)
@given(Phases, st.integers(0, 2**32), st.integers(0, 6))
def test_answers_are_carried_out_once_and_kept_over_any_crashes(phases: list[tuple[str, int]], seed: int,
                                                                crashes: int) -> None:
    chance = random.Random(seed)
    run = Answering(with_repeats(script(phases), chance), chance).go(crashes)
    while run.batch():              # what was answered at the very end
        pass
    run.tell()
    story: dict[str, dict[str, Alert]] = defaultdict(dict)
    for alert in run.told:
        known = story[alert.incident_id].setdefault(alert.alert_id, alert)
        assert known == alert, "an id that is said again says the same"
    for alerts in story.values():
        told = [alert.state for alert in alerts.values()]
        assert told[0] == "open" and told.count("open") == 1 and told.count("acknowledged") <= 1
        assert "resolved" not in told[:-1]
        assert [alert_id.rsplit("-", 1)[1] for alert_id in alerts] == [str(number) for number in range(len(alerts))]
        notes = [alert.note for alert in alerts.values() if alert.state == "noted"]
        assert len(notes) == len(set(notes)), "a note that was sent twice is told once"
    nothing_is_lost(run, story)
    for key in list(run.world.states.keys()):
        for slot in run.world.states.entry(key).state.slots.values():
            if slot.incident is not None:
                asked = [command for command in run.logs[COMMANDS] if isinstance(command, AlertCommand)
                         and command.incident_id == slot.incident.incident_id and command.action == "acknowledge"]
                assert bool(slot.incident.acknowledged_by) is bool(asked), "none that came in time is lost"


def test_the_scripted_run_does_what_the_property_is_about() -> None:
    phases = [("odd", 25), ("calm", 25), ("slow", 10), ("calm", 25), ("odd", 20), ("slow", 10)]
    run = Answering(script(phases), random.Random(7), stray=0.0).go(3)
    while run.batch():
        pass
    run.tell()
    assert {"acknowledged", "noted"} <= {alert.state for alert in run.told}
    assert "s" in {alert.silenced_by for alert in run.told}
    assert [silence.silence_id for silence in silences_of(run.policies.entry(POLICY).state)] == ["s"]
