"""Signals come and go; incidents open, escalate and resolve. At most one incident is open in a slot.

A slot is one component and one family of causes, so that one cause, seen by several rules, is one incident:
data (unusual events, drift of inputs and predictions), latency, errors, performance (late labels), silence.

Flapping. An incident resolves when its last signal has ended. For `cooldown_ms` after that the slot does not open
again, unless with a higher severity, critical. A signal that comes in the meantime is kept: if it is still there when
the cooldown is over, the incident opens then, with the signal's own onset. A slot that opens again and again has its
cooldown doubled each time (`damped_ms`), and says so (`flapping`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from agents.alerts import text
from agents.alerts.options import FLAP_LONGEST_MS, FLAP_MS, FLAP_OPENINGS, MAX_EVIDENCE, MAX_NAMED_VERSIONS, MAX_SIGNALS
from agents.alerts.state import Clue, Incident, ModelState, Signal, Slot
from schemas.alerts import Alert, Evidence

#: How long a slot is kept after its incident. Topics are read apart after a crash: a drift event from before the end of
#: an incident may come after the windows from behind it, and must not open another before that end. For as long
#: such a signal is not told as an incident of its own: the drift agent is behind, and what ends it has yet to come.
REMEMBERED_MS = 600_000

RANK = {"info": 0, "warning": 1, "critical": 2}
SILENCE = "silence"


def slot_of(state: ModelState, component: str, family: str) -> Slot:
    """The slot, made if need be."""
    key = f"{component}\x1f{family}"
    slot = state.slots.get(key)
    if slot is None:
        slot = state.slots[key] = Slot(component, family)
    return slot


def find_slot(state: ModelState, component: str, family: str) -> Slot | None:
    """The slot, if there is one."""
    return state.slots.get(f"{component}\x1f{family}")


def raise_signal(slot: Slot, name: str, signal: Signal, clues: Iterable[Clue] = ()) -> None:
    """Say that something is wrong, or still is; severity only grows while it lasts."""
    old = slot.signals.get(name)
    if old is not None:
        signal.raised_ms = old.raised_ms
        signal.onset_ms = min(old.onset_ms, signal.onset_ms)
        signal.severity = max(old.severity, signal.severity, key=RANK.__getitem__)
        _merge(signal.versions, old.versions)
    if old is not None or len(slot.signals) < MAX_SIGNALS:
        slot.signals[name] = signal
    if slot.incident is not None:
        _merge(slot.incident.versions, signal.versions)
        slot.incident.onset_ms = min(slot.incident.onset_ms, signal.onset_ms)
    for clue in clues:
        add_clue(slot, clue)


def add_clue(slot: Slot, clue: Clue) -> None:
    """Evidence for the open incident: the first and the latest are kept."""
    incident = slot.incident
    if incident is None:
        return
    incident.evidence_total += 1
    if len(incident.evidence) >= MAX_EVIDENCE:
        del incident.evidence[MAX_EVIDENCE // 2]
    incident.evidence.append(clue)


def settle(state: ModelState, slot: Slot, now_ms: int, cooldown_ms: int, clues: Iterable[Clue] = (),
           ending: str = "calm") -> None:
    """Make the transition that the slot's signals call for, if any. `clues` go with an opening."""
    incident = slot.incident
    if not slot.signals:
        if incident is not None:
            _resolve(state, slot, incident, now_ms, ending)
        return
    if incident is None and now_ms < slot.resolved_ms + REMEMBERED_MS \
            and all(signal.raised_ms <= slot.resolved_ms for signal in slot.signals.values()):
        return          # from before the end, and come after it: most likely their own end is on its way too
    lead = max(slot.signals.values(), key=lambda signal: (RANK[signal.severity], -signal.raised_ms))
    if incident is None:
        worse = lead.severity == "critical" and RANK[lead.severity] > RANK.get(slot.resolved_severity, 2)
        if slot.resolved_ms < 0 or worse or now_ms >= slot.resolved_ms + damped_ms(slot, now_ms, cooldown_ms):
            _open(state, slot, lead, now_ms, clues)
    elif RANK[lead.severity] > RANK[incident.severity]:
        incident.severity = lead.severity
        tell(state, slot, incident, "escalated", now_ms, lead.title, lead.detail, lead)


