"""Receivers of alerts, with real HTTP servers: signed, in order, tried again, put aside when nothing helps."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from stores_world import an_alert
from support import free_port, produce, read_all

from agents.alerts.hooks import Hook, HookSink, HooksFileError, for_alertmanager, read, signed
from schemas.alerts import Alert, UndeliveredAlert
from streams.kafka import create_topics
from streams.messages import to_bytes
from streams.settings import Settings
from streams.stores.redis import Hot, connect
from streams.topics import ALERTS, UNDELIVERED

PATIENCE_S = 20.0


class Receiver:
    """Answers with the statuses it is given, then with 204."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.calls.append((dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.calls]


@contextlib.asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    found = Receiver(*statuses)
    application = web.Application()
    application.router.add_post("/{tail:.*}", found.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


_numbers = iter(range(1_000_000))


@pytest.fixture
async def settings(tansu: str, tmp_path: Path) -> Settings:
    found = Settings(kafka_url=tansu, topic_prefix=f"hook{next(_numbers)}-", group=f"hook{next(_numbers)}",
                     partitions=1, data_dir=tmp_path)
    await create_topics(found)
    return found


def hook(url: str, **more: Any) -> Hook:
    return Hook(**{"name": "pager", "url": url + "/in", "first_wait_s": 0.01} | more)


@contextlib.asynccontextmanager
async def opened(settings: Settings, chosen: Hook) -> AsyncIterator[HookSink]:
    sink = HookSink(settings, chosen)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def undelivered(settings: Settings) -> list[UndeliveredAlert]:
    return [UndeliveredAlert.model_validate_json(record.value)
            for record in await read_all(settings, UNDELIVERED.name)]


async def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(settings: Settings) -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    async with receiving() as there, opened(settings, hook(there.url, secret=secret)) as sink:
        assert await sink.deliver(an_alert(1))
    [(headers, body)] = there.calls
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = hmac.new(b"0123456789abcdef01234567", said, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(right).decode()
    assert json.loads(body)["type"] == "alert.open" and json.loads(body)["data"]["alert_id"] == "alert-1"


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the specification's own libraries."""
    assert signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
                  b'{"test": 2432232314}') == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_what_fails_for_a_while_is_tried_again_under_the_same_id(settings: Settings) -> None:
    async with receiving(500, 429, 503) as there, opened(settings, hook(there.url)) as sink:
        assert await sink.deliver(an_alert(1))
    assert there.ids() == ["alert-1"] * 4
    assert await undelivered(settings) == []


async def test_what_is_refused_is_put_aside_at_once(settings: Settings) -> None:
    async with receiving(400, 302) as there, opened(settings, hook(there.url)) as sink:
        assert not await sink.deliver(an_alert(1))
        assert not await sink.deliver(an_alert(2))
        assert await sink.deliver(an_alert(3))
    assert there.ids() == ["alert-1", "alert-2", "alert-3"]
    letters = await undelivered(settings)
    assert [(letter.alert.alert_id, letter.error) for letter in letters] == [
        ("alert-1", "refused: status 400"), ("alert-2", "refused: status 302")]


async def test_of_a_receiver_that_is_away_nothing_is_lost_and_later_alerts_wait_less(settings: Settings) -> None:
    async with receiving() as there:
        url = there.url
    async with opened(settings, hook(url, attempts=4)) as sink:
        tries: list[str] = []
        honest = sink._try

        async def counted(alert: Alert, group: str) -> str:
            tries.append(alert.alert_id)
            return await honest(alert, group)

        sink._try = counted  # type: ignore[method-assign]
        for number in range(3):
            assert not await sink.deliver(an_alert(number))
    assert [tries.count(f"alert-{number}") for number in range(3)] == [4, 2, 2]
    assert [letter.alert.alert_id for letter in await undelivered(settings)] == ["alert-0", "alert-1", "alert-2"]


@pytest.mark.parametrize(("wish", "wanted"), [
    ({}, True), ({"severity": "critical"}, False), ({"model": "chu*"}, True), ({"environment": "staging"}, False),
    ({"states": ["resolved"]}, False), ({"level": 1}, False)])
def test_what_a_receiver_wants(wish: dict[str, Any], wanted: bool) -> None:
    assert hook("http://x", **wish).wants(an_alert(1)) is wanted
    assert not hook("http://x", **wish).wants(an_alert(1, silenced_by="s"))


def test_alertmanager_is_told_of_the_incident_once_and_of_its_end() -> None:
    now = an_alert().ts + 60_000
    fired = for_alertmanager(an_alert(0), now)
    assert {entry["labels"]["severity"]: entry["endsAt"] > entry["startsAt"] and entry["endsAt"][:4] >= "2026"
            for entry in fired}["warning"]
    on = [entry["labels"]["severity"] for entry in fired if entry["endsAt"] > "2026-05-02"]
    assert on == ["warning"]
    over = for_alertmanager(an_alert(0, state="resolved"), now)
    assert [entry for entry in over if entry["endsAt"] > "2026-05-02"] == []
    assert [entry["labels"] for entry in over] == [entry["labels"] for entry in fired], "the same alert, there"


async def test_the_sink_tells_what_comes_through_kafka_in_order(settings: Settings) -> None:
    async with receiving(500) as there:
        sink, stop = HookSink(settings, hook(there.url, severity="warning")), asyncio.Event()
        running = asyncio.create_task(sink.run(stop))
        sent = 0
        async with asyncio.timeout(PATIENCE_S):
            while not there.calls:              # a new group begins with what comes once it is there
                await produce(settings, ALERTS.name, [to_bytes(an_alert(sent))])
                sent += 1
                await asyncio.sleep(0.2)
            await produce(settings, ALERTS.name, [to_bytes(an_alert(sent + number, severity=severity))
                                                  for number, severity in enumerate(("info", "critical", "warning"))])
            while f"alert-{sent + 2}" not in there.ids():
                await asyncio.sleep(0.05)
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)
    numbers = [int(one.split("-")[1]) for one in dict.fromkeys(there.ids())]
    assert numbers == sorted(numbers) and f"alert-{sent}" not in there.ids()


