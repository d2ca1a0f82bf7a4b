"""What people answer goes to the alerts agent by its topic; what it decided is shown by every gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stores_world import DAY, Gateway, an_alert, gateway, world
from support import read_all

from dashboards.api.tokens import Grant, made, write
from schemas.alerts import AlertCommand, Silence
from streams.kafka import create_topics
from streams.settings import Settings
from streams.stores.redis import Hot
from streams.topics import ALERT_COMMANDS


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str, tansu: str) -> Settings:
    found = await world(tmp_path, postgres_url, valkey_url, kafka_url=tansu)
    await create_topics(found)
    return found


async def commands(settings: Settings) -> list[tuple[int, AlertCommand]]:
    return [(record.partition, AlertCommand.model_validate_json(record.value))
            for record in await read_all(settings, ALERT_COMMANDS.name)]


async def post(running: Gateway, path: str, status: int = 202, token: str = "", **body: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await running.rest.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def test_an_answer_goes_once_to_the_partition_that_owns_the_incident(settings: Settings, hot: Hot) -> None:
    await hot.append_alert(an_alert(1, partition=1))
    async with gateway(settings) as running:
        said = await post(running, "/api/incidents/incident-1/acknowledge", text="mine")
        await post(running, "/api/incidents/incident-1/notes", text="looks like the feed")
    found = sorted(await commands(settings), key=lambda pair: pair[1].ts)
    assert [(partition, command.action, command.text, command.actor, command.model) for partition, command in found] \
        == [(1, "acknowledge", "mine", "root", "churn"), (1, "note", "looks like the feed", "root", "churn")]
    assert found[0][1].command_id == said["command_id"]


async def test_what_makes_no_sense_is_refused_before_it_is_sent(settings: Settings, hot: Hot) -> None:
    await hot.append_alert(an_alert(1))
    async with gateway(settings) as running:
        assert (await post(running, "/api/incidents/gone/acknowledge", 404))["code"] == "no_open_incident"
        assert (await post(running, "/api/incidents/incident-1/notes", 422, text=" "))["code"] == "no_text"
        for wish in ({"seconds": 0, "reason": "x"}, {"seconds": 60, "reason": ""},
                     {"seconds": 60, "reason": "x", "model": "a*b"}):
            assert (await post(running, "/api/silences", 422, **wish))["code"] == "bad_query"
    assert await commands(settings) == []


async def test_silences_go_to_every_partition_and_end_for_good(settings: Settings, hot: Hot) -> None:
    async with gateway(settings) as running:
        made_id = (await post(running, "/api/silences", model="churn", seconds=600, reason="works"))["silence_id"]
        found = await commands(settings)
        assert sorted(partition for partition, _ in found) == [0, 1]
        assert {command.silence.silence_id for _, command in found if command.silence} == {made_id}
        await hot.obey(found[0][1])
        [shown] = await running.get("/api/silences")
        assert (shown["silence_id"], shown["model"], shown["reason"]) == (made_id, "churn", "works")
        assert (await running.rest.delete(f"/api/silences/{made_id}")).status_code == 202
        await hot.obey((await commands(settings))[-1][1])
        await hot.obey(found[1][1])         # the copy of another partition comes later
        assert await running.get("/api/silences") == []


async def test_an_expired_silence_is_not_listed(settings: Settings, hot: Hot) -> None:
    old = Silence(silence_id="s", from_ms=DAY - 10, until_ms=DAY)
    await hot.obey(AlertCommand(command_id="c", ts=DAY, actor="ana", action="silence", silence=old))
    async with gateway(settings) as running:
        assert await running.get("/api/silences") == []


async def test_incidents_of_one_cause_at_one_time_are_one_group(settings: Settings, hot: Hot) -> None:
    for number in range(5):
        await hot.append_alert(an_alert(number, model=f"m{number}", onset_ms=DAY + 1_000 * number))
    await hot.append_alert(an_alert(5, model="m5", cause="drift", field="feature.age", onset_ms=DAY))
    await hot.append_alert(an_alert(6, model="m6", onset_ms=DAY + 3_600_000))
    await hot.append_alert(an_alert(7, environment="staging", onset_ms=DAY))
    async with gateway(settings) as running:
        groups = await running.get("/api/groups")
        assert [(group["group"], group["size"]) for group in groups] == [
            ("incident-0", 5), ("incident-5", 1), ("incident-7", 1), ("incident-6", 1)]
        assert groups[0]["models"] == [f"prod/m{number}" for number in range(5)]
        async with running.socket(last_id=0) as line:
            await line.next()
            told = [await line.next() for _ in range(8)]
        assert [message["group"] for message in told[:6]] == ["incident-0"] * 5 + ["incident-5"]
        async with running.socket(last_id=0, leads="true") as line:
            await line.next()
            assert await line.alerts(4) == ["alert-0", "alert-5", "alert-6", "alert-7"]
        await hot.append_alert(an_alert(8, incident_id="incident-0", alert_id="r", model="m0", state="resolved"))
        assert (await running.get("/api/groups"))[0]["size"] == 4


async def test_what_is_silenced_is_sent_to_those_only_who_ask(settings: Settings, hot: Hot) -> None:
    await hot.append_alert(an_alert(1, silenced_by="s1"))
    await hot.append_alert(an_alert(2))
    async with (gateway(settings) as running, running.socket(last_id=0) as plain,
                running.socket(last_id=0, silenced="true") as all_of_it):
        for line, ids in ((plain, ["alert-2"]), (all_of_it, ["alert-1", "alert-2"])):
            await line.next()
            assert await line.alerts(len(ids)) == ids


async def test_who_may_answer(settings: Settings, hot: Hot) -> None:
    await hot.append_alert(an_alert(1))
    pairs = [made(grant) for grant in (Grant(name="reader"), Grant(name="staging", scopes=("acknowledge",),
                                                                   environments=("staging",)),
                                       Grant(name="oncall", scopes=("acknowledge",), environments=("prod",)))]
    write(settings.tokens_path, [grant for _, grant in pairs])
    reader, staging, oncall = (token for token, _ in pairs)
    async with gateway(settings) as running:
        path = "/api/incidents/incident-1/acknowledge"
        assert (await post(running, path, 403, reader))["code"] == "scope_missing"
        assert (await post(running, path, 403, staging))["code"] == "environment_denied"
        assert (await post(running, "/api/silences", 403, oncall, seconds=60, reason="all"))["code"] == \
            "environment_denied"
        await post(running, path, 202, oncall)
    assert [command.actor for _, command in await commands(settings)] == ["oncall"]


async def test_without_kafka_nothing_is_said_to_be_decided(settings: Settings, hot: Hot) -> None:
    await hot.append_alert(an_alert(1))
    async with gateway(settings.model_copy(update={"kafka_url": ""})) as running:
        assert (await post(running, "/api/incidents/incident-1/acknowledge", 503))["code"] == "commands_away"
