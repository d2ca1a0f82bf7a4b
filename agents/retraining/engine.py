"""The pure core: drift events in, at most one open request a model out. The retraining itself is another's work.

A request waits until its drift has lasted; closed windows are the clock, so that no time but that of events counts. It
leaves by an outbox in the state: whether the end of the wait or news of a broken feed is read first may differ after a
crash, and what was asked for must then be what is remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

from agents.retraining.policy import INCUMBENT, SEVERITIES, WEEK_MS, RetrainingOptions, asks, is_broken_feed
from agents.retraining.state import Asked, Codec, Wish
from schemas.drift import DriftEvent, RetrainingRequest
from streams.state.keyed import Entry, KeyedStates
from streams.windows.closed import ClosedWindow

__all__ = ["RetrainingEngine", "RetrainingOptions"]

_UNIT = "\x1f"
#: Feeds of a model that can be known as broken at a time, and drifts that a request can name.
MOST_BROKEN, MOST_DRIFTS = 256, 64

States = KeyedStates[Asked]


class RetrainingEngine:
    """One a worker; keys are environment and model."""

    def __init__(self, options: RetrainingOptions | None = None) -> None:
        self.options = options or RetrainingOptions()
        self.codec = Codec()
        self._waiting: WeakKeyDictionary[States, set[str]] = WeakKeyDictionary()

    def on_drift(self, events: Sequence[tuple[int, DriftEvent]], states: States, topic: str) -> None:
        """Take in drift, (offset, event) in log order."""
        for offset, event in events:
            entry = states.entry(_UNIT.join((event.environment, event.model)))
            if entry.includes(topic, offset):
                continue
            self._advance(entry.state, event.environment, event.model, event.detected_ms)
            self._judge(entry.state, event)
            states.touch(entry, topic, offset)
            self._note(states, entry)

    def on_windows(self, windows: Sequence[tuple[int, ClosedWindow]], states: States) -> None:
        """Take in closed windows, as the clock of what waits."""
        waiting = self._keys(states)
        if not waiting:
            return
        for _, window in windows:
            key = _UNIT.join((window.environment, window.model))
            if key in waiting:
                entry = states.entry(key)
                end_ms = window.start_ms + window.size_ms
                if self._advance(entry.state, window.environment, window.model, end_ms):
                    states.touch(entry)
                    self._note(states, entry)

    def outbox(self, states: States) -> list[RetrainingRequest]:
        """Requests not yet said to be published."""
        return [RetrainingRequest.model_validate_json(raw) for key in sorted(self._keys(states))
                for raw in states.entry(key).state.outbox.values()]

    def published(self, states: States, request_ids: Iterable[str]) -> None:
        """Take requests out of the outbox, once the broker has them."""
        gone = set(request_ids)
        for key in sorted(self._keys(states)):
            entry = states.entry(key)
            out = gone & entry.state.outbox.keys()
            for request_id in out:
                del entry.state.outbox[request_id]
            if out:
                states.touch(entry)
                self._note(states, entry)

    def _keys(self, states: States) -> set[str]:
        """Models with something that waits or is on its way."""
        known = self._waiting.get(states)
        if known is None:
            known = self._waiting[states] = set()
            for key in list(states.keys()):
                self._note(states, states.entry(key))
        return known

    def _note(self, states: States, entry: Entry[Asked]) -> None:
        known = self._keys(states)
        if entry.state.wish is not None or entry.state.outbox:
            known.add(entry.key)
        else:
            known.discard(entry.key)

    def _judge(self, asked: Asked, event: DriftEvent) -> None:
        self._note_feed(asked, event)
        series = _series(event)
        if event.state == "recovered":
            _recovered(asked, series)
        if not asks(event, self.options):
            return
        if asked.broken:
            asked.excused += 1
        elif self._is_spent(asked, event.detected_ms):
            asked.joined += 1
        else:
            self._wish(asked, event, series)

    def _note_feed(self, asked: Asked, event: DriftEvent) -> None:
        """Feeds break and are mended; one that stays broken for a cooldown is as it is now. A new version's own trouble
        is no broken feed of the model."""
        feed = _series(event)
        if event.state == "recovered":
            asked.broken.pop(feed, None)
        elif is_broken_feed(event) and event.detector != INCUMBENT and len(asked.broken) < MOST_BROKEN:
            asked.broken[feed] = event.detected_ms
            if asked.wish is not None:
                asked.excused += len(asked.wish.drift_ids)
                asked.wish = None
        over_ms = event.detected_ms - self.options.cooldown_ms
        asked.broken = {feed: since_ms for feed, since_ms in asked.broken.items() if since_ms > over_ms}

    def _is_spent(self, asked: Asked, now_ms: int) -> bool:
        """True within the cooldown, or if the week's budget is used up."""
        recent = [at for at in asked.requested if at > now_ms - WEEK_MS]
        return bool(recent) and (now_ms < recent[-1] + self.options.cooldown_ms
                                 or len(recent) >= self.options.most_a_week)

    def _wish(self, asked: Asked, event: DriftEvent, series: str) -> None:
        wish = asked.wish
        if wish is None:
            asked.wish = Wish(event.detected_ms + self.options.persistence_ms, event.version, event.component,
                              event.severity, _reason(event), [event.drift_id], [series])
            return
        if len(wish.drift_ids) < MOST_DRIFTS and event.drift_id not in wish.drift_ids:
            wish.drift_ids.append(event.drift_id)
            wish.open.append(series)
        if SEVERITIES.index(event.severity) > SEVERITIES.index(wish.severity):
            wish.severity, wish.reason = event.severity, _reason(event)

    def _advance(self, asked: Asked, environment: str, model: str, now_ms: int) -> bool:
        """The wish into a request if it is due; True if so."""
        wish = asked.wish
        if wish is None or now_ms < wish.due_ms:
            return False
        digest = hashlib.blake2b(wish.drift_ids[0].encode(), digest_size=12).hexdigest()
        request = RetrainingRequest.model_validate({
            "request_id": f"rr-{digest}", "ts": wish.due_ms, "environment": environment, "model": model,
            "version": wish.version, "component": wish.component, "severity": wish.severity,
            "drift_ids": wish.drift_ids, "reason": wish.reason, "dedupe_key": _dedupe_key(environment, model)})
        asked.outbox[request.request_id] = request.model_dump_json()
        asked.requested = [at for at in asked.requested if at > wish.due_ms - WEEK_MS] + [wish.due_ms]
        asked.wish, asked.joined, asked.excused, asked.faded = None, 0, 0, 0
        return True


def _recovered(asked: Asked, series: str) -> None:
    """A series is back; a wish none of whose series is off any more is over."""
    wish = asked.wish
    if wish is not None and series in wish.open:
        wish.open = [other for other in wish.open if other != series]
        if not wish.open:
            asked.faded += len(wish.drift_ids)
            asked.wish = None


def _series(event: DriftEvent) -> str:
    return _UNIT.join((event.component, event.version, event.field, event.statistic))


def _reason(event: DriftEvent) -> str:
    where = ", ".join(f"{key}={value}" for key, value in event.segment.items())
    return (f"{event.kind} drift of {event.field}: {event.before:.4g} to {event.after:.4g}"
            + (f", most in {where}" if where else ""))[:512]


def _dedupe_key(environment: str, model: str) -> str:
    """environment/model; long names end in a digest, so that different ones stay different."""
    name = f"{environment}/{model}"
    if len(name) <= 128:
        return name
    return f"{name[:103]}-{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"
