"""Whoever must not come in is refused, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from doors_support import client, counts, issue, line, raw, refused
from stores_world import PATIENCE_S, TOKEN, Socket, a_window, an_alert, eventually, gateway, opened, world
from websockets.exceptions import ConnectionClosed

from dashboards.api.tokens import LOOK_S, Grant, TokenBook, digest, made, read, write
from streams.settings import Settings


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url)


# -- tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "reason"), [("", "no_token"), ("wrong", "wrong_token")])
async def test_without_the_token_nobody_comes_in_and_that_is_counted(bare: Settings, token: str, reason: str) -> None:
    async with gateway(bare) as running:
        with counts(reason, least=2):
            assert await refused(line(running, token)) == (401, "unauthorized")
            async with client(running, token or "x") as stranger:
                del stranger.headers["Authorization"]
                if token:
                    stranger.headers["Authorization"] = f"Bearer {token}"
                assert (await stranger.get("/api/alerts")).status_code == 401


async def test_an_expired_token_is_refused_as_such(bare: Settings) -> None:
    [token] = issue(bare, Grant(name="old", expires_ms=1_000))
    async with gateway(bare) as running, client(running, token) as holder:
        with counts("expired", least=2):
            assert await refused(line(running, token)) == (401, "token_expired")
            assert (await holder.get("/api/alerts")).json()["code"] == "token_expired"


async def test_a_token_of_one_environment_sees_that_one_only(settings: Settings) -> None:
    [token] = issue(settings, Grant(name="staging", environments=("staging",)))
    async with (opened(settings) as hot, gateway(settings) as running, client(running, token) as holder):
        for number, environment in enumerate(("prod", "staging", "prod", "staging")):
            await hot.append_alert(an_alert(number, environment=environment))
        with counts("environment", least=4):
            assert await refused(line(running, token, "environment=prod")) == (403, "environment_denied")
            for path in ("/api/alerts", "/api/alerts?environment=prod", "/api/overview"):
                assert (await holder.get(path)).status_code == 403, path
        assert (await holder.get("/api/alerts?environment=staging")).status_code == 200
        kept = (await holder.get("/api/alerts/stream?environment=staging")).json()["alerts"]
        assert [item["alert"]["alert_id"] for item in kept] == ["alert-1", "alert-3"]
        async with line(running, token, "last_id=0") as found:
            subscriber = Socket(found)
            assert (await subscriber.next())["type"] == "hello"
            assert await subscriber.alerts(2) == ["alert-1", "alert-3"]


async def test_windows_of_other_environments_are_not_shown_either(settings: Settings) -> None:
    [token] = issue(settings, Grant(name="staging", environments=("staging",)))
    async with (opened(settings) as hot, gateway(settings) as running, client(running, token) as holder):
        for environment in ("prod", "staging"):
            windows = [a_window(environment=environment, size_ms=size, count=count)
                       for size, count in ((1_000, 1), (60_000, 2))]
            await hot.append_windows(windows)
            await hot.put_windows(windows)

        async def history() -> bool:
            return running.app.state.history is not None

        await eventually(history, "the database")
        with counts("environment", least=8):
            assert await refused(line(running, token, "environment=prod", "windows")) == (403, "environment_denied")
            for query in ("", "?environment=prod", "?environment=staging&environment=prod"):
                assert (await holder.get(f"/api/series{query}")).status_code == 403, query
            for query in ("", "?environment=*", "?environment=prod", "?environment=staging&environment=prod"):
                assert (await holder.get(f"/api/metrics{query}")).status_code == 403, query
        found = await holder.get("/api/series?environment=staging")
        assert [(row["environment"], row["windows"][0]["count"]) for row in found.json()] == [("staging", 2)]
        assert (await holder.get("/api/metrics?environment=staging&model=*")).status_code == 200
        async with line(running, token, "last_id=0&granularity_ms=60000", "windows") as opening:
            subscriber = Socket(opening)
            assert (await subscriber.next())["type"] == "hello"
            first = (await subscriber.next())["window"]
            await hot.append_windows([a_window(environment=environment, count=3)
                                      for environment in ("prod", "staging")])
            seen = [first, (await subscriber.next())["window"]]
        assert [(window["environment"], window["count"]) for window in seen] == [("staging", 2), ("staging", 3)]


async def test_a_token_has_so_many_sockets_and_no_more(settings: Settings) -> None:
    [token] = issue(settings, Grant(name="few", max_sockets=2))
    async with gateway(settings) as running:
        async with line(running, token) as one, line(running, token) as two:
            await asyncio.gather(one.recv(), two.recv())
            with counts("token_sockets"):
                assert await refused(line(running, token)) == (429, "too_many_sockets")

        async def free() -> bool:
            return not running.app.state.tokens.sockets["few"]

        await eventually(free, "both are gone")
        async with line(running, token) as again:
            await again.recv()


@pytest.mark.parametrize("how", ["withdrawn", "expired"])
async def test_a_socket_ends_with_its_token(settings: Settings, how: str) -> None:
    quick = settings.model_copy(update={"heartbeat_ms": 200})
    expires = int((time.time() + 1.5) * 1000) if how == "expired" else 0
    [token] = issue(quick, Grant(name="brief", expires_ms=expires))
    async with gateway(quick) as running, line(running, token) as found:
        assert json.loads(await found.recv())["type"] == "hello"
        if how == "withdrawn":
            write(quick.tokens_path, [])
        with counts("token", "sockets_closed"), pytest.raises(ConnectionClosed) as end:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await found.recv()
        assert end.value.rcvd is not None and end.value.rcvd.code == 4401


def test_the_file_is_read_again_when_it_changes_and_half_an_edit_changes_nothing(tmp_path: Path) -> None:
    now = [1_000.0]
    path = tmp_path / "tokens.json"
    book = TokenBook("root", path, lambda: now[0])

    def later() -> None:
        now[0] += 2 * LOOK_S

    assert book.find("root") is not None and book.find("") is None
    token, grant = made(Grant(name="a"))
    assert book.find(token) is None
    write(path, [grant])
    assert token not in path.read_text() and read(path)[0].sha256 == digest(token)
    later()
    assert book.find(token) == grant and book.valid(grant)
    path.write_text(path.read_text()[:-20])
    later()
    assert book.find(token) == grant
    write(path, [grant.model_copy(update={"scopes": ("admin",)})])
    later()
    assert not book.valid(grant)


@pytest.mark.parametrize(("scopes", "may"), [((), ""), (("read",), "read"), (("acknowledge",), "read acknowledge"),
                                             (("admin",), "read acknowledge admin")])
def test_a_scope_holds_those_before_it(scopes: tuple[Any, ...], may: str) -> None:
    grant = Grant(name="x", scopes=scopes)
    assert [scope for scope in ("read", "acknowledge", "admin") if grant.may(scope)] == may.split()  # type: ignore[arg-type]


# -- pages, frames, talk -----------------------------------------------------------------------------


async def test_pages_of_other_origins_open_no_sockets(settings: Settings) -> None:
    listed = settings.model_copy(update={"allowed_origins": ("https://wall.example",)})
    async with gateway(listed) as running:
        with counts("origin", least=3):
            for origin in ("https://evil.example", "null", f"{running.page}.evil.example"):
                assert await refused(line(running, headers={"Origin": origin})) == (403, "foreign_origin")
        for origin in (running.page, "https://wall.example"):
            async with line(running, headers={"Origin": origin}) as found:
                assert json.loads(await found.recv())["type"] == "hello"


async def closed(found: Any) -> int:
    """The code with which the gateway closes."""
    with pytest.raises(ConnectionClosed) as end:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await found.recv()
    return end.value.rcvd.code if end.value.rcvd else 0


async def test_an_oversized_frame_ends_its_socket(settings: Settings) -> None:
    async with gateway(settings) as running, line(running, compression=None) as found:
        await found.recv()
        with counts("frame_too_large", "sockets_closed"):
            await found.send("x" * 10_000)
            assert await closed(found) == 1009


async def test_a_small_frame_that_unpacks_to_a_large_one_ends_its_socket(settings: Settings) -> None:
    async with gateway(settings) as running, line(running) as found:
        await found.recv()
        with counts("frame_too_large", "sockets_closed"):
            await found.send("x" * 1_000_000)
            assert await closed(found) == 1009


async def test_a_socket_that_answers_no_ping_is_cut(settings: Settings) -> None:
    async with gateway(settings.model_copy(update={"heartbeat_ms": 100})) as running, raw(running) as (reader, writer):
        writer.write(b"GET /ws/alerts HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                     b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        with counts("no_pong", "sockets_closed"), contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
                await reader.read(-1)


async def test_a_client_that_talks_is_closed(settings: Settings) -> None:
    async with gateway(settings) as running, line(running) as found:
        await found.recv()
        with counts("talks", "sockets_closed"), contextlib.suppress(ConnectionClosed):
            for _ in range(100):
                await found.send("hello?")
            assert await closed(found) == 1008


async def test_compressed_and_plain_sockets_get_the_same(settings: Settings) -> None:
    async with (opened(settings) as hot, gateway(settings) as running, line(running, query="last_id=0") as packed,
                line(running, query="last_id=0", compression=None) as plain):
        for found in (packed, plain):
            assert json.loads(await found.recv())["type"] == "hello"
        assert packed.response is not None
        assert "permessage-deflate" in packed.response.headers["Sec-WebSocket-Extensions"]
        for number in range(50):
            await hot.append_alert(an_alert(number))
        took = [[await found.recv() for _ in range(50)] for found in (packed, plain)]
        assert took[0] == took[1]
        assert [json.loads(text)["alert"]["alert_id"] for text in took[0]] == [f"alert-{n}" for n in range(50)]
