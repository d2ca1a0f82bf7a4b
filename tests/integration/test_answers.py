"""People and incidents, from telemetry to the terminal: a rule, its alert, an answer, a dead worker, a silence."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support import produce, until
from test_up import Up, up  # noqa: F401  (its fixture)

from infra.cli import running
from streams.settings import Settings

pytestmark = pytest.mark.slow
RULES = {"rules": [{"name": "many-fail", "kind": "cel", "when": "error_rate > 0.5", "severity": "critical"}]}


def lines(run: Up, *arguments: str) -> list[dict[str, Any]]:
    """What a command says as JSON."""
    answer = run.run(*arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


class Traffic:
    """A model whose requests all fail, ten a second, until stopped."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.settings, self.model, self.sent, self.over = settings, model, 0, asyncio.Event()
        self.task = asyncio.create_task(self.go())

    async def go(self) -> None:
        while not self.over.is_set():
            now = int(time.time() * 1000)
            await produce(self.settings, "telemetry", [
                {"event_id": f"{self.model}-{self.sent + number}", "ts": now, "environment": "prod",
                 "model": self.model, "version": "3", "latency_ms": 4.0, "error": "boom"} for number in range(3)])
            self.sent += 3
            await asyncio.sleep(0.3)

    async def stop(self) -> None:
        self.over.set()
        await self.task


async def seen(what: Any, seconds: float = 60) -> Any:
    return await asyncio.to_thread(until, what, seconds, "seen by the terminal", 0.5)


async def test_an_incident_of_a_rule_is_answered_and_the_answer_outlives_the_worker(
        up: Up, tmp_path: Path) -> None:  # noqa: F811
    await asyncio.to_thread(up.says, "worker-1 is ready")
    up.says(r"page +(http://\S+)")
    settings = Settings(kafka_url=running.found(up.folder)["STREAMGAUGE_KAFKA_URL"], partitions=2)
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(RULES))
    assert "1 rules are version 1" in (await asyncio.to_thread(up.run, "rules", "apply", str(file))).stdout
    await seen(lambda: "many-fail" in up.run("rules", "show").stdout)

    traffic = Traffic(settings, "churn")
    incident = await seen(lambda: next((one for one in lines(up, "alerts", "list") if one["rule"] == "many-fail"),
                                       None))
    assert (incident["cause"], incident["severity"], incident["model"]) == ("rule", "critical", "churn")
    answer = up.run("alerts", "ack", incident["incident_id"], "--text", "rolling back")
    assert answer.returncode == 0, answer.stderr

    def acknowledged() -> Any:
        return next((one for one in lines(up, "alerts", "list") if one["incident_id"] == incident["incident_id"]
                     and one["state"] == "acknowledged"), None)

    found = await seen(acknowledged)
    assert (found["actor"], found["note"], found["title"]) == ("root", "rolling back", incident["title"])

    os.kill(up.pids()["worker-1"], signal.SIGKILL)
    await asyncio.to_thread(up.says, "worker-1 is started again")
    assert up.run("alerts", "note", incident["incident_id"], "done in a minute").returncode == 0
    await seen(lambda: [one for one in lines(up, "alerts", "list") if one["state"] == "noted"
                        and one["note"] == "done in a minute"])

    made = up.run("alerts", "silence", "planned works", "--model", "fra*", "--for", "1h")
    assert made.returncode == 0, made.stderr
    [silence] = await seen(lambda: lines(up, "alerts", "silences"))
    assert silence["silence_id"] == made.stdout.strip()
    other = Traffic(settings, "fraud")
    quiet = await seen(lambda: next((one for one in lines(up, "alerts", "list") if one["model"] == "fraud"), None))
    assert quiet["silenced_by"] == silence["silence_id"]
    told = up.run("alerts", "tail", "--json", "--count", "3", "--no-wait")
    assert {json.loads(line)["model"] for line in told.stdout.splitlines()} == {"churn"}
    for one in (traffic, other):
        await one.stop()
    states = [one["state"] for one in map(json.loads, told.stdout.splitlines()) if one["rule"] == "many-fail"]
    assert states.count("open") <= 1 and states.count("acknowledged") <= 1
