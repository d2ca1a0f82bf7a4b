"""`/ws/alerts`: filtered alerts, resumed from the last id without a gap or a double, with heartbeats.

Messages, each one JSON object: hello (last_id, heartbeat_ms), alert (id, alert), heartbeat (ts, last_id), missed
(reason slow or trimmed; count, from_id, to_id). Pass the last id seen as `?last_id=` to resume; 0 is the oldest kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from dashboards.api import metrics
from dashboards.api.auth import socket_allowed, socket_protocol
from dashboards.api.feed import SEVERITIES, Feed, Filter, Subscriber, place

router = APIRouter()
UNAUTHORIZED, BAD_REQUEST = 4401, 4400


@router.websocket("/ws/alerts")
async def alerts(socket: WebSocket) -> None:
    """Send what the filter wants until the socket goes."""
    state = socket.app.state
    await socket.accept(subprotocol=socket_protocol(socket))
    if not socket_allowed(socket, state.token):
        await socket.close(UNAUTHORIZED, "token missing or wrong")
        return
    query = socket.query_params
    last_id, severity = query.get("last_id"), query.get("severity", "info")
    try:
        after = place(last_id) if last_id is not None else place("0-0")
        if severity not in SEVERITIES:
            raise ValueError
    except ValueError:
        await socket.close(BAD_REQUEST, "last_id is an id of this stream; severity is info, warning or critical")
        return
    subscriber = Subscriber(Filter(query.get("environment", ""), query.get("model", ""), severity),
                            state.settings.socket_queue, after)
    metrics.SOCKETS.inc()
    reader = asyncio.create_task(_until_gone(socket))
    writer = asyncio.create_task(_write(socket, state.feed, subscriber, last_id, state.settings.heartbeat_ms))
    try:
        await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        state.feed.subscribers.discard(subscriber)
        metrics.SOCKETS.dec()
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)


async def _until_gone(socket: WebSocket) -> None:
    """Clients have nothing to say; read, to see them go."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive_text()


async def _write(socket: WebSocket, feed: Feed, subscriber: Subscriber, last_id: str | None,
                 heartbeat_ms: int) -> None:
    feed.subscribers.add(subscriber)        # first, so that nothing falls between the past and the present
    current = await feed.newest_id()
    await socket.send_json({"type": "hello", "last_id": current, "heartbeat_ms": heartbeat_ms})
    if last_id is None:
        subscriber.after = max(subscriber.after, place(current))
    else:
        await _past(socket, feed, subscriber, last_id)
    while True:
        subscriber.ready.clear()
        while subscriber.items:
            item = subscriber.items.popleft()
            if place(item[0]) > subscriber.after:
                await _send(socket, subscriber, item)
        missed = subscriber.take_missed()
        if missed:
            await socket.send_json(missed)
            continue
        try:
            await asyncio.wait_for(subscriber.ready.wait(), heartbeat_ms / 1000)
        except TimeoutError:
            await socket.send_json({"type": "heartbeat", "ts": int(time.time() * 1000), "last_id": feed.last_id})


async def _past(socket: WebSocket, feed: Feed, subscriber: Subscriber, last_id: str) -> None:
    if await feed.trimmed(last_id):
        await socket.send_json({"type": "missed", "reason": "trimmed", "count": None, "from_id": last_id,
                                "to_id": None})
    for item in await feed.after(last_id):
        if subscriber.filter.wants(item[1]):
            await _send(socket, subscriber, item)
        subscriber.after = place(item[0])


async def _send(socket: WebSocket, subscriber: Subscriber, item: tuple[str, dict[str, object]]) -> None:
    await socket.send_json({"type": "alert", "id": item[0], "alert": item[1]})
    subscriber.after = place(item[0])
    metrics.SENT.inc()
