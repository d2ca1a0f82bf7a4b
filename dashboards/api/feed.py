"""One reader of the Redis stream for all sockets, and a bounded queue for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from dashboards.api import metrics
from streams import log
from streams.stores.redis import Hot

logger = log.get(__name__)
BLOCK_MS = 5_000
PAGE = 500
RETRY_S = 0.5
SEVERITIES = {"info": 0, "warning": 1, "critical": 2}
#: (place in the stream, alert)
Item = tuple[str, dict[str, Any]]


def place(text: str) -> tuple[int, int]:
    """A stream id as numbers that compare.

    Raises:
        ValueError: not an id.
    """
    time, _, number = text.partition("-")
    return int(time), int(number or 0)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a socket wants; empty is everything."""

    environment: str = ""
    model: str = ""
    severity: str = "info"

    def wants(self, alert: dict[str, Any]) -> bool:
        return (self.environment in ("", alert["environment"]) and self.model in ("", alert["model"])
                and SEVERITIES[alert["severity"]] >= SEVERITIES[self.severity])


@dataclass(eq=False)
class Subscriber:
    """A socket's queue. Full, it drops the newest and remembers which: the socket is told when it reads again."""

    filter: Filter
    most: int
    after: tuple[int, int] = (0, 0)
    items: deque[Item] = field(default_factory=deque)
    missed: list[str] = field(default_factory=list)
    missed_count: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, item: Item) -> None:
        """Queue an alert unless it is filtered, already sent, or there is no room."""
        if place(item[0]) <= self.after or not self.filter.wants(item[1]):
            return
        if self.missed_count or len(self.items) >= self.most:
            self.missed_count += 1
            self.missed = [self.missed[0] if self.missed else item[0], item[0]]
            metrics.MISSED.inc()
        else:
            self.items.append(item)
        self.ready.set()

    def take_missed(self) -> dict[str, Any] | None:
        """The message that says what was missed, once the queue is empty."""
        if self.items or not self.missed_count:
            return None
        message = {"type": "missed", "reason": "slow", "count": self.missed_count, "from_id": self.missed[0],
                   "to_id": self.missed[1]}
        self.missed, self.missed_count = [], 0
        return message


class Feed:
    """Reads the stream from its end on, and hands every alert to every subscriber."""

    def __init__(self, hot: Hot) -> None:
        self.hot = hot
        self.last_id = "0-0"
        self.subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def newest_id(self) -> str:
        """The place of the newest alert; 0-0 of an empty stream."""
        found = await self.hot.client.xrevrange(self.hot.stream, count=1)
        return str(found[0][0]) if found else "0-0"

    async def after(self, last_id: str) -> list[Item]:
        """Everything that is kept after a place, oldest first."""
        found: list[Item] = []
        while True:
            page = await self.hot.client.xrange(self.hot.stream, min=f"({last_id}", count=PAGE)
            found += [_item(entry) for entry in page]
            if len(page) < PAGE:
                return found
            last_id = page[-1][0]

    async def trimmed(self, last_id: str) -> bool:
        """True if alerts after this place are no longer kept."""
        info = await self.hot.client.xrange(self.hot.stream, count=1)
        length = await self.hot.client.xlen(self.hot.stream)
        return bool(info) and length >= self.hot.length and place(last_id) < place(info[0][0]) and last_id != "0"

    async def _read(self) -> None:
        started = False
        while True:
            try:
                if not started:
                    self.last_id = await self.newest_id()
                    started = True
                metrics.STREAM_UP.set(1)
                found = await self.hot.client.xread({self.hot.stream: self.last_id}, block=BLOCK_MS, count=PAGE)
                for _, entries in found or []:
                    for entry in entries:
                        self._hand_out(_item(entry))
            except (RedisError, OSError) as error:
                metrics.STREAM_UP.set(0)
                logger.warning("stream.away", error=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    def _hand_out(self, item: Item) -> None:
        self.last_id = item[0]
        for subscriber in self.subscribers:
            subscriber.offer(item)


def _item(entry: Any) -> Item:
    return str(entry[0]), json.loads(entry[1]["alert"])