def idle(slot: Slot, now_ms: int, cooldown_ms: int) -> bool:
    """True if the slot can be forgotten: nothing in it, no cooldown that matters, and no event from before its end."""
    kept = max(cooldown_ms, REMEMBERED_MS if len(slot.opened) < 2 else FLAP_LONGEST_MS)
    return not slot.signals and slot.incident is None and now_ms > slot.resolved_ms + kept


def damped_ms(slot: Slot, now_ms: int, cooldown_ms: int) -> int:
    """The cooldown of a slot, doubled for each opening above FLAP_OPENINGS - 1 within FLAP_MS."""
    recent = sum(opened > now_ms - FLAP_MS for opened in slot.opened)
    return max(cooldown_ms, min(cooldown_ms << max(0, recent - FLAP_OPENINGS + 1), FLAP_LONGEST_MS))


def _open(state: ModelState, slot: Slot, lead: Signal, now_ms: int, clues: Iterable[Clue]) -> None:
    opened = max(now_ms, slot.resolved_ms + 1)
    signals = list(slot.signals.values())
    evidence = list(clues)[-MAX_EVIDENCE:]
    incident = Incident(
        incident_id=incident_id(state, slot, opened), cause=lead.cause, severity=lead.severity, opened_ms=opened,
        onset_ms=min(opened, *(signal.onset_ms for signal in signals)), version=lead.version, last_ms=opened,
        about=lead.title.partition(": ")[0],
        field=lead.field, threshold=lead.threshold, evidence=evidence,
        evidence_total=max(len(evidence), sum(signal.count for signal in signals)),
        rule=lead.rule, pending_ms=lead.pending_ms)
    slot.opened = [*(ms for ms in slot.opened if ms > opened - FLAP_MS), opened]
    incident.flapping = len(slot.opened) >= FLAP_OPENINGS
    for signal in signals:
        _merge(incident.versions, signal.versions)
    slot.incident = incident
    tell(state, slot, incident, "open", opened, lead.title, lead.detail, lead)


def _resolve(state: ModelState, slot: Slot, incident: Incident, now_ms: int, ending: str) -> None:
    now = max(now_ms, incident.last_ms)
    said = text.resolved(slot.family, ending, now - incident.opened_ms)
    tell(state, slot, incident, "resolved", now, f"{incident.about}: {said}", "", None)
    slot.incident, slot.resolved_ms, slot.resolved_severity = None, now, incident.severity


def tell(state: ModelState, slot: Slot, incident: Incident, transition: str, now_ms: int, title: str, detail: str,
          lead: Signal | None, **more: Any) -> None:
    """Put the transition into the outbox; `more` are further fields of the alert."""
    incident.last_ms = max(now_ms, incident.last_ms)
    alert = Alert(
        environment=state.environment, model=state.model, version=incident.version, component=slot.component,
        alert_id=f"{incident.incident_id}-{transition}-{incident.transitions}", incident_id=incident.incident_id,
        state=cast(Any, transition), cause=cast(Any, incident.cause), severity=cast(Any, incident.severity),
        title=text.clip(title), detail=text.clip(detail), ts=incident.last_ms, opened_ms=incident.opened_ms,
        onset_ms=max(0, incident.onset_ms), field=incident.field, value=lead.value if lead else None,
        threshold=lead.threshold if lead else incident.threshold, versions=list(incident.versions),
        evidence=[Evidence(kind=cast(Any, clue.kind), id=clue.id, ts=clue.ts, text=clue.text)
                  for clue in incident.evidence],
        evidence_total=incident.evidence_total, level=incident.level, flapping=incident.flapping, rule=incident.rule,
        pending_ms=incident.pending_ms if incident.pending_ms >= 0 else None, **more)
    incident.transitions += 1
    state.outbox[alert.alert_id] = msgspec.Raw(alert.model_dump_json().encode())


def incident_id(state: ModelState, slot: Slot, opened_ms: int) -> str:
    """The same for the same model, partition, component, family and opening time.

    Of a model that comes through several partitions each has incidents of its own, often opened in the same window.
    """
    what = "\x1f".join((state.environment, state.model, str(state.partition), slot.component, slot.family))
    return f"i-{hashlib.blake2b(what.encode(), digest_size=8).hexdigest()}-{slot.family}-{opened_ms}"


def _merge(into: list[str], more: Iterable[str]) -> None:
    for version in more:
        if version and version not in into and len(into) < MAX_NAMED_VERSIONS:
            into.append(version)
