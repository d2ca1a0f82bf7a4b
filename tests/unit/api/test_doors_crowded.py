"""Whoever comes in too great a number, or too slowly, is bounded, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from doors_support import client, counted, counts, line, raw
from prometheus_client import REGISTRY
from stores_world import PATIENCE_S, TOKEN, Gateway, Socket, an_alert, eventually, gateway, opened, world
from websockets.exceptions import ConnectionClosed

from streams.settings import Settings


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url)


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
