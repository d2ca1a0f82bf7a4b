"""A seeded stream of telemetry with an incident in it, and the windows it must end in, counted one by one."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from schemas.telemetry import TelemetryEvent
from streams.settings import Settings

MODELS = tuple(f"m{number}" for number in range(8))


def event(number: int, ts_ms: int, model: str, rng: random.Random, failing: bool = False) -> dict[str, Any]:
    """One event; a failing one carries an error."""
    return {"event_id": f"e{number}", "ts": ts_ms, "environment": "prod", "model": model,
            "version": rng.choice("12"), "component": "model", "prediction": rng.choice(["yes", "no"]),
            "confidence": round(rng.random(), 3), "latency_ms": round(rng.lognormvariate(1, 0.3), 3),
            "error": "TimeoutError" if failing else None,
            "features": {name: round(rng.gauss(0, 1), 4) for name in "abcd"}, "metrics": {"tokens": number % 50}}


def stream(start_ms: int, seconds: int, per_second: int, seed: int = 1,
           bad_model: str = "m3", bad_from_s: int = 10, bad_to_s: int = 20,
           late_ms: int = 0) -> Iterator[dict[str, Any]]:
    """Events in time order but for a jitter of up to 800 ms, or `late_ms` for one in seven; `bad_model` fails in 60%
    between two seconds."""
    rng = random.Random(seed)
    for number in range(seconds * per_second):
        at_ms = number * 1000 // per_second
        model = rng.choice(MODELS)
        bad = model == bad_model and bad_from_s * 1000 <= at_ms < bad_to_s * 1000 and rng.random() < 0.6
        jitter = late_ms if late_ms and number % 7 == 0 else rng.choice([0, 0, 0, 100, 800])
        yield event(number, start_ms + max(0, at_ms - jitter), model, rng, bad)


def flush(settings: Settings, ts_ms: int) -> list[dict[str, Any]]:
    """An event a partition, late enough to close every window before it."""
    rng = random.Random(0)
    return [event(10_000_000 + number, ts_ms, "flush", rng) | {"partition_": number}
            for number in range(settings.partitions)]


Window = tuple[int, str, str, int, int]     # partition, model, version, size, start


def windows_of(records: list[Any], settings: Settings) -> dict[Window, tuple[int, int]]:
    """(count, errors) of every window that the log of `telemetry` must end in; bad records are left out."""
    finest = settings.granularities_ms[0]
    newest: dict[int, int] = {}
    found: dict[Window, list[int]] = defaultdict(lambda: [0, 0])
    for record in records:
        try:
            items = json.loads(record.value)
            events = [TelemetryEvent.model_validate(item) for item in (items if isinstance(items, list) else [items])]
        except (ValueError, TypeError, RecursionError):
            continue
        for one in events:
            seen = newest.get(record.partition, -(1 << 62))
            end = one.ts - one.ts % finest + finest
            if end + settings.grace_ms > seen - settings.watermark_delay_ms:
                for size in settings.granularities_ms:
                    cell = found[(record.partition, one.model, one.version, size, one.ts - one.ts % size)]
                    cell[0] += 1
                    cell[1] += one.error is not None
            newest[record.partition] = max(seen, one.ts)
    return {key: (count, errors) for key, (count, errors) in found.items() if key[1] != "flush"}


def published(windows: dict[str, dict[str, Any]]) -> dict[Window, tuple[int, int]]:
    """The same shape from the newest copies on `metrics`."""
    return {(w["partition"], w["model"], w["version"], w["size_ms"], w["start_ms"]): (w["count"], w["errors"])
            for w in windows.values() if w["model"] != "flush"}
