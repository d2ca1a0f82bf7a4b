"""`/ws/alerts`, `/ws/anomalies`, `/ws/windows`: filtered, resumed from the last id without a gap or a double, with
heartbeats.

Query: environment, model, version, component, severity (the least; alerts have one), granularity_ms (windows have one),
last_id (0: everything kept; absent: only what comes from now on), silenced (true: also what falls under a silence),
leads (true: of open incidents of one cause, only the first), overflow (resume, gap, close: what becomes of a socket
that does not keep up; see `dashboards.api.subscriber`).
Messages, each one JSON object, compressed if the client offers permessage-deflate:

    hello      last_id (the newest now), heartbeat_ms, overflow
    alert      id, group (the incident that its group began with), alert (the message of the topic `alerts`)
    anomaly    id, anomaly (the message of the topic `anomalies`)
    window     id, window (a closed window with statistics and quantiles; the same window_id again: an amendment, or
               the same sent twice; the larger count, then revision, is newer)
    heartbeat  ts, last_id: everything up to it was sent
    missed     reason (slow: the queue was full; trimmed: no longer kept), count (null if unknown), from_id, to_id

Missed alerts that are still kept are at `GET /api/alerts/stream?from_id=&to_id=`.
Closed with 4401: the token has expired or was withdrawn; 1008: the client talks; 1009: its frame is too large.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from dashboards.api import metrics
from dashboards.api.auth import DeniedError, socket_grant, socket_protocol
from dashboards.api.door import Line, line_of
from dashboards.api.feed import AWAY, RETRY_S, STRETCH, Feed
from dashboards.api.subscriber import POLICIES, SEVERITIES, Filter, Item, Place, Policy, Subscriber, place
from dashboards.api.tokens import Grant, TokenBook
from streams import log

logger = log.get(__name__)
router = APIRouter()
T = TypeVar("T")
WITHDRAWN, TALKS = 4401, 1008
#: Messages that a client, which has nothing to say, may send between two heartbeats.
TALK = 20


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
    try:
        grant = socket_grant(socket, state.tokens, query.get("environment", ""), state.settings.allowed_origins)
        wanted = _filter(query, grant)
        after, policy = _place_and_policy(query, state.settings.socket_overflow)
    except DeniedError as error:
        await socket.send_denial_response(JSONResponse({"code": error.code, "message": error.message}, error.status))
        return
    line = line_of(socket)
    subscriber = Subscriber(wanted, state.settings.socket_queue, kind, line, policy=policy)
    await socket.accept(subprotocol=socket_protocol(socket))
    subscriber.bits = line.window_bits
    await _serve(Talk(socket, line, state.feeds[kind], subscriber, state.settings.heartbeat_ms, state.tokens, grant),
                 after)


def _filter(query: Mapping[str, str], grant: Grant) -> Filter:
    """What the socket wants, and its token may see.

    Raises:
        DeniedError: it makes no sense.
    """
    severity, size = query.get("severity", "info"), query.get("granularity_ms", "0")
    if severity not in SEVERITIES:
        raise DeniedError(400, "bad_severity", f"severity is one of {', '.join(SEVERITIES)}")
    if not (size.isdecimal() and len(size) <= 12):
        raise DeniedError(400, "bad_granularity", "granularity_ms is a number of milliseconds, as 60000")
    environment = query.get("environment", "")
    return Filter(environment, query.get("model", ""), severity, () if environment else grant.environments,
                  query.get("silenced", "") == "true", query.get("leads", "") == "true", query.get("version", ""),
                  query.get("component", ""), int(size))


def _place_and_policy(query: Mapping[str, str], policy: str) -> tuple[Place | None, Policy]:
    """Where to begin, and the overflow policy.

    Raises:
        DeniedError: one of them makes no sense.
    """
    try:
        after = place(query["last_id"]) if "last_id" in query else None
    except ValueError as error:
        raise DeniedError(400, "bad_last_id", f"last_id: {error}") from None
    policy = query.get("overflow", policy)
    if policy not in POLICIES:
        raise DeniedError(400, "bad_overflow", f"overflow is one of {', '.join(POLICIES)}")
    return after, cast(Policy, policy)


async def _serve(talk: Talk, after: Place | None) -> None:
    metrics.SOCKETS.inc()
    talk.book.sockets[talk.grant.name] += 1
    tasks = {asyncio.create_task(talk.until_gone()), asyncio.create_task(talk.speak(after))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        talk.feed.leave(talk.subscriber)
        talk.book.sockets[talk.grant.name] -= 1
        metrics.SOCKETS.dec()
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
                logger.error("socket.failed", error=type(end).__name__, exc_info=end)
                with contextlib.suppress(Exception):
                    await talk.socket.close(1011)


@dataclass
class Talk:
    """One socket's conversation."""

    socket: WebSocket
    line: Line
    feed: Feed
    subscriber: Subscriber
    heartbeat_ms: int
    book: TokenBook
    grant: Grant
    said: int = 0

    async def until_gone(self) -> None:
        """Clients have nothing to say; read, to see them go, and let no one talk for long."""
        while (await self.socket.receive())["type"] != "websocket.disconnect":
            self.said += 1
            if self.said > TALK:
                await self._close(TALKS, "talks", "this socket takes no messages")
                return

    async def speak(self, after: Place | None) -> None:
        """Say hello, then what was, then what is."""
        newest = await self._patiently(self.feed.newest)
        await self.socket.send_json({"type": "hello", "last_id": str(newest), "heartbeat_ms": self.heartbeat_ms,
                                     "overflow": self.subscriber.policy})
        await self._past(newest if after is None else min(after, newest))
        subscriber = self.subscriber
        while True:
            await self._drain()
            subscriber.ready.clear()
            if subscriber.cut:
                self.line.cut("slow")
                return
            try:
                await asyncio.wait_for(subscriber.ready.wait(), self.heartbeat_ms / 1000)
            except TimeoutError:
                if not self.book.valid(self.grant):
                    await self._close(WITHDRAWN, "token", "the token has expired or was withdrawn")
                    return
                await self._heartbeat(self.feed.last)

    async def _drain(self) -> None:
        """Write what waits; meanwhile nothing overtakes it."""
        subscriber = self.subscriber
        subscriber.busy = True
        while subscriber.items or subscriber.missed_count or subscriber.lagging:
            if subscriber.lagging:
                self.feed.leave(subscriber)
                await self._past(subscriber.sent)
                continue
            if subscriber.items:
                await self._room()
                if subscriber.items:            # the queue may have been dropped meanwhile
                    self._write([subscriber.items.popleft()])
                continue
            missed = subscriber.take_missed()
            if missed:
                await self.socket.send_json(missed)
        subscriber.busy = False

    async def _past(self, after: Place) -> None:
        """Send what is kept, stretch by stretch at the socket's pace, until nothing lies between it and the feed.

        The feed is joined in the same breath in which that is seen: what it hands out from then on is queued.
        """
        subscriber = self.subscriber
        while True:
            seen = self.feed.last
            page = self.feed.recent(after)
            if page is None:
                page = await self._patiently(partial(self.feed.between, after, None, STRETCH))
            if page.oldest is not None:
                await self.socket.send_json({"type": "missed", "reason": "trimmed", "count": None,
                                             "from_id": str(after), "to_id": str(page.oldest)})
            await self._room()
            self._write([item for item in page.items if subscriber.filter.wants(item.body, item.group)])
            after = page.end if page.end != after else max(after, seen)
            if after >= self.feed.last:
                break
        subscriber.after = subscriber.sent = after
        subscriber.lagging = False
        self.feed.join(subscriber)

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
        self.said = 0
        await self.socket.send_json({"type": "heartbeat", "ts": time.time_ns() // 1_000_000,
                                     "last_id": None if last is None else str(last)})

    async def _room(self) -> None:
        """Wait until the transport takes more."""
        await self.line.writable.wait()
        if self.line.disconnected:
            raise WebSocketDisconnect

    def _write(self, items: Sequence[Item]) -> None:
        if items:
            self.line.write(b"".join([item.frame(self.subscriber.bits) for item in items]))
            self.subscriber.sent = items[-1].place
            metrics.SENT.labels(self.feed.stream.kind).inc(len(items))

    async def _close(self, code: int, reason: str, said: str) -> None:
        metrics.CLOSED.labels(reason).inc()
        await self.socket.close(code, said)
