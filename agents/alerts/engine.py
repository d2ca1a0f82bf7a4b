"""The pure core: anomalies, closed windows and drift events in, incidents out.

State is per model and environment (`agents.alerts.state`); each entry's fence says how far it has read each of the
three topics. After a crash the topics interleave in another way, and the agents before this one repeat outputs, so:

* repeats are dropped by what they are: anomalies by their place in telemetry, windows by their start, drift by id;
* transitions wait in an outbox within the state. They are published after a snapshot holds them, and leave the outbox
  after that; a crash in between publishes them again, with the same ids.

Limits. A model's telemetry should come through one partition (the topic's key is the model); a model spread over
several is watched in each of them by itself. Of a window, the copy that comes first counts; amendments do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agents.alerts import custom, drift, life, ruleset, silence, text, watch
from agents.alerts.incident import SILENCE, find_slot, raise_signal, settle, slot_of
from agents.alerts.options import STALL_MS, AlertOptions
from agents.alerts.ruleset import RuleSet, SilenceRule
from agents.alerts.state import ModelCodec, ModelState, Signal, key_of
from schemas.alerts import Alert, AlertCommand, Silence
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams import log
from streams.state.keyed import Entry, KeyedStates
from streams.windows.closed import ClosedWindow

__all__ = ["AlertEngine", "AlertOptions"]
logger = log.get(__name__)
#: What silence is about: the model as a whole.
WHOLE = "model"
States = KeyedStates[ModelState]
Policies = KeyedStates[life.Policy]


class _About(Protocol):
    @property
    def environment(self) -> str: ...
    @property
    def model(self) -> str: ...


@dataclass(slots=True, eq=False)
class _Index:
    """What is kept beside the states of one partition, in memory only.

    `clock_ms` is the newest window start read since this worker took the partition; `heard` says when (wall clock) a
    model's last window came. Both start anew with the worker, so that its own downtime is no model's silence.
    """

    states: States
    waiting: set[str] = field(default_factory=set)
    heard: dict[str, int] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    #: Alerts of the outbox that carry their owner and silence; those in a snapshot all do.
    stamped: set[str] = field(default_factory=set)
    clock_ms: int = -1
    ticked_ms: int = -1


class AlertEngine:
    """The rules over the keyed states of any number of partitions. Synchronous; no clock of its own.

    Cost: a window of another granularity than the finest is skipped at once; one without errors or anomalies, and
    with usual latency, costs some microseconds; others are summed over at most 120 buckets a version.
    """

    def __init__(self, options: AlertOptions | None = None) -> None:
        self.options = options or AlertOptions()
        #: Of a partition, with the rules that are in force there.
        self._in_force: dict[int, AlertOptions] = {}
        self.codec = ModelCodec()
        self.policy_codec = life.PolicyCodec()
        self._silences: dict[int, list[Silence]] = {}
        self._indices: dict[int, _Index] = {}

    # -- inputs -----------------------------------------------------------------------------------

    def on_anomalies(self, items: Sequence[tuple[int, Anomaly]], states: States, topic: str) -> None:
        """Take in anomalies, (offset, message) in log order."""
        index, options = self._index(states), self._of(states)
        for offset, anomaly in items:
            entry = _entry(states, anomaly)
            if not entry.includes(topic, offset):
                watch.take_anomaly(entry.state, anomaly, options)
                self._done(entry, states, index, topic, offset)

    def on_windows(self, items: Sequence[tuple[int, ClosedWindow]], states: States, topic: str) -> None:
        """Take in closed windows, (offset, message) in log order."""
        index, options, size = self._index(states), self._of(states), self.options.bucket_ms
        for offset, window in items:
            if window.size_ms != size:
                continue
            if window.start_ms > index.clock_ms:
                index.clock_ms = window.start_ms
            entry = _entry(states, window)
            index.fresh.add(entry.key)
            if not entry.includes(topic, offset):
                self._end_silence(entry.state, window)
                watch.take_window(entry.state, window, options)
                self._done(entry, states, index, topic, offset)

    def on_drift(self, items: Sequence[tuple[int, DriftEvent]], states: States, topic: str) -> None:
        """Take in drift events, (offset, message) in log order."""
        index, options = self._index(states), self._of(states)
        for offset, event in items:
            entry = _entry(states, event)
            if not entry.includes(topic, offset):
                drift.take(entry.state, event, options)
                self._done(entry, states, index, topic, offset)

    def on_commands(self, items: Sequence[tuple[int, AlertCommand]], states: States, policies: Policies,
                    topic: str) -> None:
        """Take in people's commands, (offset, message) in log order."""
        index, policy = self._index(states), policies.entry(life.POLICY)
        for offset, command in items:
            if not policy.includes(topic, offset):
                life.decide(policy.state, command)
                policies.touch(policy, topic, offset)
            key = key_of(command.environment, command.model)
            if command.incident_id and key in states:
                entry = states.entry(key)
                if not entry.includes(topic, offset):
                    life.carry_out(entry.state, command)
                    self._done(entry, states, index, topic, offset)
        self.obey(policies)

    def obey(self, policies: Policies) -> None:
        """Act on the policy of a partition from now on; after a start, or a command."""
        policy = policies.entry(life.POLICY).state
        self._silences[policies.partition] = life.silences_of(policy)
        try:
            rules = ruleset.read(policy.rules) if policy.rules else ruleset.NONE
        except ValueError as error:             # a newer gateway's; those before stay in force
            logger.error("rules.unreadable", version=policy.version, error=str(error)[:300])
            return
        base = self.options.ruleset
        self._in_force[policies.partition] = replace(self.options, ruleset=rules.over(base))

    def base(self, rules: RuleSet) -> None:
        """The rules of the file from now on; `obey` then puts them under those of the policy of each partition."""
        self.options = replace(self.options, ruleset=rules)

    def tick(self, states: States, now_ms: int) -> None:
        """Look for models that have gone silent; to be called every second or so with the wall clock."""
        index = self._index(states)
        if index.ticked_ms < 0 or now_ms - index.ticked_ms > STALL_MS:
            index.heard.clear()
        index.ticked_ms = now_ms
        for key in index.fresh:
            index.heard[key] = now_ms
        index.fresh.clear()
        options = self._of(states)
        for key in list(states.keys()):
            waited = now_ms - index.heard.setdefault(key, now_ms)
            entry = states.entry(key)
            if waited > self.options.retire_ms:
                self._retire(entry, states, index)
                continue
            state = entry.state
            if state.tallies:
                custom.forget(state, options)
            now = max(state.clock_ms, state.last_start_ms + waited)
            if self._silent(state, waited, index.clock_ms, options) | life.escalate(state, now, self.options):
                self._done(entry, states, index)

    # -- outputs ----------------------------------------------------------------------------------

    def outbox(self, states: States) -> list[Alert]:
        """Alerts not yet said to be published, in order of making within a model."""
        index = self._index(states)
        return [Alert.model_validate_json(bytes(raw)) for key in sorted(index.waiting)
                for raw in states.entry(key).state.outbox.values()]

    def published(self, states: States, alert_ids: Iterable[str]) -> None:
        """Take alerts out of the outbox, once the broker has them."""
        index, gone = self._index(states), set(alert_ids)
        for key in sorted(index.waiting):
            entry = states.entry(key)
            out = gone & entry.state.outbox.keys()
            if out:
                for alert_id in out:
                    del entry.state.outbox[alert_id]
                index.stamped -= out
                states.touch(entry)
            if not entry.state.outbox:
                index.waiting.discard(key)

    # -- silence ----------------------------------------------------------------------------------

    def _silent(self, state: ModelState, waited_ms: int, clock_ms: int, options: AlertOptions) -> bool:
        """Raise the signal if it is due. True if the state changed."""
        quiet = max(waited_ms, clock_ms - state.last_start_ms)
        done = False
        for rule in options.ruleset.rules:
            if isinstance(rule, SilenceRule) and rule.concerns(state.environment, state.model):
                done |= self._must_not_be_silent(state, rule, quiet)
        if quiet <= options.silence_ms or not options.built_in:
            return done
        return self._unusually_silent(state, quiet, options) or done

    def _must_not_be_silent(self, state: ModelState, rule: SilenceRule, quiet_ms: int) -> bool:
        """A rule that says how long a model may be quiet."""
        name, last = f"rule:{rule.name}", state.last_start_ms + self.options.bucket_ms
        slot = find_slot(state, WHOLE, name)
        if quiet_ms <= 1000 * rule.after_s or (slot is not None and name in slot.signals) or state.last_start_ms < 0:
            return False
        slot, due = slot_of(state, WHOLE, name), last + 1000 * rule.after_s
        said = rule.title or f"silent for {text.duration(1000 * rule.after_s)}"
        raise_signal(slot, name, Signal(
            SILENCE, rule.severity, due, due, last, f"{text.subject(state.environment, state.model, WHOLE)}: {said}",
            text.silent_detail(last), state.version, [state.version], None, float(quiet_ms), float(1000 * rule.after_s),
            rule=rule.name))
        settle(state, slot, due, self.options.cooldown_ms)
        return True

    def _unusually_silent(self, state: ModelState, quiet: int, options: AlertOptions) -> bool:
        """The built-in rule: longer than is usual for the model."""
        limit = silence.limit_ms(state.pauses, options)
        if limit is None or quiet <= limit:
            return False
        slot = slot_of(state, WHOLE, SILENCE)
        last = state.last_start_ms + options.bucket_ms
        due = max(last + limit, slot.resolved_ms + options.cooldown_ms if slot.resolved_ms >= 0 else 0)
        if SILENCE in slot.signals or state.last_start_ms + quiet < due:
            return False
        said = text.silent(due - last, silence.usual_gap_ms(state.pauses))
        raise_signal(slot, SILENCE, Signal(
            SILENCE, "critical", due, due, last, f"{text.subject(state.environment, state.model, WHOLE)}: {said}",
            text.silent_detail(last), state.version, [state.version], None, float(due - last), float(limit)))
        settle(state, slot, due, options.cooldown_ms)
        return True

    def _end_silence(self, state: ModelState, window: ClosedWindow) -> None:
        """Learn the gap before a new window; if there was silence, it is over."""
        if window.start_ms <= state.last_start_ms:
            return
        slot = find_slot(state, WHOLE, SILENCE)
        alarmed = slot is not None and SILENCE in slot.signals
        if state.last_start_ms >= 0:
            silence.note_gap(state.pauses, window.start_ms - state.last_start_ms, alarmed)
        state.last_start_ms = window.start_ms
        for one in [one for one in state.slots.values() if one.component == WHOLE]:
            ended = [name for name, signal in one.signals.items() if signal.cause == SILENCE]
            for name in ended:
                del one.signals[name]
            if ended:
                settle(state, one, window.start_ms, self.options.cooldown_ms, ending="back")

    def _retire(self, entry: Entry[ModelState], states: States, index: _Index) -> None:
        """Forget a model that has been gone for long, in two steps: say so, then drop it."""
        for slot in entry.state.slots.values():
            if slot.incident is not None:
                slot.signals.clear()
                settle(entry.state, slot, entry.state.clock_ms, self.options.cooldown_ms, ending="forgotten")
        if entry.state.outbox:
            self._done(entry, states, index)
            return
        states.drop(entry.key)
        index.heard.pop(entry.key, None)

    # -- bookkeeping ------------------------------------------------------------------------------

    def _done(self, entry: Entry[ModelState], states: States, index: _Index, topic: str | None = None,
              offset: int = -1) -> None:
        states.touch(entry, topic, offset)
        outbox = entry.state.outbox
        if outbox:
            index.waiting.add(entry.key)
            for alert_id in outbox.keys() - index.stamped:
                outbox[alert_id], _ = life.stamped(outbox[alert_id], self._silences.get(states.partition, ()),
                                                   states.partition)
                index.stamped.add(alert_id)

    def _of(self, states: States) -> AlertOptions:
        return self._in_force.get(states.partition, self.options)

    def _index(self, states: States) -> _Index:
        index = self._indices.get(states.partition)
        if index is None or index.states is not states:
            waiting = {key for key in states.keys() if states.entry(key).state.outbox}  # noqa: SIM118
            index = self._indices[states.partition] = _Index(states, waiting)
            index.stamped.update(*(states.entry(key).state.outbox for key in waiting))
        return index


def _entry(states: States, message: _About) -> Entry[ModelState]:
    entry = states.entry(key_of(message.environment, message.model))
    entry.state.partition = states.partition
    return entry
