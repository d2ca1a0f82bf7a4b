"""Events as those of environments and of segments: what a slow, obvious reader would make of them before windows."""

from __future__ import annotations

from typing import Any

DAY_MS = 86_400_000


def of_environment(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: found[name] for name in ("event_id", "ts", "environment", "error", "latency_ms", "confidence")
            if found.get(name) is not None}
    return kept | {"model": "all", "version": "all", "component": "all"}


def of_segments(events: list[dict[str, Any]], key: str, most: int) -> list[dict[str, Any]]:
    """The same events, each of a component that names its segment; without features."""
    known: dict[Any, list[str]] = {}
    found = []
    for event in events:
        value = event.get("segment", {}).get(key)
        names = known.setdefault((event["environment"], event["model"], event["ts"] // DAY_MS), [])
        if value not in (None, "<other>", *names) and len(names) < most:
            names.append(value)
        called = "<none>" if value is None else value if value in names else "<other>"
        found.append({name: kept for name, kept in event.items() if name not in ("features", "segment")}
                     | {"component": f"{event.get('component', 'model')}\x1e{key}={called}"})
    return found
