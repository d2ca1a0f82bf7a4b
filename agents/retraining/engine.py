"""The pure core: drift events in, at most one open request a model out. The retraining itself is another's work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agents.retraining.policy import asks
from schemas.drift import DriftEvent, RetrainingRequest
from streams.settings import Settings
from streams.state.keyed import KeyedStates

_UNIT = "\x1f"
_NEVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class RetrainingOptions:
    """`cooldown_ms` (event time) after a request, in which the model gets no other."""

    cooldown_ms: int = 6 * 3_600_000

    @classmethod
    def from_settings(cls, settings: Settings) -> RetrainingOptions:
        return cls(settings.retraining_cooldown_ms)


class Asked(msgspec.Struct):
    """The last request of a model in an environment, and the drift that came after it."""

    requested_ms: int = _NEVER
    request_id: str = ""
    joined: int = 0


class Codec:
    """`Asked` as msgpack."""

    def new(self, key: str) -> Asked:
        return Asked()

    def encode(self, key: str, state: Asked) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, data: bytes) -> Asked:
        return msgspec.msgpack.decode(data, type=Asked)


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
            if asks(event):
                request = self._request(entry.state, event)
                found += [request] if request is not None else []
            states.touch(entry, topic, offset)
        return found

    def _request(self, asked: Asked, event: DriftEvent) -> RetrainingRequest | None:
        if event.detected_ms < asked.requested_ms + self.options.cooldown_ms:
            asked.joined += 1
            return None
        digest = hashlib.blake2b(event.drift_id.encode(), digest_size=12).hexdigest()
        asked.requested_ms, asked.request_id, asked.joined = event.detected_ms, f"rr-{digest}", 0
        return RetrainingRequest(
            request_id=asked.request_id, ts=event.detected_ms, environment=event.environment, model=event.model,
            version=event.version, component=event.component, severity=event.severity, drift_ids=[event.drift_id],
            reason=f"{event.kind} drift of {event.field}: {event.before:.4g} to {event.after:.4g}"[:512],
            dedupe_key=f"{event.environment}/{event.model}"[:128])
