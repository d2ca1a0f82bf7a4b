"""`/ws/alerts` on a real Valkey: filters, resuming without a gap or a double, heartbeats, and slow readers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Union

import pytest
from pydantic import Field, TypeAdapter
from stores_world import Gateway, a_window, an_alert, an_anomaly, eventually, gateway, world
from websockets.exceptions import InvalidStatus

from dashboards.api.feed import RUN_BYTES
from schemas.sockets import ON_ALERTS, ON_ANOMALIES, ON_WINDOWS
from streams.messages import to_bytes
from streams.settings import Settings
from streams.stores.redis import Hot


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url)


async def add(hot: Hot, *numbers: int, **more: Any) -> None:
    for number in numbers:
        await hot.append_alert(an_alert(number, **more))


def ids(*numbers: int) -> list[str]:
    return [f"alert-{number}" for number in numbers]


async def subscribed(running: Gateway, count: int = 1) -> None:
    async def there() -> bool:
        return len(running.app.state.feeds["alert"].subscribers) == count

    await eventually(there, "subscribed")


async def test_a_new_socket_gets_what_comes_from_now_on(settings: Settings, hot: Hot) -> None:
    await add(hot, 1, 2)
    async with gateway(settings) as running, running.socket() as line:
        hello = await line.next()
        assert (hello["type"], hello["heartbeat_ms"]) == ("hello", 60_000)
        await subscribed(running)
        await add(hot, 3, 4)
        assert await line.alerts(2) == ids(3, 4)


async def test_a_socket_resumes_after_the_last_id_that_it_saw(settings: Settings, hot: Hot) -> None:
    await add(hot, *range(5))
    async with gateway(settings) as running:
        async with running.socket(last_id=0) as line:
            await line.next()
            seen = [await line.next() for _ in range(3)]
            assert [message["alert"]["alert_id"] for message in seen] == ids(0, 1, 2)
        async with running.socket(last_id=seen[-1]["id"]) as line:
            await line.next()
            assert await line.alerts(2) == ids(3, 4)
            await subscribed(running)
            await add(hot, 5)
            assert await line.alerts(1) == ids(5)


async def test_alerts_that_come_while_a_socket_catches_up_are_sent_once_and_in_order(
        settings: Settings, hot: Hot) -> None:
    await add(hot, *range(700))
    async with gateway(settings) as running, running.socket(last_id=0) as line:
        await line.next()
        await add(hot, *range(700, 800))
        assert await line.alerts(800) == ids(*range(800))


async def test_an_alert_that_is_written_twice_is_sent_once(settings: Settings, hot: Hot) -> None:
    async with gateway(settings) as running, running.socket() as line:
        await line.next()
        await subscribed(running)
        await add(hot, 1, 1, 2)
        assert await line.alerts(2) == ids(1, 2)


async def test_filters_hold_for_what_was_and_for_what_comes(settings: Settings, hot: Hot) -> None:
    async def some(first: int) -> None:
        await add(hot, first)
        await add(hot, first + 1, environment="staging")
        await add(hot, first + 2, model="fraud")
        await add(hot, first + 3, severity="critical")

    await some(0)
    async with (gateway(settings) as running, running.socket(last_id=0, environment="staging") as staging,
                running.socket(last_id=0, model="fraud") as fraud,
                running.socket(last_id=0, severity="critical") as critical):
        for line, number in ((staging, 1), (fraud, 2), (critical, 3)):
            assert (await line.next())["type"] == "hello"
            assert await line.alerts(1) == ids(number)
        await subscribed(running, 3)
        await some(10)
        for line, number in ((staging, 11), (fraud, 12), (critical, 13)):
            assert await line.alerts(1) == ids(number)


async def test_a_quiet_line_has_heartbeats_that_say_how_far_it_is(settings: Settings, hot: Hot) -> None:
    await add(hot, 1)
    async with (gateway(settings.model_copy(update={"heartbeat_ms": 200})) as running,
                running.socket() as line):
        hello = await line.next()
        beats = [await line.next() for _ in range(2)]
        assert [beat["type"] for beat in beats] == ["heartbeat"] * 2
        assert beats[1]["last_id"] == hello["last_id"]
        assert beats[0]["ts"] < beats[1]["ts"]


async def test_a_socket_that_does_not_read_is_bounded_and_told_what_it_missed(settings: Settings, hot: Hot) -> None:
    small = settings.model_copy(update={"socket_queue": 5})
    async with gateway(small) as running, running.socket() as line:
        await line.next()
        await subscribed(running)
        [subscriber] = running.app.state.feeds["alert"].subscribers
        total, longest = 3_000, 0
        for number in range(total):
            await hot.append_alert(an_alert(number, detail="x" * 500))
            longest = max(longest, len(subscriber.items))
        assert longest <= 5
        got, missed = 0, 0
        while got + missed < total:
            message = await line.next()
            got += message["type"] == "alert"
            missed += message.get("count", 0) if message["type"] == "missed" else 0
        assert got + missed == total


async def test_a_socket_that_stops_reading_is_held_little_of_a_pass_that_brings_much(settings: Settings,
                                                                                      hot: Hot) -> None:
    async with gateway(settings) as running, running.socket() as line:
        await line.next()
        await subscribed(running)
        feed = running.app.state.feeds["alert"]
        [subscriber] = feed.subscribers
        subscriber.line.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        feed._hand_out([feed._item((f"1-{number}", {"alert": to_bytes(an_alert(number, detail="x" * 500)).decode()}))
                        for number in range(2_000)])
        held = subscriber.line.transport.get_write_buffer_size()
        assert RUN_BYTES < held < 2.5 * RUN_BYTES       # what passed asyncio's high-water mark, and a run; not 2 MB
        assert len(subscriber.items) == settings.socket_queue or subscriber.lagging


async def test_a_place_that_is_no_longer_kept_is_told(settings: Settings, hot: Hot) -> None:
    await add(hot, *range(10))
    first = (await hot.client.xrange(hot.alerts.key, count=1))[0][0]
    await hot.client.xtrim(hot.alerts.key, maxlen=4, approximate=False)
    async with gateway(settings) as running, running.socket(last_id=first) as line:
        await line.next()
        missed = await line.next()
        assert (missed["type"], missed["reason"], missed["count"]) == ("missed", "trimmed", None)
        assert await line.alerts(4) == ids(6, 7, 8, 9)


@pytest.mark.parametrize("query", [{"last_id": "yesterday"}, {"severity": "loud"}])
async def test_a_question_that_makes_no_sense_is_refused_with_what_would(settings: Settings,
                                                                         query: dict[str, str]) -> None:
    async with gateway(settings) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with running.socket(**query):
                pass
        assert refused.value.response.status_code == 400
        assert next(iter(query)).encode() in refused.value.response.body


async def test_every_message_keeps_the_written_contract(settings: Settings, hot: Hot) -> None:
    known = {kind: TypeAdapter(Annotated[Union[said], Field(discriminator="type")])  # noqa: UP007
             for kind, said in (("alerts", ON_ALERTS), ("anomalies", ON_ANOMALIES), ("windows", ON_WINDOWS))}
    await add(hot, *range(10))
    first = (await hot.client.xrange(hot.alerts.key, count=1))[0][0]
    await hot.client.xtrim(hot.alerts.key, maxlen=4, approximate=False)
    await hot.append_anomalies([an_anomaly(1)])
    await hot.append_windows([a_window()])
    async with gateway(settings.model_copy(update={"heartbeat_ms": 100})) as running:
        seen = set()
        for path, last, count in (("alerts", first, 7), ("anomalies", "0", 3), ("windows", "0", 3)):
            async with running.socket(path, last_id=last) as line:
                seen |= {known[path].validate_python(await line.next()).type for _ in range(count)}
    assert seen == {"hello", "missed", "alert", "anomaly", "window", "heartbeat"}


async def test_anomalies_have_a_socket_of_their_own(settings: Settings, hot: Hot) -> None:
    await hot.append_anomalies([an_anomaly(1), an_anomaly(2, model="fraud")])
    await add(hot, 1)
    async with gateway(settings) as running, running.socket("anomalies", last_id=0, model="fraud") as line:
        assert (await line.next())["type"] == "hello"
        await hot.append_anomalies([an_anomaly(3), an_anomaly(2, model="fraud"), an_anomaly(4, model="fraud")])
        found = [await line.next() for _ in range(2)]
        assert [(message["type"], message["anomaly"]["anomaly_id"]) for message in found] == [
            ("anomaly", "anomaly-2"), ("anomaly", "anomaly-4")]


async def test_windows_have_a_socket_with_figures_and_filters(settings: Settings, hot: Hot) -> None:
    def sent(count: int) -> list[Any]:
        return [a_window(size_ms=size, count=count, version=version) for size in (1_000, 60_000)
                for version in ("3", "4")]

    await hot.append_windows(sent(2))
    async with (gateway(settings) as running,
                running.socket("windows", last_id=0, granularity_ms=60_000, version="4") as line):
        assert (await line.next())["type"] == "hello"
        first = await line.next()

        async def there() -> bool:
            return len(running.app.state.feeds["window"].subscribers) == 1

        await eventually(there, "subscribed")
        await hot.append_windows(sent(5))
        second = await line.next()
        seen = [message["window"] for message in (first, second)]
        assert [(w["size_ms"], w["version"], w["count"]) for w in seen] == [(60_000, "4", 2), (60_000, "4", 5)]
        latency = second["window"]["fields"]["latency_ms"]
        assert "sketch" not in latency
        assert latency["p50"] == pytest.approx(20.0, rel=0.0101)
    async with gateway(settings) as running:
        with pytest.raises(InvalidStatus, match="400"):
            async with running.socket("windows", granularity_ms="minute"):
                pass


async def test_windows_that_came_while_nobody_listened_are_not_missed(settings: Settings, hot: Hot) -> None:
    async def waits(count: int) -> None:
        async def there() -> bool:
            return len(running.app.state.feeds["window"].subscribers) == count

        await eventually(there, "subscribed")

    async with gateway(settings) as running:
        async with running.socket("windows") as line:
            await line.next()
            await waits(1)
            await hot.append_windows([a_window(count=1), a_window(count=2)])
            last, second = [await line.next() for _ in range(2)]
        assert second["window"]["count"] == 2
        await waits(0)
        await hot.append_windows([a_window(count=3)])

        async def past() -> bool:
            return str(running.app.state.feeds["window"].last) > second["id"]

        await eventually(past, "read")
        async with running.socket("windows", last_id=last["id"]) as line:
            await line.next()
            await waits(1)
            await hot.append_windows([a_window(count=4)])
            assert [(await line.next())["window"]["count"] for _ in range(3)] == [2, 3, 4]
