"""`/ws/alerts`, `/ws/anomalies`, `/ws/windows`: filtered, resumed from the last id without a gap, with heartbeats.

Query: environment, model, version, component, severity (the least; alerts have one), granularity_ms (windows have one),
last_id (0: everything kept; absent: only what comes from now on).
Messages, each one JSON object:

    hello      last_id (the newest now), heartbeat_ms
    alert      id, alert (the message of the topic `alerts`)
    anomaly    id, anomaly (the message of the topic `anomalies`)
    window     id, window (a closed window with statistics and quantiles; the same window_id again: an amendment, or
               the same sent twice; the larger count, then revision, is newer)
    heartbeat  ts, last_id: everything up to it was sent
    missed     reason (slow: the queue was full; trimmed: no longer kept), count (null if unknown), from_id, to_id

Missed alerts that are still kept are at `GET /api/alerts/stream?from_id=&to_id=`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from dashboards.api import metrics
from dashboards.api.auth import HELP, socket_allowed, socket_protocol
from dashboards.api.feed import AWAY, RETRY_S, SEVERITIES, Feed, Filter, Item, Place, Subscriber, place
from streams import log

logger = log.get(__name__)
router = APIRouter()
T = TypeVar("T")


@router.websocket("/ws/alerts")
async def alerts(socket: WebSocket) -> None:
    """Alerts, until the socket goes."""
    await _open(socket, "alert")


@router.websocket("/ws/anomalies")
async def anomalies(socket: WebSocket) -> None:
    """Anomalous events, until the socket goes."""
    await _open(socket, "anomaly")


@router.websocket("/ws/windows")
async def windows(socket: WebSocket) -> None:
    """Windows as they close and are amended, until the socket goes."""
    await _open(socket, "window")


async def _open(socket: WebSocket, kind: str) -> None:
    state, query = socket.app.state, socket.query_params
    if not socket_allowed(socket, state.token):
        await _deny(socket, 401, "unauthorized", f"{HELP}; or ?token=, or the subprotocol bearer.TOKEN")
        return
    try:
        after = place(query["last_id"]) if "last_id" in query else None
    except ValueError as error:
        await _deny(socket, 400, "bad_last_id", f"last_id: {error}")
        return
    severity = query.get("severity", "info")
    if severity not in SEVERITIES:
        await _deny(socket, 400, "bad_severity", f"severity is one of {', '.join(SEVERITIES)}")
        return
    size = query.get("granularity_ms", "0")
    if not (size.isdecimal() and len(size) <= 12):
        await _deny(socket, 400, "bad_granularity", "granularity_ms is a number of milliseconds, as 60000")
        return
    wanted = Filter(query.get("environment", ""), query.get("model", ""), severity, query.get("version", ""),
                    query.get("component", ""), int(size))
    await socket.accept(subprotocol=socket_protocol(socket))
    await _serve(Line(socket, state.feeds[kind], Subscriber(wanted, state.settings.socket_queue, kind),
                      state.settings.heartbeat_ms), after)


async def _deny(socket: WebSocket, status: int, code: str, message: str) -> None:
    await socket.send_denial_response(JSONResponse({"code": code, "message": message}, status))


async def _serve(line: Line, after: Place | None) -> None:
    metrics.SOCKETS.inc()
    tasks = {asyncio.create_task(line.until_gone()), asyncio.create_task(line.speak(after))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        line.feed.subscribers.discard(line.subscriber)
        metrics.SOCKETS.dec()
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
                logger.error("socket.failed", error=type(end).__name__, exc_info=end)
                with contextlib.suppress(Exception):
                    await line.socket.close(1011)


@dataclass
class Line:
    """One socket's conversation."""

    socket: WebSocket
    feed: Feed
    subscriber: Subscriber
    heartbeat_ms: int

    async def until_gone(self) -> None:
        """Clients have nothing to say; read, to see them go."""
        while (await self.socket.receive())["type"] != "websocket.disconnect":
            pass

    async def speak(self, after: Place | None) -> None:
        """Say hello, then what was, then what is."""
        newest = await self._patiently(self.feed.newest)
        await self.socket.send_json({"type": "hello", "last_id": str(newest), "heartbeat_ms": self.heartbeat_ms})
        await self._past(newest if after is None else min(after, newest))
        while True:
            self.subscriber.ready.clear()
            while self.subscriber.items:
                await self._send(self.subscriber.items.popleft())
            missed = self.subscriber.take_missed()
            if missed:
                await self.socket.send_json(missed)
                continue
            try:
                await asyncio.wait_for(self.subscriber.ready.wait(), self.heartbeat_ms / 1000)
            except TimeoutError:
                await self._heartbeat(self.feed.last)

    async def _past(self, after: Place) -> None:
        """Send what is kept, page by page at the socket's pace, until nothing lies between it and the feed.

        The feed is joined in the same breath in which that is seen: what it hands out from then on is queued.
        """
        while True:
            seen = self.feed.last
            page = await self._patiently(partial(self.feed.between, after))
            if page.oldest is not None:
                await self.socket.send_json({"type": "missed", "reason": "trimmed", "count": None,
                                             "from_id": str(after), "to_id": str(page.oldest)})
            for item in page.items:
                if self.subscriber.filter.wants(item.body):
                    await self._send(item)
            after = page.end if page.end != after else max(after, seen)
            if after >= self.feed.last:
                break
        self.subscriber.after = after
        self.feed.subscribers.add(self.subscriber)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long Redis is away; the socket gets its heartbeats meanwhile."""
        asking = asyncio.ensure_future(self._asked(ask))
        try:
            while True:
                done, _ = await asyncio.wait({asking}, timeout=self.heartbeat_ms / 1000)
                if done:
                    return asking.result()
                await self._heartbeat(None)
        finally:
            asking.cancel()

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except AWAY:
                await asyncio.sleep(RETRY_S)

    async def _heartbeat(self, last: Place | None) -> None:
        await self.socket.send_json({"type": "heartbeat", "ts": time.time_ns() // 1_000_000,
                                     "last_id": None if last is None else str(last)})

    async def _send(self, item: Item) -> None:
        await self.socket.send_text(item.text)
        metrics.SENT.labels(self.feed.stream.kind).inc()
