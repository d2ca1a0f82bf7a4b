"""Web push end to end: a gateway to subscribe at, alerts by Kafka, and a push service that believes nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email.utils import format_datetime
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from push_world import PushService, push_service
from stores_world import DAY, Gateway, an_alert, eventually, gateway, opened
from support import free_port, produce, read_all

from agents.alerts import push
from agents.alerts.push import ATTEMPTS, PushSink, message_of, retry_after_s
from dashboards.api.push import Tending
from dashboards.api.tokens import LOOK_S, Grant, TokenBook, made, write
from schemas.alerts import UndeliveredAlert
from streams.kafka import create_topics
from streams.messages import to_bytes
from streams.push.keys import PushKeys, new_key, push_keys
from streams.push.message import MOST_PLAIN
from streams.push.subscriptions import Subscriptions
from streams.settings import Settings
from streams.stores.sink import AWAY
from streams.topics import ALERTS, UNDELIVERED

PATIENCE_S = 20.0
_numbers = iter(range(1_000_000))


@pytest.fixture
async def settings(tansu: str, valkey_url: str, tmp_path: Path) -> Settings:
    found = Settings(kafka_url=tansu, redis_url=valkey_url, topic_prefix=f"push{next(_numbers)}-",
                     group=f"push{next(_numbers)}", partitions=1, data_dir=tmp_path, port=0, heartbeat_ms=60_000,
                     api_token="a-token-for-tests", push_private_endpoints=True,
                     push_contact="mailto:ops@streamgauge.example",
                     database_url="postgresql://nobody@127.0.0.1:1/none")
    await create_topics(found)
    return found


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[PushService]:
    async with push_service(push_keys(settings).public) as found:
        yield found


@pytest.fixture
async def page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway that does not look after tokens by itself: it has another clock than the tests'."""
    monkeypatch.setattr("dashboards.api.push.TEND_SECONDS", 3_600.0)
    async with gateway(settings) as running:
        yield running


async def subscribe(page: Gateway, wish: dict[str, Any], token: str = "", **more: Any) -> str:
    answer = await page.rest.post("/api/push/subscriptions", json=wish | more,
                                  headers={"Authorization": f"Bearer {token}"} if token else {})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@contextlib.asynccontextmanager
async def telling(settings: Settings, **more: Any) -> AsyncIterator[Any]:
    """The sink's way to tell of alerts, without the wait for a consumer group; it does not wait long."""
    sink = PushSink(settings.model_copy(update=more), push_keys(settings))
    sink.first_wait_s = 0.01
    tell = (await sink.open())[ALERTS.name]
    try:
        yield tell
    finally:
        await sink.close()


async def undelivered(settings: Settings) -> list[tuple[str, str, str]]:
    found = [UndeliveredAlert.model_validate_json(record.value)
             for record in await read_all(settings, UNDELIVERED.name)]
    return [(letter.hook, letter.alert.alert_id, letter.error) for letter in found]


async def test_a_phone_is_told_of_each_transition_once_and_can_read_it(settings: Settings, service: PushService,
                                                                        page: Gateway) -> None:
    """Everything real: subscribed at the gateway, kept in Redis, told by Kafka and a consumer group."""
    assert (await page.get("/api/push/key"))["key"] == service.key
    await subscribe(page, service.device("phone"), severity="warning")
    sink, stop = PushSink(settings, push_keys(settings)), asyncio.Event()
    running = asyncio.create_task(sink.run(stop))
    sent = 0
    async with asyncio.timeout(PATIENCE_S):
        while not service.ids("phone"):             # a new group begins with what comes once it is there
            await produce(settings, ALERTS.name, [to_bytes(an_alert(sent))])
            sent += 1
            await asyncio.sleep(0.2)
        last = an_alert(sent + 3, incident_id="incident-0", state="resolved", severity="critical")
        await produce(settings, ALERTS.name, [to_bytes(alert) for alert in (
            an_alert(sent, severity="info"), an_alert(sent + 1, silenced_by="s"), an_alert(sent + 2),
            an_alert(sent + 2), last)])
        while last.alert_id not in service.ids("phone"):
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(running, PATIENCE_S)
    ids = service.ids("phone")
    assert len(ids) == len(set(ids)) and ids[-2:] == [f"alert-{sent + 2}", last.alert_id]
    assert not {f"alert-{sent}", f"alert-{sent + 1}"} & set(ids)
    assert service.told["phone"][-1] == {
        "alert_id": last.alert_id, "incident_id": "incident-0", "group": "incident-0", "state": "resolved",
        "severity": "critical", "environment": "prod", "model": "churn", "ts": last.ts, "title": last.title,
        "link": "/?incident=incident-0&environment=prod"}
    assert [headers["Urgency"] for headers in service.headers][-2:] == ["normal", "high"]
    assert all(claims["sub"] == "mailto:ops@streamgauge.example" for claims in service.claims)


