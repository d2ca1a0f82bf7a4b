"""A drift engine beside the profiles that versions bring from training."""

from __future__ import annotations

import json
from typing import Any

from drift_world import World

from agents.drift.profiles import Body, Known, Profiles
from agents.drift.profiles import Codec as ProfilesCodec
from schemas.alerts import LifecycleEvent
from schemas.drift import DriftEvent
from streams.state.keyed import KeyedStates

UNIT = "\x1f"
TRAINED = {"age": {"mean": 40.0, "sd": 10.0}, "flag": {"mean": 0.2, "sd": 0.4}, "level": {"mean": 1000.0, "sd": 1.0}}


def event(profile: dict[str, Any], version: str = "1", ts: int = 1, **more: Any) -> LifecycleEvent:
    """As a producer sends it."""
    return LifecycleEvent.model_validate_json(json.dumps({
        "lifecycle_id": f"p{ts}", "ts": ts, "environment": "prod", "model": "m", "version": version,
        "action": "registered", "profile": {"rows": 50_000, **profile}} | more))


class Trained(World):
    """An engine beside the profiles of its partition, with snapshots of both."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: KeyedStates[Any] = KeyedStates("drift.profiles", 0, ProfilesCodec(), {})
        self.told = 0

    def learn(self, *events: LifecycleEvent) -> int:
        """Profiles that come now, at the next offsets of their topic."""
        batch = [(self.told + i, one) for i, one in enumerate(events)]
        self.told += len(events)
        profiles = Profiles(self.kept)
        return profiles.take(profiles.new(batch, "lifecycle-events"), "lifecycle-events", self.offset)

    def give(self, messages: Any) -> list[DriftEvent]:
        batch = [(self.offset + i, message) for i, message in enumerate(messages)]
        self.offset += len(batch)
        return list(self.engine.run(batch, self.states, "metrics", 0, Profiles(self.kept)))

    def restart(self) -> None:
        super().restart()
        self.kept.written(self.kept.freeze(1))
        self.kept = KeyedStates("drift.profiles", 0, ProfilesCodec(), dict(self.kept.snapshots))


def shifted(name: str, by: float, from_s: int = 0) -> Any:
    def disturb(second: int, values: dict[str, Any]) -> None:
        if second >= from_s:
            values[name] = values[name] + by
    return disturb


def known(body: Body, *statistic: str) -> Known:
    found = body.find((statistic[0], statistic[1]))
    assert found is not None
    return found
