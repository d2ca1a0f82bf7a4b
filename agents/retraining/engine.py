"""The pure core: drift events in, at most one open request a model out. The retraining itself is another's work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agents.retraining.policy import INCUMBENT, asks, is_broken_feed
from schemas.drift import DriftEvent, RetrainingRequest
from streams.settings import Settings
from streams.state.keyed import KeyedStates

_UNIT = "\x1f"
_NEVER = -(1 << 62)
#: Feeds of a model that can be known as broken at a time.
MOST_BROKEN = 256


@dataclass(frozen=True, slots=True)
class RetrainingOptions:
    """`cooldown_ms` (event time) after a request, in which the model gets no other."""

    cooldown_ms: int = 6 * 3_600_000

    @classmethod
    def from_settings(cls, settings: Settings) -> RetrainingOptions:
        return cls(settings.retraining_cooldown_ms)


class Asked(msgspec.Struct):
    """The last request of a model in an environment, and the drift since then that made no other.

    `joined` came within the cooldown, `excused` while a feed was broken. `broken`: feed -> when it broke.
    """

    requested_ms: int = _NEVER
    request_id: str = ""
    joined: int = 0
    excused: int = 0
    broken: dict[str, int] = {}


class Codec:
    """`Asked` as msgpack."""

    def new(self, key: str) -> Asked:
        return Asked()

    def encode(self, key: str, state: Asked) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, data: bytes) -> Asked:
        """Raises ValueError if the bytes are damaged."""
        try:
            return msgspec.msgpack.decode(data, type=Asked)
        except msgspec.MsgspecError as error:
            raise ValueError(f"retraining state is damaged: {error}") from None


class RetrainingEngine:
    """One a worker; keys are environment and model."""

    def __init__(self, options: RetrainingOptions | None = None) -> None:
        self.options = options or RetrainingOptions()
        self.codec = Codec()

    def run(self, events: Sequence[tuple[int, DriftEvent]], states: KeyedStates[Asked],
            topic: str) -> list[RetrainingRequest]:
        """Take in drift, (offset, event) in log order; requests that open."""
        found = []
        for offset, event in events:
            entry = states.entry(_UNIT.join((event.environment, event.model)))
            if entry.includes(topic, offset):
                continue
            request = self._judge(entry.state, event)
            if request is not None:
                found.append(request)
            states.touch(entry, topic, offset)
        return found

    def _judge(self, asked: Asked, event: DriftEvent) -> RetrainingRequest | None:
        self._note_feed(asked, event)
        if not asks(event):
            return None
        if asked.broken:
            asked.excused += 1
            return None
        if event.detected_ms < asked.requested_ms + self.options.cooldown_ms:
            asked.joined += 1
            return None
        return self._request(asked, event)

    def _note_feed(self, asked: Asked, event: DriftEvent) -> None:
        """Feeds break and are mended; one that stays broken for a cooldown is as it is now. A new version's own trouble
        is no broken feed of the model."""
        feed = _UNIT.join((event.component, event.version, event.field, event.statistic))
        if event.state == "recovered":
            asked.broken.pop(feed, None)
        elif is_broken_feed(event) and event.detector != INCUMBENT and len(asked.broken) < MOST_BROKEN:
            asked.broken[feed] = event.detected_ms
        over_ms = event.detected_ms - self.options.cooldown_ms
        asked.broken = {feed: since_ms for feed, since_ms in asked.broken.items() if since_ms > over_ms}

    def _request(self, asked: Asked, event: DriftEvent) -> RetrainingRequest:
        digest = hashlib.blake2b(event.drift_id.encode(), digest_size=12).hexdigest()
        asked.requested_ms, asked.request_id = event.detected_ms, f"rr-{digest}"
        asked.joined = asked.excused = 0
        return RetrainingRequest(
            request_id=asked.request_id, ts=event.detected_ms, environment=event.environment, model=event.model,
            version=event.version, component=event.component, severity=event.severity, drift_ids=[event.drift_id],
            reason=f"{event.kind} drift of {event.field}: {event.before:.4g} to {event.after:.4g}"[:512],
            dedupe_key=_dedupe_key(event))


def _dedupe_key(event: DriftEvent) -> str:
    """environment/model; long names end in a digest, so that different ones stay different."""
    name = f"{event.environment}/{event.model}"
    if len(name) <= 128:
        return name
    return f"{name[:103]}-{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"
