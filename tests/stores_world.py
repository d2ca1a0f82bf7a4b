"""What tests of stores, sinks and gateway share: databases of their own, messages, and a gateway with real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
import httpx
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from dashboards.api.server import server
from infra.migrations import FOLDER
from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent, RetrainingRequest
from schemas.windows import window_id
from streams.windows.record import SummaryRecord, WindowRecord, buckets
from streams.settings import Settings
from streams.stores import postgres, redis
from streams.windows.sketch import bucket

TOKEN = "a-token-for-tests"
#: 2026-05-01T00:00:00Z
DAY = 1_777_593_600_000
SUBJECT: dict[str, Any] = {"environment": "prod", "model": "churn", "version": "3"}
PATIENCE_S = 15.0
_numbers = itertools.count()


async def database(url: str, migrated: bool = True) -> str:
    """The address of a new database on that server, brought to this release's shape."""
    name = f"test_{next(_numbers)}"
    parts = urlsplit(url)
    source = "template1"
    connection = await asyncpg.connect(url)
    try:
        if migrated:
            source = "migrated"
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", source):
                await connection.execute(f"CREATE DATABASE {source}")
                await postgres.migrate(Settings(database_url=urlunsplit(parts._replace(path=f"/{source}"))), FOLDER)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
    finally:
        await connection.close()
    return urlunsplit(parts._replace(path=f"/{name}"))


async def world(folder: Path, postgres_url: str, valkey_url: str, **more: Any) -> Settings:
    """Settings with a database and a prefix that nobody else uses."""
    return Settings(**{"data_dir": folder, "database_url": await database(postgres_url), "redis_url": valkey_url,
                       "topic_prefix": f"t{next(_numbers)}-", "api_token": TOKEN, "port": 0, "heartbeat_ms": 60_000,
                       "partitions": 2} | more)


def an_alert(number: int = 0, **more: Any) -> Alert:
    """An incident that opens; each number is another incident."""
    return Alert(**(SUBJECT | {
        "alert_id": f"alert-{number}", "incident_id": f"incident-{number}", "state": "open", "cause": "latency",
        "severity": "warning", "title": f"churn is slow ({number})", "detail": "mean 90 ms, usually 30 ms",
        "ts": DAY + number, "opened_ms": DAY + number, "onset_ms": DAY + number} | more))


def an_anomaly(number: int = 0, **more: Any) -> Anomaly:
    return Anomaly(**(SUBJECT | {"anomaly_id": f"anomaly-{number}", "event_id": f"event-{number}", "ts": DAY + number,
                                 "detector": "half_space_trees", "score": 0.9, "threshold": 0.8, "partition": 0,
                                 "offset": number} | more))


def a_drift(number: int = 0, **more: Any) -> DriftEvent:
    return DriftEvent(**(SUBJECT | {
        "drift_id": f"drift-{number}", "kind": "data", "state": "drifted", "field": "feature.age", "before": 30.0,
        "after": 40.0, "onset_ms": DAY + number, "detected_ms": DAY + number, "sureness": 0.99, "detector": "adwin",
        "severity": "warning"} | more))


def a_request(number: int = 0, **more: Any) -> RetrainingRequest:
    return RetrainingRequest(**(SUBJECT | {"request_id": f"request-{number}", "ts": DAY + number, "reason": "drift",
                                           "severity": "warning", "drift_ids": ["drift-0"],
                                           "dedupe_key": "prod|churn"} | more))


def summary(*values: float, missing: int = 0) -> SummaryRecord:
    """The summary of these values, by the definitions of its fields."""
    if not values:
        return SummaryRecord(count=0, missing=missing)
    mean = sum(values) / len(values)
    codes = sorted(bucket(value) for value in values)
    return SummaryRecord(
        count=len(values), missing=missing, sum=sum(values), min=min(values), max=max(values), mean=mean,
        m2=sum((value - mean) ** 2 for value in values),
        buckets=buckets([(code, len(list(same))) for code, same in itertools.groupby(codes)]))


def a_window(start_ms: int = DAY, count: int = 2, partition: int = 0, size_ms: int = 60_000,
             **more: Any) -> WindowRecord:
    subject = SUBJECT | {"component": "model"} | {key: more.pop(key) for key in list(more)
                                                  if key in ("environment", "model", "version", "component")}
    return WindowRecord(**(subject | {
        "window_id": window_id(subject["environment"], subject["model"], subject["version"], subject["component"],
                               size_ms, start_ms, partition),
        "start_ms": start_ms, "size_ms": size_ms, "partition": partition, "count": count, "errors": 0,
        "closed_ms": start_ms + size_ms, "fields": {"latency_ms": summary(*([20.0] * count))}} | more))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[redis.Hot]:
    """The hot view of these settings."""
    client = redis.connect(settings)
    try:
        yield redis.Hot(client, settings)
    finally:
        await client.aclose()


class Gateway:
    """A running gateway: its page, a REST client with the token, and sockets."""

    def __init__(self, page: str, app: Any) -> None:
        self.page = page
        self.app = app
        self.rest = httpx.AsyncClient(base_url=page, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a 200."""
        answer = await self.rest.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def socket(self, path: str = "alerts", **query: Any) -> AsyncIterator[Socket]:
        """An open socket that has not read anything."""
        address = f"{self.page.replace('http', 'ws')}/ws/{path}?{urlencode(query)}"
        async with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None) as line:
            yield Socket(line)


class Socket:
    """Reads messages, each within patience."""

    def __init__(self, line: ClientConnection) -> None:
        self.line = line

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            return dict(json.loads(await self.line.recv()))

    async def alerts(self, count: int) -> list[str]:
        """The ids of the next `count` messages, which must be alerts."""
        found = [await self.next() for _ in range(count)]
        assert [message["type"] for message in found] == ["alert"] * count, found
        return [message["alert"]["alert_id"] for message in found]


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway on a free port, in this loop."""
    http = server(settings)
    with _signals_left_alone(http):
        task = asyncio.create_task(http.serve())
        while not http.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0.01)
        port = http.servers[0].sockets[0].getsockname()[1]
        found = Gateway(f"http://127.0.0.1:{port}", http.config.app)
        try:
            yield found
        finally:
            await found.rest.aclose()
            http.should_exit = True
            await asyncio.wait_for(task, PATIENCE_S)


@contextmanager
def _signals_left_alone(http: uvicorn.Server) -> Iterator[None]:
    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    http.capture_signals = nothing  # type: ignore[method-assign]
    yield


async def eventually(condition: Any, what: str) -> Any:
    """The first true answer of an async question."""
    async with asyncio.timeout(PATIENCE_S):
        while not (answer := await condition()):
            await asyncio.sleep(0.02)
    assert answer, what
    return answer
