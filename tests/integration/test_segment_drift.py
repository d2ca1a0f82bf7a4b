"""A drift that is in one segment only, through a worker that is killed: told once, and event and alert name it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from support import Worker, produce, read_all, until

from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from streams.topics import ALERTS, DRIFT_EVENTS, TELEMETRY

CALM_S, SECONDS, PER_SECOND = 90, 150, 30


def telemetry(start_ms: int) -> list[dict[str, Any]]:
    """Ages around 40; those of Portugal around 70 from some time on."""
    rng, found = random.Random(4), []
    for i in range(SECONDS * PER_SECOND):
        country = rng.choices(["PT", "ES", "FR"], [0.3, 0.4, 0.3])[0]
        moved = country == "PT" and i >= CALM_S * PER_SECOND
        found.append({"event_id": f"e{i}", "ts": start_ms + i * 1000 // PER_SECOND, "environment": "prod",
                      "model": "m", "version": "7", "segment": {"country": country, "plan": rng.choice("ab")},
                      "features": {"age": rng.gauss(70 if moved else 40, 10), "size": rng.gauss(0, 1)}})
    return found


async def test_the_event_and_the_alert_name_the_segment(broker_url: str, tmp_path: Path) -> None:
    settings = Settings(kafka_url=broker_url, topic_prefix="segment.", group="segment", partitions=1)
    await create_topics(settings)
    environment = {f"{PREFIX}KAFKA_URL": broker_url, f"{PREFIX}TOPIC_PREFIX": "segment.", f"{PREFIX}GROUP": "segment",
                   f"{PREFIX}PARTITIONS": "1", f"{PREFIX}CHECKPOINT_MS": "500",
                   f"{PREFIX}SEGMENT_KEYS": "country,plan", f"{PREFIX}DATA_DIR": str(tmp_path / "data")}
    events = telemetry(int(time.time() * 1000) - SECONDS * 1000)
    at = (CALM_S + 2) * PER_SECOND
    first = Worker(environment, tmp_path / "first.log").start().wait_ready()
    await produce(settings, TELEMETRY.name, events[:at])
    until(lambda: first.metric("streamgauge_events_total") == at, 60, "the calm part is read")
    first.kill()
    second = Worker(environment, tmp_path / "second.log").start().wait_ready()
    try:
        await produce(settings, TELEMETRY.name, events[at:])
        until(lambda: second.metric("streamgauge_alerts_total") > 0, 90, "an alert is told")
    finally:
        second.stop()
    told = [json.loads(record.value) for record in await read_all(settings, DRIFT_EVENTS.name)]
    assert {event["field"] for event in told} == {"feature.age"}
    assert len({event["drift_id"] for event in told}) == 1
    assert all(event["segment"] == {"country": "PT"} for event in told)
    alerts = [json.loads(record.value) for record in await read_all(settings, ALERTS.name)]
    assert any("Mostly where country is PT." in alert["detail"] for alert in alerts)
