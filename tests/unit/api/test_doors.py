"""Whoever must not come in, or comes in too great a number, is refused or bounded, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client import REGISTRY
from stores_world import PATIENCE_S, TOKEN, Gateway, Socket, a_window, an_alert, eventually, gateway, opened, world
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dashboards.api.tokens import LOOK_S, Grant, TokenBook, digest, made, read, write
from streams.settings import Settings


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url)


@pytest.fixture
def bare(tmp_path: Path) -> Settings:
    """No store answers: doors need none."""
    return Settings(data_dir=tmp_path, api_token=TOKEN, port=0, redis_url="redis://127.0.0.1:1/0",
                    database_url="postgresql://nobody@127.0.0.1:1/none")


def counted(name: str, reason: str) -> float:
    return REGISTRY.get_sample_value(f"gateway_{name}_total", {"reason": reason}) or 0.0


@contextlib.contextmanager
def counts(reason: str, name: str = "refused", least: int = 1) -> Any:
    """What happens inside is counted under that reason."""
    before = counted(name, reason)
    yield
    assert counted(name, reason) >= before + least, reason


def issue(settings: Settings, *grants: Grant) -> list[str]:
    """Tokens in the file of these settings."""
    pairs = [made(grant) for grant in grants]
    write(settings.tokens_path, [grant for _, grant in pairs])
    return [token for token, _ in pairs]


def client(running: Gateway, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=running.page, headers={"Authorization": f"Bearer {token}"}, trust_env=False)


def line(running: Gateway, token: str = TOKEN, query: str = "", path: str = "alerts", **more: Any) -> connect:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(f"{running.page.replace('http', 'ws')}/ws/{path}?{query}", proxy=None,
                   additional_headers=headers | more.pop("headers", {}), **more)


async def refused(opening: connect) -> tuple[int, str]:
    """(status, code) of a socket that is not let in."""
    with pytest.raises(InvalidStatus) as answer:
        await opening
    return answer.value.response.status_code, json.loads(answer.value.response.body)["code"]


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


# -- many, and slow ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw(running: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(running.page)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, say: Callable[[int], bytes]) -> float:
    """Send a little every 50 ms until the gateway cuts us; seconds that took."""
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for turn in range(int(PATIENCE_S / 0.05)):
            writer.write(say(turn))
            await writer.drain()
            await asyncio.sleep(0.05)
            if reader.at_eof():
                break
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
    return time.monotonic() - started


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_slow_loris_a_request_that_never_ends_is_cut(bare: Settings, first: bytes) -> None:
    """By itself, and after a request that was fine."""
    async with gateway(bare.model_copy(update={"handshake_ms": 400})) as running, raw(running) as (reader, writer):
        if first:
            writer.write(first)
            assert b" 200 " in await reader.readuntil(b'"ok"}')
        with counts("slow_request"):
            head = b"GET /ws/alerts HTTP/1.1\r\nHost: x\r\n"
            took = await drip(reader, writer, lambda turn: head if turn == 0 else b"X-%d: y\r\n" % turn)
        assert took < PATIENCE_S


async def test_slow_loris_a_body_that_never_ends_is_cut(bare: Settings) -> None:
    async with gateway(bare.model_copy(update={"handshake_ms": 400})) as running, raw(running) as (reader, writer):
        head = b"GET /api/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        with counts("slow_request"):
            writer.write(head)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE_S):
                    while not reader.at_eof():
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.05)
                        reader._buffer.clear()  # type: ignore[attr-defined]


async def test_a_body_that_is_too_large_is_cut_before_anybody_reads_it(bare: Settings) -> None:
    async with gateway(bare) as running, raw(running) as (reader, writer):
        with counts("request_too_large"), contextlib.suppress(ConnectionError):
            writer.write(b"POST /api/silences HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                         b"Content-Length: 100000000\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                while not reader.at_eof():
                    writer.write(b"x" * 65_536)
                    await writer.drain()
                    await asyncio.sleep(0)
        async with client(running, TOKEN) as friend:
            assert (await friend.get("/healthz")).status_code == 200


async def test_ten_thousand_connects_are_bounded_and_those_inside_notice_nothing(settings: Settings) -> None:
    small = settings.model_copy(update={"max_connections": 100, "handshake_ms": 600_000})      # nobody makes room
    async with (opened(settings) as hot, gateway(small) as running, line(running) as found):
        subscriber = Socket(found)
        assert (await subscriber.next())["type"] == "hello"
        where, held, most = urlsplit(running.page), [], 0
        before = counted("refused", "connections")
        with counts("connections", least=9_800):
            for _ in range(100):
                some = await asyncio.gather(*(asyncio.open_connection(where.hostname, where.port) for _ in range(100)),
                                            return_exceptions=True)
                held += [pair[1] for pair in some if not isinstance(pair, BaseException)]
                await asyncio.sleep(0)
                most = max(most, int(REGISTRY.get_sample_value("gateway_connections") or 0))
                held = [writer for writer in held if not writer.is_closing()]

            async def all_seen() -> bool:
                return counted("refused", "connections") >= before + 9_800

            await eventually(all_seen, "the backlog is worked off")
        assert most <= 101
        await hot.append_alert(an_alert(1))
        assert await subscriber.alerts(1) == ["alert-1"]
        for writer in held:
            writer.transport.abort()

        async def room() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await running.rest.get("/healthz")).status_code == 200
            return False

        await eventually(room, "there is room again")


def narrow(running: Gateway) -> socket.socket:
    """A connected socket for which the kernel holds next to nothing."""
    where, found = urlsplit(running.page), socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    found.connect((where.hostname, where.port))
    return found


@pytest.mark.parametrize("policy", ["resume", "gap", "close"])
async def test_a_slow_socket_is_treated_as_its_policy_says(settings: Settings, policy: str) -> None:
    small = settings.model_copy(update={"socket_queue": 5})
    total = 2_000
    async with opened(settings) as hot, gateway(small) as running:
        got: list[str] = []
        missed, ends, last = 0, 0, "0"
        slow = True
        while len(got) + missed < total:
            try:
                async with line(running, query=f"overflow={policy}&last_id={last}", sock=narrow(running)) as found:
                    assert json.loads(await found.recv())["overflow"] == policy
                    if slow:
                        for number in range(total):
                            await hot.append_alert(an_alert(number, detail="x" * 500))
                        slow = False
                    while len(got) + missed < total:
                        async with asyncio.timeout(PATIENCE_S):
                            message = json.loads(await found.recv())
                        if message["type"] == "alert":
                            got.append(message["alert"]["alert_id"])
                            last = message["id"]
                        elif message["type"] == "missed":
                            missed += message["count"]
            except ConnectionClosed:
                ends += 1
        assert got == sorted(set(got), key=lambda one: int(one.split("-")[1])), "in order, each once"
        assert (missed > 0, ends > 0) == (policy == "gap", policy == "close")