async def test_a_batch_that_is_told_again_reaches_nobody_twice(settings: Settings, service: PushService, page: Gateway
                                                               ) -> None:
    for name in ("phone", "tablet"):
        await subscribe(page, service.device(name))
    for _ in range(2):                              # the worker died before it committed
        async with telling(settings) as tell:
            await tell([an_alert(1), an_alert(2)])
    assert service.ids("phone") == service.ids("tablet") == ["alert-1", "alert-2"]


async def test_an_endpoint_that_is_gone_ends_its_subscription(settings: Settings, service: PushService, page: Gateway
                                                              ) -> None:
    for name, status in (("old", 410), ("older", 404), ("phone", 201)):
        await subscribe(page, service.device(name, status))
    async with telling(settings) as tell:
        await tell([an_alert(1), an_alert(2)])
    assert (service.tries["old"], service.tries["older"], service.tries["phone"]) == (1, 1, 2)
    assert len(await page.get("/api/push/subscriptions")) == 1
    assert await undelivered(settings) == []


async def test_who_asks_to_wait_is_waited_for_and_the_order_stays(settings: Settings, service: PushService,
                                                                  page: Gateway) -> None:
    await subscribe(page, service.device("phone", (429, {"Retry-After": "1"}), 503))
    async with telling(settings) as tell:
        began = asyncio.get_running_loop().time()
        await tell([an_alert(1), an_alert(2)])
    assert asyncio.get_running_loop().time() - began >= 1.0
    assert service.ids("phone") == ["alert-1", "alert-2"] and service.tries["phone"] == 4
    assert await undelivered(settings) == []


async def test_who_asks_to_wait_for_too_long_is_left_alone_and_nothing_is_lost(settings: Settings,
                                                                               service: PushService, page: Gateway
                                                                               ) -> None:
    device = await subscribe(page, service.device("phone", (429, {"Retry-After": "3600"})))
    await subscribe(page, service.device("tablet"))
    async with telling(settings) as tell:
        await tell([an_alert(1)])
        await tell([an_alert(2)])
    assert service.tries["phone"] == 1 and service.ids("tablet") == ["alert-1", "alert-2"]
    assert await undelivered(settings) == [(f"push-{device}", "alert-1", "status 429"),
                                           (f"push-{device}", "alert-2", "it asked to be left alone for longer")]


async def test_what_is_refused_or_fails_for_good_is_put_aside(settings: Settings, service: PushService, page: Gateway
                                                              ) -> None:
    refusing = await subscribe(page, service.device("refusing", 413, 302))
    failing = await subscribe(page, service.device("failing", *[500] * (ATTEMPTS + 1)))
    async with telling(settings) as tell:
        await tell([an_alert(1)])
        await tell([an_alert(2)])
        await tell([an_alert(3)])
    assert (service.tries["refusing"], service.tries["failing"]) == (3, ATTEMPTS + 2)
    assert service.ids("refusing") == service.ids("failing") == ["alert-3"]
    assert sorted(await undelivered(settings)) == sorted([
        (f"push-{refusing}", "alert-1", "refused: status 413"), (f"push-{refusing}", "alert-2", "refused: status 302"),
        (f"push-{failing}", "alert-1", "status 500"), (f"push-{failing}", "alert-2", "status 500")])


