"""Events as those of environments and of segments: what a slow, obvious reader would make of them before windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DAY_MS = 86_400_000


def of_environment(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: found[name] for name in ("event_id", "ts", "environment", "error", "latency_ms", "confidence")
            if found.get(name) is not None}
    return kept | {"model": "all", "version": "all", "component": "all"}


@dataclass
class Names:
    """Who of a family's values has a name, event by event. counters: value -> [count, error], in order of coming."""

    most: int
    slot_ms: int
    room: int
    counters: dict[str, list[int]] = field(default_factory=dict)
    by_slot: dict[int, list[str]] = field(default_factory=lambda: {0: []})
    newest: int = -1
    since: int | None = None

    def call(self, ts: int, value: str | None) -> bool:
        """True if the value has a name at that time."""
        slot = ts // self.slot_ms
        if slot > self.newest:
            self._advance(slot)
        if value is None:
            return False
        names = self.by_slot[max(begin for begin in self.by_slot if begin <= slot)]
        if value not in names and len(names) < self.most:
            names.append(value)
        elif value not in names and self.since is None:
            self.since = self.newest
        if self.since is not None:
            self._count(value)
        return value in names

    def _advance(self, slot: int) -> None:
        for _ in range(slot * self.slot_ms // DAY_MS - self.newest * self.slot_ms // DAY_MS):
            if not any(count for count, _ in self.counters.values()):
                break
            self.counters = {value: [count // 2, error // 2] for value, (count, error) in self.counters.items()}
        self.newest = slot
        if self.since is not None and slot >= self.since + 2:
            have = self.by_slot[max(self.by_slot)]
            ranked = [(-1.25 * self.counters.get(value, [0, 0])[0], at, value) for at, value in enumerate(have)]
            ranked += [(-float(count - error), len(have) + at, value)
                       for at, (value, (count, error)) in enumerate(self.counters.items()) if value not in have]
            names = [value for _, _, value in sorted(ranked)[:self.most]]
            if set(names) != set(have):
                self.by_slot[slot] = names

    def _count(self, value: str) -> None:
        if value in self.counters:
            self.counters[value][0] += 1
        elif len(self.counters) < self.room:
            self.counters[value] = [1, 0]
        else:
            least = min(self.counters, key=lambda one: self.counters[one][0])
            count = self.counters[least][0]
            self.counters = {value if one == least else one: [count + 1, count] if one == least else found
                             for one, found in self.counters.items()}


def of_segments(events: list[dict[str, Any]], key: str, most: int, slot_ms: int, room: int = 64
                ) -> list[dict[str, Any]]:
    """The same events, each of a component that names its segment; without features."""
    families: dict[Any, Names] = {}
    found = []
    for event in events:
        value = event.get("segment", {}).get(key)
        names = families.setdefault((event["environment"], event["model"]), Names(most, slot_ms, room))
        named = names.call(event["ts"], None if value == "<other>" else value)
        called = "<none>" if value is None else value if named else "<other>"
        found.append({name: kept for name, kept in event.items() if name not in ("features", "segment")}
                     | {"component": f"{event.get('component', 'model')}\x1e{key}={called}"})
    return found