def test_the_file_is_checked_and_secrets_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "hooks.json"
    path.write_text(json.dumps([{"name": "a", "url": "https://x/SECRET", "secret": "SECRET"}]))
    [found] = read(path)
    assert "SECRET" not in repr(found) and "SECRET" not in found.model_dump_json()
    path.write_text(json.dumps([{"name": "a", "url": "u"}, {"name": "a", "url": "v"}]))
    with pytest.raises(ValueError, match="one name"):
        read(path)
    assert read(None) == []


# -- groups ------------------------------------------------------------------------------------------


def of_five(number: int, state: str = "open") -> Alert:
    """One of five models that one upstream incident hits."""
    return an_alert(number if state == "open" else 100 + number, incident_id=f"i-{number}", model=f"m{number}",
                    cause="drift", field="feature.age", state=state, onset_ms=an_alert().onset_ms + number * 1_000)


@pytest.fixture
def grouped(settings: Settings, valkey_url: str) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(valkey_url)})


async def test_incidents_of_one_cause_carry_their_group_to_a_webhook_whoever_is_first(grouped: Settings) -> None:
    relay = Hot(connect(grouped), grouped)
    async with receiving() as there, opened(grouped, hook(there.url)) as sink:
        for number in range(5):
            if number % 2:
                await relay.append_alert(of_five(number))       # on the stream before the hook tells of it, or after
            assert await sink.deliver(of_five(number))
            await relay.append_alert(of_five(number))
        assert set((await relay.groups()).values()) == {"i-0"}
        for number in range(5):
            await relay.append_alert(of_five(number, "resolved"))
            assert await sink.deliver(of_five(number, "resolved"))
        assert await sink.deliver(an_alert(50, incident_id="i-9", cause="latency"))
    await relay.client.aclose()
    assert [json.loads(body)["group"] for _, body in there.calls] == ["i-0"] * 10 + ["i-9"]


async def test_a_receiver_that_wants_one_a_group_is_told_of_the_first_only(grouped: Settings) -> None:
    async with receiving() as there, opened(grouped, hook(there.url, one_a_group=True)) as sink:
        for state in ("open", "resolved"):
            for number in range(5):
                assert await sink.deliver(of_five(number, state))
    assert there.ids() == ["alert-0", "alert-100"]


async def test_without_redis_every_incident_is_its_own_group_and_all_are_told(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}")})
    async with receiving() as there, opened(away, hook(there.url, one_a_group=True)) as sink:
        for number in range(2):
            assert await sink.deliver(of_five(number))
    assert [json.loads(body)["group"] for _, body in there.calls] == ["i-0", "i-1"]


def test_alertmanager_has_the_group_as_a_label_and_an_incident_ends_under_both_names() -> None:
    now = an_alert().ts + 60_000
    fired = for_alertmanager(an_alert(0), now, "other")
    on = [entry["labels"]["group"] for entry in fired if entry["endsAt"] > "2026-05-02"]
    assert on == ["other"]
    over = for_alertmanager(an_alert(0, state="resolved"), now, "other")
    before = for_alertmanager(an_alert(0), now)         # told while Redis was away
    assert all(entry["labels"] in [ended["labels"] for ended in over] for entry in (*fired, *before))
    assert [entry for entry in over if entry["endsAt"] > "2026-05-02"] == []


@pytest.mark.parametrize("text", [
    '[{"name": "pager", "secret": "whsec_of-ours"}]', '[{"name": "pager", "url": "http://a/of-ours", "to": "of-ours"}]',
    '[{"name": "pager", "secret": "whsec_of-ours"},]', '"of-ours"'])
def test_a_file_that_cannot_be_used_is_named_and_its_secrets_are_not(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hooks.json"
    path.write_text(text)
    with pytest.raises(HooksFileError) as raised:
        read(path)
    shown = "".join(traceback.format_exception(raised.value))
    assert f"{path} (STREAMGAUGE_HOOKS_FILE) is no list of hooks: " in shown
    assert "of-ours" not in shown