async def test_a_push_service_that_hangs_has_its_time_and_holds_up_nobody_for_longer(
        settings: Settings, service: PushService, page: Gateway) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE_S)

    hanging = await asyncio.start_server(never, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}/send/x"
    device = await subscribe(page, service.device("x") | {"endpoint": address})
    await subscribe(page, service.device("phone"))
    sink = PushSink(settings, push_keys(settings))
    sink.device_seconds = 0.5
    tell = (await sink.open())[ALERTS.name]
    await asyncio.wait_for(tell([an_alert(number) for number in range(3)]), PATIENCE_S / 2)
    await sink.close()
    hanging.close()
    assert service.ids("phone") == ["alert-0", "alert-1", "alert-2"]
    assert await undelivered(settings) == [(f"push-{device}", f"alert-{number}", "TimeoutError") for number in range(3)]


async def test_a_push_service_that_takes_its_time_over_each_has_no_more_than_its_time(
        settings: Settings, service: PushService, page: Gateway) -> None:
    """It would hold up everybody by saying yes, slowly."""
    device = await subscribe(page, service.device("slow"))
    service.delays_s["slow"] = 0.2
    sink = PushSink(settings, push_keys(settings))
    sink.device_seconds = 0.5
    tell = (await sink.open())[ALERTS.name]
    await tell([an_alert(number) for number in range(8)])
    await sink.close()
    taken = len(service.ids("slow"))
    assert 1 <= taken <= 3 and service.tries["slow"] <= taken + 1
    assert [(hook, alert) for hook, alert, _ in await undelivered(settings)] == [
        (f"push-{device}", f"alert-{number}") for number in range(taken, 8)]


async def test_a_private_endpoint_is_not_called_though_it_was_let_in_once(settings: Settings, service: PushService,
                                                                          page: Gateway) -> None:
    """The bound is held when it is called too: for a name by what it stands for then."""
    await subscribe(page, service.device("phone"))
    await subscribe(page, service.device("named") | {"endpoint": "https://localhost/send/named"})
    async with telling(settings, push_private_endpoints=False) as tell:
        await tell([an_alert(1)])
    assert service.tries == {}
    assert sorted(error for _, _, error in await undelivered(settings)) == [
        "refused: endpoint is https, at its usual port", "refused: no public address"]


async def test_one_cause_is_told_once_to_who_wants_leads(settings: Settings, service: PushService, page: Gateway
                                                         ) -> None:
    await subscribe(page, service.device("lead"), leads=True)
    await subscribe(page, service.device("all"), model="m*")
    of_five = [an_alert(number, model=f"m{number}", cause="drift", field="feature.age", onset_ms=DAY + number)
               for number in range(5)]
    async with telling(settings) as tell:
        await tell([*of_five, an_alert(9, model="other")])
    assert service.ids("lead") == ["alert-0", "alert-9"]
    assert [message["group"] for message in service.told["all"]] == ["incident-0"] * 5


# -- what a token may ------------------------------------------------------------------------------------


async def test_a_device_is_told_what_its_token_may_see_for_as_long_as_it_may(settings: Settings, service: PushService,
                                                                             page: Gateway) -> None:
    pairs = [made(grant) for grant in (Grant(name="prod", environments=("prod",)), Grant(name="brief"),
                                       Grant(name="gone"), Grant(name="narrowed"))]
    write(settings.tokens_path, [grant for _, grant in pairs])
    for token, grant in pairs:
        await subscribe(page, service.device(grant.name), token)
    await subscribe(page, service.device("root"))
    now_s, (prod, brief, _, narrowed) = [DAY / 1000], [grant for _, grant in pairs]
    path = settings.tokens_path
    write(path, [prod, brief.model_copy(update={"expires_ms": DAY + 1_000}),
                 narrowed.model_copy(update={"environments": ("staging",)})])
    async with opened(settings) as hot:
        store = Subscriptions(hot)
        tending = Tending(store, push_keys(settings), TokenBook("a-token-for-tests", path, lambda: now_s[0]),
                          lambda: now_s[0])
        await tending.once()
        alerts = [an_alert(1), an_alert(2, environment="staging")]
        sink = PushSink(settings, push_keys(settings), lambda: now_s[0])
        tell = (await sink.open())[ALERTS.name]
        await tell(alerts)
        assert {name: service.ids(name) for name in service.browsers} == {
            "prod": ["alert-1"], "brief": ["alert-1", "alert-2"], "gone": [], "narrowed": ["alert-2"],
            "root": ["alert-1", "alert-2"]}
        now_s[0] += 1                               # it expires, and no gateway has looked
        await tell([an_alert(3)])
        assert service.ids("brief") == ["alert-1", "alert-2"] and service.ids("prod") == ["alert-1", "alert-3"]
        write(path, [grant for _, grant in pairs])  # withdrawn by mistake
        now_s[0] += LOOK_S
        await tending.once()
        await tell([an_alert(4)])
        assert service.ids("gone") == ["alert-4"]
        path.unlink()
        for wait in (LOOK_S, 25 * 3600):
            now_s[0] += wait
            await tending.once()
        assert [one.token for one in await store.everyone()] == ["root"]
        await sink.close()


