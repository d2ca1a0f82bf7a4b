"""A profile from the shell to a drift event: made of a file, published, kept over a kill -9, and told against."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from support import ROOT, Worker, produce, read_all, until

from agents.drift.options import DriftOptions
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from streams.topics import DRIFT_EVENTS, LIFECYCLE_EVENTS, REJECTED, TELEMETRY

SECONDS, PER_SECOND, PARTITIONS = 90, 30, 2
#: Too few for a point of the detectors: however long the kill takes, the first worker has nothing to tell yet.
BEFORE_KILL = DriftOptions().least_events - 1


def training(path: Path) -> None:
    """What the model was trained on: ages around 40."""
    rng = np.random.default_rng(1)
    rows = [f"{rng.normal(40, 10)},{rng.normal(0, 1)},{rng.choice(['basic', 'pro'])}" for _ in range(4_000)]
    path.write_text("\n".join(["age,balance,plan", *rows]) + "\n")


def serving(start_ms: int) -> list[dict[str, Any]]:
    """What it serves: ages around 55, from the first event on."""
    rng = np.random.default_rng(2)
    return [{"event_id": f"e{i}", "ts": start_ms + i * 1000 // PER_SECOND, "environment": "prod", "model": "m",
             "version": "7", "features": {"age": float(rng.normal(55, 10)), "balance": float(rng.normal(0, 1)),
                                          "plan": str(rng.choice(["basic", "pro"]))}}
            for i in range(SECONDS * PER_SECOND)]


async def test_a_version_that_serves_otherwise_than_it_was_trained_is_told_of_once(broker_url: str, tmp_path: Path
                                                                                   ) -> None:
    settings = Settings(kafka_url=broker_url, topic_prefix="profile.", group="profile", partitions=PARTITIONS)
    await create_topics(settings)
    environment = {f"{PREFIX}KAFKA_URL": broker_url, f"{PREFIX}TOPIC_PREFIX": "profile.", f"{PREFIX}GROUP": "profile",
                   f"{PREFIX}PARTITIONS": str(PARTITIONS), f"{PREFIX}CHECKPOINT_MS": "500",
                   f"{PREFIX}DATA_DIR": str(tmp_path / "data")}
    first = Worker(environment, tmp_path / "first.log").start().wait_ready()
    training(tmp_path / "train.csv")
    done = subprocess.run([sys.executable, "-m", "infra.cli.main", "profile", str(tmp_path / "train.csv"), "--model",
                           "m", "--version", "7", "--publish"], cwd=ROOT, env=first.environment, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "published to profile.lifecycle-events" in done.stderr
    await produce(settings, LIFECYCLE_EVENTS.name, [b'{"profile": 1}', b"\xff"], partition=lambda item: 0)
    until(lambda: first.metric("streamgauge_training_profiles_total") == PARTITIONS, 30, "both partitions know it")
    until(lambda: first.metric("streamgauge_rejected_total") == 2, 30, "what is no lifecycle event is kept")
    events = serving(int(time.time() * 1000) - SECONDS * 1000)
    await produce(settings, TELEMETRY.name, events[:BEFORE_KILL], partition=lambda item: 1)
    until(lambda: first.metric("streamgauge_events_total") == BEFORE_KILL, 60, "the first events are read")
    first.kill()
    second = Worker(environment, tmp_path / "second.log").start().wait_ready()
    try:
        await produce(settings, TELEMETRY.name, events[BEFORE_KILL:], partition=lambda item: 1)
        until(lambda: second.metric("streamgauge_drift_events_total") > 0, 60, "the drift is told")
    finally:
        second.stop()
    told = {event["drift_id"]: event for event in
            (json.loads(record.value) for record in await read_all(settings, DRIFT_EVENTS.name))}
    assert [(event["field"], event["reference"], event["version"]) for event in told.values()] == [
        ("feature.age", "profile", "7")]
    event = next(iter(told.values()))
    assert abs(event["before"] - 40) < 1 < event["after"] - 50
    assert event["onset_ms"] <= events[0]["ts"] + 10_000
    kept = [json.loads(record.value) for record in await read_all(settings, REJECTED.name)]
    assert {(record["topic"], record["reason"]) for record in kept} == {
        ("profile.lifecycle-events", "missing_field"), ("profile.lifecycle-events", "not_json")}
