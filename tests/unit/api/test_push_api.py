"""Subscribing to web push: who may, how many, at which endpoints; and what is never shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from push_world import Browser
from stores_world import TOKEN, Gateway, gateway
from support import free_port

from dashboards.api.tokens import Grant, made, write
from streams.push.keys import KEY_FILE, push_keys
from streams.push.subscriptions import MOST_OF_TOKEN
from streams.settings import Settings

_numbers = iter(range(1_000_000))
HOST = "https://push.example"


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=valkey_url, topic_prefix=f"pa{next(_numbers)}-", api_token=TOKEN,
                    port=0, database_url="postgresql://nobody@127.0.0.1:1/none", heartbeat_ms=60_000,
                    push_subscriptions=MOST_OF_TOKEN + 2)


@pytest.fixture
async def page(settings: Settings) -> AsyncIterator[Gateway]:
    async with gateway(settings) as running:
        yield running


def issue(settings: Settings, *grants: Grant) -> list[dict[str, str]]:
    pairs = [made(grant) for grant in grants]
    write(settings.tokens_path, [grant for _, grant in pairs])
    return [{"Authorization": f"Bearer {token}"} for token, _ in pairs]


def device(name: str = "x", **more: Any) -> dict[str, Any]:
    return {"endpoint": f"{HOST}/send/{name}", "keys": Browser().keys} | more


async def said(page: Gateway, wish: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[int, str]:
    answer = await page.rest.post("/api/push/subscriptions", json=wish, headers=headers or {})
    return answer.status_code, answer.json().get("code") or answer.json()["id"]


async def test_the_key_is_made_beside_the_token_and_only_its_public_half_is_told(settings: Settings, page: Gateway
                                                                                 ) -> None:
    told = await page.get("/api/push/key")
    assert told == {"key": push_keys(settings).public}
    assert (settings.data_dir / KEY_FILE).read_text().strip() not in str(told)


async def test_a_device_is_listed_without_what_one_could_push_with_until_it_leaves(settings: Settings, page: Gateway
                                                                                   ) -> None:
    wish = device("secret-path", model="chu*", severity="critical", leads=True)
    status, device_id = await said(page, wish)
    assert status == 201
    assert await said(page, wish | {"model": "churn"}) == (201, device_id), "it takes its own place"
    [shown] = await page.get("/api/push/subscriptions")
    assert shown.pop("created_ms") > 0
    assert shown == {"id": device_id, "host": "push.example", "token": "root", "environment": "", "model": "churn",
                     "severity": "critical", "leads": True, "withdrawn": False}
    async with gateway(settings) as other:              # gateways share them, and a restart keeps them
        assert (await other.rest.delete(f"/api/push/subscriptions/{device_id}")).status_code == 204
    assert await page.get("/api/push/subscriptions") == []
    assert (await page.rest.delete(f"/api/push/subscriptions/{device_id}")).status_code == 404


async def test_who_may_what(settings: Settings, page: Gateway) -> None:
    nothing, reader, prod, admin = issue(settings, Grant(name="nothing", scopes=()), Grant(name="reader"),
                                         Grant(name="prod", environments=("prod",)),
                                         Grant(name="admin", scopes=("admin",)))
    assert await said(page, device(), nothing) == (403, "scope_missing")
    assert await said(page, device(), {"Authorization": "Bearer wrong"}) == (401, "unauthorized")
    assert await said(page, device(environment="staging"), prod) == (403, "environment_denied")
    _, of_reader = await said(page, device("a"), reader)
    _, of_prod = await said(page, device("b", environment="prod"), prod)
    listed = {name: {one["id"] for one in (await page.rest.get("/api/push/subscriptions", headers=headers)).json()}
              for name, headers in (("reader", reader), ("prod", prod), ("admin", admin))}
    assert listed == {"reader": {of_reader}, "prod": {of_prod}, "admin": {of_reader, of_prod}}
    assert (await page.rest.get("/api/push/key", headers=prod)).status_code == 200
    for headers, device_id, status in ((prod, of_reader, 404), (nothing, of_reader, 403), (reader, of_reader, 204),
                                       (admin, of_prod, 204)):
        assert (await page.rest.delete(f"/api/push/subscriptions/{device_id}", headers=headers)).status_code == status


@pytest.mark.parametrize("endpoint", ["http://push.example/x", "https://127.0.0.1/x", "https://[::ffff:10.0.0.1]/x",
                                      "https://user:pw@push.example/x", "https://push.example:6379/x", "nonsense"])
async def test_an_endpoint_that_is_not_to_be_called_is_refused(page: Gateway, endpoint: str) -> None:
    assert await said(page, device() | {"endpoint": endpoint}) == (422, "bad_endpoint")


async def test_what_makes_no_sense_is_refused(page: Gateway) -> None:
    keys = Browser().keys
    for bad in ({"p256dh": keys["auth"], "auth": keys["auth"]}, {"p256dh": keys["p256dh"], "auth": "AA"}):
        assert await said(page, device() | {"keys": bad}) == (422, "bad_keys")
    for more in ({"severity": "loud"}, {"model": "a*b"}, {"endpoint": f"{HOST}/{'x' * 3_000}"}):
        assert await said(page, device() | more) == (422, "bad_query")
    assert await said(page, device() | {"endpoint": "https://web.push.apple.com/x"}) == (422, "push_contact_missing")
    assert await page.get("/api/push/subscriptions") == []


async def test_devices_are_bounded_by_token_and_in_all(settings: Settings, page: Gateway) -> None:
    one, two = issue(settings, Grant(name="one"), Grant(name="two"))
    answers = await asyncio.gather(*(said(page, device(f"d{number}"), one) for number in range(MOST_OF_TOKEN + 3)))
    assert sum(status == 201 for status, _ in answers) == MOST_OF_TOKEN
    assert {code for status, code in answers if status != 201} == {"too_many_subscriptions"}
    known = next(number for number, (status, _) in enumerate(answers) if status == 201)
    assert (await said(page, device(f"d{known}", model="churn"), one))[0] == 201, "one that is there may change"
    assert [(await said(page, device(f"e{number}"), two))[0] for number in range(3)] == [201, 201, 429]


async def test_without_redis_it_is_said_where_subscriptions_would_be(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": Settings(redis_url=f"redis://127.0.0.1:{free_port()}").redis_url})
    async with gateway(away) as running:
        assert await said(running, device()) == (503, "push_store_away")
        answer = await running.rest.get("/api/push/subscriptions")
        assert answer.status_code == 503 and "Redis" in answer.json()["message"]


async def test_where_there_is_no_web_push_it_is_said(settings: Settings) -> None:
    async with gateway(settings.model_copy(update={"push_subscriptions": 0})) as running:
        assert await said(running, device()) == (503, "push_off")
        assert (await running.rest.get("/api/push/key")).json()["code"] == "push_off"
