"""What people do with incidents: acknowledge, note, silence; and what happens when they do nothing.

Commands come by a topic, so that one owner decides and every gateway sees the same: about an incident to its own
partition, about silences and rules to all. A command is carried out once, by its id, however often it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from agents.alerts import text
from agents.alerts.incident import RANK, tell
from agents.alerts.options import MAX_COMMANDS, MAX_LEVEL, MAX_SILENCES, AlertOptions
from agents.alerts.ruleset import matches
from agents.alerts.state import Incident, ModelState, Signal, Slot, bounded
from schemas.alerts import Alert, AlertCommand, Silence

#: The one key of a partition's policy.
POLICY = "policy"
#: An expired silence is kept for so long, as history that is read again may lie within it.
KEPT_MS = 7 * 24 * 3_600_000


class Policy(msgspec.Struct, omit_defaults=True):
    """Silences (JSON by id) and rules (JSON text) as the commands left them. The same in every partition."""

    silences: dict[str, msgspec.Raw] = {}
    rules: str = ""
    version: int = 0


class PolicyCodec:
    """Policies as JSON."""

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[Policy] = msgspec.json.Decoder(Policy)

    def new(self, key: str) -> Policy:
        return Policy()

    def encode(self, key: str, state: Policy) -> bytes:
        return msgspec.json.encode(state)

    def decode(self, key: str, data: bytes) -> Policy:
        return self._decoder.decode(data)


def decide(policy: Policy, command: AlertCommand) -> bool:
    """Carry out a command about silences or rules; False if it is about something else, or changes nothing."""
    if command.action == "silence" and command.silence is not None:
        for one in silences_of(policy):
            if one.until_ms < command.ts - KEPT_MS:
                del policy.silences[one.silence_id]
        policy.silences[command.silence.silence_id] = msgspec.Raw(command.silence.model_dump_json().encode())
        bounded(policy.silences, MAX_SILENCES)
        return True
    if command.action == "unsilence":
        return policy.silences.pop(command.text, None) is not None
    if command.action == "rules" and command.version > policy.version:
        policy.rules, policy.version = command.rules, command.version
        return True
    return False


def silences_of(policy: Policy) -> list[Silence]:
    """The silences, read."""
    return [Silence.model_validate_json(bytes(raw)) for raw in policy.silences.values()]


def falls_under(alert: Alert, silence: Silence) -> bool:
    """True if the silence is about the alert's incident, and its event time lies within."""
    pairs = ((silence.environment, alert.environment), (silence.model, alert.model),
             (silence.component, alert.component), (silence.cause, alert.cause))
    return silence.from_ms <= alert.ts < silence.until_ms and all(matches(*pair) for pair in pairs)


def stamped(raw: Any, silences: Iterable[Silence], partition: int) -> tuple[msgspec.Raw, bool]:
    """An alert of the outbox with its owner and the silence that it falls under; and whether there is one."""
    alert = Alert.model_validate_json(bytes(raw))
    found = next((silence.silence_id for silence in silences if falls_under(alert, silence)), "")
    alert = alert.model_copy(update={"partition": partition, "silenced_by": found})
    return msgspec.Raw(alert.model_dump_json().encode()), bool(found)


def carry_out(state: ModelState, command: AlertCommand) -> bool:
    """A command about an incident of this model. False: there is none, or it was carried out before."""
    if command.command_id in state.commands:
        return False
    found = next((slot for slot in state.slots.values()
                  if slot.incident is not None and slot.incident.incident_id == command.incident_id), None)
    if found is None or found.incident is None:
        return False
    state.commands[command.command_id] = command.ts
    bounded(state.commands, MAX_COMMANDS)
    incident = found.incident
    if command.action == "acknowledge" and not incident.acknowledged_by:
        incident.acknowledged_by = command.actor or "somebody"
        _say(state, found, incident, "acknowledged", command)
    elif command.action == "note" or command.text:
        _say(state, found, incident, "noted", command)
    return True


def _say(state: ModelState, slot: Slot, incident: Incident, transition: str, command: AlertCommand) -> None:
    lead = _lead(slot)
    tell(state, slot, incident, transition, state.clock_ms, lead.title, lead.detail, lead, actor=command.actor,
         note=command.text)


def _lead(slot: Slot) -> Signal:
    """What is wrong, in the gravest of the signals; an open incident has one."""
    return max(slot.signals.values(), key=lambda signal: (RANK[signal.severity], -signal.raised_ms))


def escalate(state: ModelState, now_ms: int, options: AlertOptions) -> bool:
    """Escalate incidents that nobody has acknowledged for long. True if one did."""
    done = False
    for slot in state.slots.values():
        incident = slot.incident
        if incident is None or incident.acknowledged_by or incident.level >= MAX_LEVEL or not options.escalate_ms:
            continue
        if RANK[incident.severity] < RANK["warning"]:
            continue
        waited = now_ms - incident.opened_ms
        if waited >= options.escalate_ms * ((2 << incident.level) - 1):
            incident.level += 1
            said, lead = f"Nobody has acknowledged this for {text.duration(waited)}.", _lead(slot)
            tell(state, slot, incident, "escalated", now_ms, lead.title, f"{said} {lead.detail}", lead)
            done = True
    return done
