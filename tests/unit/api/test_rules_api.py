"""Rules by the API: all or none, nobody's change lost, and tried out on real history before they are in force."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stores_world import DAY, a_drift, a_window, an_anomaly, eventually, gateway, opened, world
from support import read_all

from dashboards.api.tokens import Grant, made, write
from schemas.alerts import AlertCommand
from streams.kafka import create_topics
from streams.settings import Settings
from streams.stores import postgres
from streams.stores.history import History
from streams.topics import ALERT_COMMANDS

CEL = {"name": "bad", "kind": "cel", "when": "errors > 5.0"}
MINUTE = 60_000


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str, tansu: str) -> Settings:
    found = await world(tmp_path, postgres_url, valkey_url, kafka_url=tansu)
    await create_topics(found)
    return found


@pytest.fixture
async def history(settings: Settings) -> AsyncIterator[History]:
    pool = await postgres.connect(settings)
    try:
        yield History(pool, 1_000_000)
    finally:
        await pool.close()


async def test_rules_are_replaced_as_a_whole_and_the_version_guards_them(settings: Settings) -> None:
    async with opened(settings) as hot, gateway(settings) as running:
        assert await running.get("/api/rules") == {"version": 0, "rules": []}
        answer = await running.rest.put("/api/rules", json={"rules": [CEL], "version": 0})
        assert (answer.status_code, answer.json()["version"]) == (202, 1)
        sent = [(record.partition, AlertCommand.model_validate_json(record.value))
                for record in await read_all(settings, ALERT_COMMANDS.name)]
        assert sorted(partition for partition, _ in sent) == [0, 1]
        for _, command in sent:
            await hot.obey(command)
        shown = await running.get("/api/rules")
        assert (shown["version"], [rule["when"] for rule in shown["rules"]]) == (1, ["errors > 5.0"])
        answer = await running.rest.put("/api/rules", json={"rules": [], "version": 0})
        assert (answer.status_code, answer.json()["code"]) == (409, "changed_meanwhile")


@pytest.mark.parametrize("rules", [[CEL, CEL], [{**CEL, "when": "errors >"}], [{"name": "x", "kind": "magic"}], [7]])
async def test_of_rules_that_are_not_right_none_is_taken(settings: Settings, rules: list[Any]) -> None:
    async with gateway(settings) as running:
        answer = await running.rest.put("/api/rules", json={"rules": [{**CEL, "name": "fine"}, *rules], "version": 0})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_rules")
    assert await read_all(settings, ALERT_COMMANDS.name) == []


async def test_only_an_admin_sets_rules(settings: Settings) -> None:
    token, grant = made(Grant(name="oncall", scopes=("acknowledge",)))
    write(settings.tokens_path, [grant])
    async with gateway(settings) as running:
        headers = {"Authorization": f"Bearer {token}"}
        assert (await running.rest.get("/api/rules", headers=headers)).status_code == 200
        answer = await running.rest.put("/api/rules", json={"rules": [], "version": 0}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def tried(settings: Settings, rule: dict[str, Any], minutes: int = 600) -> dict[str, Any]:
    async with gateway(settings) as running:
        async def ready() -> bool:
            return running.app.state.history is not None

        await eventually(ready, "the database is there")
        answer = await running.rest.post("/api/rules/dry-run", json={
            "rule": rule, "from_ms": DAY, "to_ms": DAY + minutes * MINUTE})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def windows(minutes: int, **more: Any) -> list[Any]:
    return [a_window(DAY + minute * MINUTE, count=100, errors=20 if minute % 100 in range(50, 55) else 0, **more)
            for minute in range(minutes)]


async def test_a_dry_run_says_how_often_a_rule_would_have_fired(settings: Settings, history: History) -> None:
    await history.windows(windows(300) + windows(300, model="other"))
    found = await tried(settings, {**CEL, "model": "churn"})
    assert (found["fired"], found["windows"], found["models"]) == (3, 300, ["prod/churn"])
    assert [(one["opened_ms"] - DAY) // MINUTE for one in found["incidents"]] == [51, 151, 251]
    assert [(one["resolved_ms"] - one["opened_ms"]) // MINUTE for one in found["incidents"]] == [6, 6, 6]
    assert json.dumps(found)
    assert (await tried(settings, {**CEL, "when": "errors > 50.0"}))["fired"] == 0
    for limit, fired in ((19.0, 2), (21.0, 0)):     # every latency is 20 ms, of both models
        assert (await tried(settings, {**CEL, "when": f"fields.latency_ms.p95 > {limit}"}))["fired"] == fired
    assert (await tried(settings, {**CEL, "model": "ch*", "for_s": 180}))["fired"] == 3
    assert (await tried(settings, {**CEL, "model": "ch*", "for_s": 600}))["fired"] == 0


async def test_a_dry_run_reads_anomalies_drift_and_silence_too(settings: Settings, history: History) -> None:
    await history.windows(windows(200))
    await history.anomalies([an_anomaly(number, ts=DAY + 100 * MINUTE + number, component="model")
                             for number in range(60)])
    await history.drift([a_drift(1, detected_ms=DAY + 30 * MINUTE, component="model")])
    rate = {"name": "odd", "kind": "anomaly_rate", "limit": 0.2, "over_s": 60}
    for rule, fired in ((rate, 1), ({**rate, "limit": 0.9}, 0),
                        ({"name": "moved", "kind": "drift", "field": "feature.*"}, 1),
                        ({"name": "moved", "kind": "drift", "field": "latency_ms"}, 0),
                        ({"name": "gone", "kind": "silence", "after_s": 3_600}, 1)):
        assert (await tried(settings, rule))["fired"] == fired, rule
    assert (await tried(settings, {"name": "gone", "kind": "silence", "after_s": 3_600}, 210))["fired"] == 0
