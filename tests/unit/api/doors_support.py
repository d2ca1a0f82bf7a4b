"""Doors of a gateway: clients and sockets with tokens, and what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client import REGISTRY
from stores_world import TOKEN, Gateway
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dashboards.api.tokens import Grant, made, write
from streams.settings import Settings


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


@contextlib.asynccontextmanager
async def raw(running: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(running.page)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
