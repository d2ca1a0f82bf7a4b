"""One reader of a Redis stream for all sockets, and a bounded queue for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from dashboards.api import metrics
from streams import log
from streams.stores.redis import Stream

logger = log.get(__name__)
BLOCK_MS = 5_000
PAGE = 500
RETRY_S = 0.5
SEVERITIES = {"info": 0, "warning": 1, "critical": 2}
AWAY = (RedisError, OSError, TimeoutError)
_PLACE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


class Place(NamedTuple):
    """A place in the stream; they compare as the entries came."""

    ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


ZERO = Place(0, 0)


def place(text: str) -> Place:
    """A stream id as numbers that compare.

    Raises:
        ValueError: not an id.
    """
    match = _PLACE.fullmatch(text)
    found = Place(int(match[1]), int(match[2] or 0)) if match else None
    if found is None or max(found) >= 1 << 64:
        raise ValueError("an id is MILLISECONDS-NUMBER, as the messages have it; 0 is before the oldest")
    return found


class Item(NamedTuple):
    """An entry of the stream, and the message that carries it, rendered once for all sockets."""

    place: Place
    body: dict[str, Any]
    text: str


class Page(NamedTuple):
    """A stretch of the stream: its items, the place of the last entry looked at, and a gap before them, if any."""

    items: list[Item]
    end: Place
    #: The oldest that is kept, if some between it and where the page began may be gone.
    oldest: Place | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What a socket wants; empty is everything."""

    environment: str = ""
    model: str = ""
    severity: str = "info"
    version: str = ""
    component: str = ""
    granularity_ms: int = 0

    def wants(self, body: dict[str, Any]) -> bool:
        """True if it passes. What has no severity, as anomalies, is information; only windows have a granularity."""
        return (self.environment in ("", body["environment"]) and self.model in ("", body["model"])
                and SEVERITIES[body.get("severity", "info")] >= SEVERITIES[self.severity]
                and self.version in ("", body.get("version", "")) and self.component in ("", body.get("component", ""))
                and self.granularity_ms in (0, body.get("size_ms", 0)))


@dataclass(eq=False)
class Subscriber:
    """A socket's queue. Full, it drops the newest and remembers which: the socket is told when it reads again."""

    filter: Filter
    most: int
    kind: str
    after: Place = ZERO
    items: deque[Item] = field(default_factory=deque)
    missed: list[Place] = field(default_factory=list)
    missed_count: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, item: Item) -> None:
        """Queue an item unless it is filtered, sent already, or there is no room.

        After a first drop nothing is queued until the socket was told, so that what it reads stays in order.
        """
        if item.place <= self.after or not self.filter.wants(item.body):
            return
        if self.missed_count or len(self.items) >= self.most:
            self.missed_count += 1
            self.missed = [self.missed[0] if self.missed else item.place, item.place]
            metrics.MISSED.labels(self.kind).inc()
        else:
            self.items.append(item)
        self.ready.set()

    def take_missed(self) -> dict[str, Any] | None:
        """The message that says what was missed, once the queue is empty."""
        if self.items or not self.missed_count:
            return None
        first, last = self.missed
        message = {"type": "missed", "reason": "slow", "count": self.missed_count, "from_id": str(first),
                   "to_id": str(last)}
        self.missed, self.missed_count = [], 0
        return message


class Feed:
    """Reads a stream from its end on, and hands every entry to every subscriber.

    `view` makes of a stored entry what sockets see; None: as it is.
    """

    def __init__(self, client: Any, stream: Stream,
                 view: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self.client = client
        self.stream = stream
        self.view = view
        metrics.SENT.labels(stream.kind)        # told from the start, as 0
        metrics.MISSED.labels(stream.kind)
        #: Everything up to here was handed out.
        self.last = ZERO
        self.subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def alive(self) -> bool:
        """True while the reader runs, whether Redis answers or not."""
        return self._task is not None and not self._task.done()

    async def newest(self) -> Place:
        """The place of the newest entry; 0-0 of an empty stream. Waits until the reader has begun.

        Raises:
            RedisError, OSError: Redis is away.
        """
        await self._started.wait()
        found = await self.client.xrevrange(self.stream.key, count=1)
        return place(found[0][0]) if found else ZERO

    async def between(self, after: Place, last: Place | None = None, count: int = PAGE) -> Page:
        """What is kept after a place, oldest first.

        Raises:
            RedisError, OSError: Redis is away.
        """
        pipe = self.client.pipeline(transaction=True)
        pipe.xrange(self.stream.key, count=1)
        pipe.xinfo_stream(self.stream.key)
        pipe.xrange(self.stream.key, min=f"({after}", max=str(last) if last else "+", count=count)
        first, info, found = await pipe.execute(raise_on_error=False)
        for answer in (first, found):
            if isinstance(answer, Exception):
                raise answer
        if isinstance(info, Exception):         # there is no stream yet
            return Page([], after, None)
        end = place(found[-1][0]) if found else after
        return Page([item for entry in found if (item := self._item(entry))], end, self._gap(after, first, info))

    def _gap(self, after: Place, first: Any, info: Any) -> Place | None:
        ever = int(info.get("entries-added", self.stream.length + 1))      # Redis 6 does not say
        oldest = place(first[0][0]) if first else ZERO
        return oldest if ZERO != after < oldest and ever > int(info["length"]) else None

    async def _read(self) -> None:
        away = False
        while True:
            try:
                if not self._started.is_set():
                    found = await self.client.xrevrange(self.stream.key, count=1)
                    self.last = place(found[0][0]) if found else ZERO
                    self._started.set()
                await self._next()
                metrics.STREAM_UP.labels(self.stream.kind).set(1)
                if away:
                    logger.info("stream.back", stream=self.stream.kind)
                away = False
            except AWAY as error:
                metrics.STREAM_UP.labels(self.stream.kind).set(0)
                if not away:
                    logger.warning("stream.away", stream=self.stream.kind, error=type(error).__name__)
                away = True
                await asyncio.sleep(RETRY_S)

    async def _next(self) -> None:
        found = await self.client.xread({self.stream.key: str(self.last)}, block=BLOCK_MS, count=PAGE)
        for _, entries in found or []:
            for entry in entries:
                self.last = place(entry[0])
                item = self._item(entry) if self.subscribers else None
                if item is not None:
                    for subscriber in self.subscribers:
                        subscriber.offer(item)

    def _item(self, entry: Any) -> Item | None:
        """None of an entry that is none of ours: somebody else's, in our stream."""
        kind = self.stream.kind
        try:
            text = entry[1][kind]
            body = json.loads(text)
            Filter().wants(body)
            if self.view is not None:
                body = self.view(body)
                text = json.dumps(body, separators=(",", ":"))
        except (KeyError, TypeError, ValueError):
            logger.warning("stream.entry_skipped", id=str(entry[0]))
            return None
        return Item(place(entry[0]), body, f'{{"type":"{kind}","id":"{entry[0]}","{kind}":{text}}}')