async def test_tokens_that_cannot_be_read_withdraw_nobody(settings: Settings, service: PushService, page: Gateway
                                                          ) -> None:
    token, grant = made(Grant(name="reader"))
    write(settings.tokens_path, [grant])
    await subscribe(page, service.device("phone"), token)
    settings.tokens_path.write_text("[{")
    async with opened(settings) as hot:
        store = Subscriptions(hot)
        await Tending(store, push_keys(settings), TokenBook("other", settings.tokens_path)).once()
        assert [one.withdrawn_ms for one in await store.everyone()] == [0]


async def test_a_gateway_looks_after_tokens_by_itself(settings: Settings, service: PushService,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.api.push.TEND_SECONDS", 0.05)
    token, grant = made(Grant(name="reader"))
    write(settings.tokens_path, [grant])
    async with gateway(settings) as running:
        await subscribe(running, service.device("phone"), token)
        settings.tokens_path.write_text("[]")

        async def noticed() -> bool:
            return bool([one for one in await running.get("/api/push/subscriptions") if one["withdrawn"]])

        await eventually(noticed, "withdrawn")


# -- keys and stores --------------------------------------------------------------------------------------


async def test_a_key_that_is_not_the_same_everywhere_is_said_and_nothing_vanishes(settings: Settings,
                                                                                  service: PushService, page: Gateway
                                                                                  ) -> None:
    device = await subscribe(page, service.device("phone"))
    sink = PushSink(settings, PushKeys(new_key()))
    tell = (await sink.open())[ALERTS.name]
    await tell([an_alert(1)])
    await sink.close()
    [(hook, _, error)] = await undelivered(settings)
    assert hook == f"push-{device}" and "STREAMGAUGE_PUSH_KEY" in error
    answer = await page.rest.get("/api/push/key")
    assert (answer.status_code, answer.json()["code"]) == (503, "push_keys_differ")


async def test_while_redis_is_away_alerts_wait(settings: Settings, service: PushService, page: Gateway) -> None:
    await subscribe(page, service.device("phone"))
    away = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}")})
    with pytest.raises(AWAY):                       # the sink's loop tries again, and commits nothing meanwhile
        async with telling(away):
            pass
    sink = PushSink(settings, push_keys(settings))
    await sink.open()
    async with opened(away) as hot:
        with pytest.raises(AWAY):
            await sink.tell([an_alert(1)], Subscriptions(hot))
    await sink.close()
    assert service.tries == {}


def test_there_is_no_sink_without_redis_or_with_no_room(settings: Settings) -> None:
    assert [sink.name for sink in push.sinks(settings)] == ["push"]
    assert push.sinks(settings.model_copy(update={"push_subscriptions": 0})) == []
    assert push.sinks(settings.model_copy(update={"redis_url": Settings().redis_url})) == []


@pytest.mark.parametrize("filler", ["x", "\u30d7", "\x01", '"', "\U0001f30a"])
def test_the_longest_alert_fits_into_a_push_message(filler: str) -> None:
    long = an_alert(1, title=filler * 512, model="m" * 128, environment="e" * 128, alert_id="a" * 128,
                    incident_id="i" * 128)
    assert len(message_of(long, "g" * 128)) <= MOST_PLAIN


def test_how_long_to_wait_is_said_in_seconds_or_by_a_date() -> None:
    now_s = 1_700_000_000.0
    assert [retry_after_s(text, now_s) for text in (None, "", "7", " 12 ", "soon", "-3", "9" * 400)] == [
        0.0, 0.0, 7.0, 12.0, 0.0, 0.0, 999_999_999.0]
    date = format_datetime(datetime.fromtimestamp(now_s + 90, UTC), usegmt=True)
    assert retry_after_s(date, now_s) == 90.0 and retry_after_s(date, now_s + 100) == 0.0
