"""One reader of a Redis stream for all sockets, and a bounded queue for each of them.

A pass takes what has come since the last one and goes over all sockets. Those that want the same, in the same encoding,
are a group: their messages are joined into one run of bytes, once, and each socket that keeps up gets it in one write.
A pass that took long is followed by a pause as long, so that what comes meanwhile shares the next one: the more there
is to do, the less it costs a message.

A socket that does not keep up gets its messages through its own queue of at most `most`. When that is full:

    resume   the queue is dropped, and the socket reads on from the stream at its own pace; nothing is missed that is
             still kept
    gap      the newest are dropped until the socket reads again; then it is told which (`missed`)
    close    the connection is cut; the client comes back with the last id that it saw
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from redis.exceptions import RedisError

from dashboards.api import metrics
from dashboards.api.door import frame
from streams import log
from streams.stores.redis import Stream

logger = log.get(__name__)
BLOCK_MS = 5_000
PAGE = 500
#: Entries kept here, so that sockets that come back after a break need no Redis.
RECENT = 2_000
#: Entries that a socket reads at once.
STRETCH = 100
LONGEST_PAUSE_S = 0.05
RETRY_S = 0.5
SEVERITIES = {"info": 0, "warning": 1, "critical": 2}
POLICIES = ("resume", "gap", "close")
Policy = Literal["resume", "gap", "close"]
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


@dataclass(slots=True, eq=False)
class Item:
    """An entry of the stream, and the message that carries it, encoded once for all sockets that agreed on a window."""

    place: Place
    body: dict[str, Any]
    text: bytes
    _frames: dict[int, bytes] = field(default_factory=dict)

    def frame(self, bits: int) -> bytes:
        """The message as a WebSocket frame, compressed with a window of so many bits; 0: not."""
        found = self._frames.get(bits)
        if found is None:
            found = self._frames[bits] = frame(self.text, bits)
        return found


class Page(NamedTuple):
    """A stretch of the stream: its items, the place of the last entry looked at, and a gap before them, if any."""

    items: list[Item]
    end: Place
    #: The oldest that is kept, if some between it and where the page began may be gone.
    oldest: Place | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What a socket wants; empty is everything. `allowed`: the environments that its token is limited to.

    `silenced`: also what falls under a silence.
    """

    environment: str = ""
    model: str = ""
    severity: str = "info"
    allowed: tuple[str, ...] = ()
    silenced: bool = False

    def wants(self, body: dict[str, Any]) -> bool:
        """True if it passes. What has no severity, as anomalies, is information."""
        return (self.environment in ("", body["environment"]) and self.model in ("", body["model"])
                and SEVERITIES[body.get("severity", "info")] >= SEVERITIES[self.severity]
                and (self.silenced or not body.get("silenced_by"))
                and (not self.allowed or body["environment"] in self.allowed))


class Writes(Protocol):
    """Where a socket's frames go; `dashboards.api.door.Line`."""

    @property
    def clear(self) -> bool: ...

    def write(self, frames: bytes) -> None: ...


@dataclass(eq=False)
class Subscriber:
    """A socket as the feed sees it. `busy` while its own task writes: nothing may overtake that."""

    filter: Filter
    most: int
    kind: str
    line: Writes
    bits: int = 0
    policy: Policy = "resume"
    #: The last place that was handed to it; with `resume`, the last before the queue was dropped.
    after: Place = ZERO
    #: The last place that was written to its socket.
    sent: Place = ZERO
    busy: bool = True
    lagging: bool = False
    cut: bool = False
    items: deque[Item] = field(default_factory=deque)
    missed: list[Place] = field(default_factory=list)
    missed_count: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, items: Sequence[Item], frames: bytes) -> int:
        """Write the frames of these items at once, or queue the items; how many were written."""
        last = items[-1].place
        if self.lagging or self.cut or last <= self.after:
            return 0
        if not self.busy and self.line.clear and self.after < items[0].place:
            self.line.write(frames)
            self.after = self.sent = last
            return len(items)
        for item in items:
            if item.place > self.after:
                self._queue(item)
        self.ready.set()
        return 0

    def _queue(self, item: Item) -> None:
        """After a first drop nothing is queued until the socket was told, so that what it reads stays in order."""
        if self.lagging or self.cut:
            return
        if not self.missed_count and len(self.items) < self.most:
            self.items.append(item)
            self.after = item.place
            return
        if not self.missed_count:
            metrics.OVERFLOWS.labels(self.policy).inc()
        if self.policy == "gap":
            self.missed_count += 1
            self.missed = [self.missed[0] if self.missed else item.place, item.place]
            self.after = item.place
            metrics.MISSED.labels(self.kind).inc()
        elif self.policy == "resume":
            self.fall_back()
        else:
            self.items.clear()
            self.cut = True

    def fall_back(self) -> None:
        """Read on from the stream, from behind what was sent."""
        self.items.clear()
        self.lagging = True
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
    """Reads a stream from its end on, and hands every entry to every subscriber."""

    def __init__(self, client: Any, stream: Stream) -> None:
        self.client = client
        self.stream = stream
        #: Everything up to here was handed out.
        self.last = ZERO
        self.subscribers: set[Subscriber] = set()
        self._groups: dict[tuple[Filter, int], set[Subscriber]] = {}
        #: The newest entries, without a hole, from behind `_since` to `last`.
        self._recent: deque[Item] = deque()
        self._since = ZERO
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

    def join(self, subscriber: Subscriber) -> None:
        """Hand it everything from now on."""
        self.subscribers.add(subscriber)
        self._groups.setdefault((subscriber.filter, subscriber.bits), set()).add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Hand it nothing any more."""
        self.subscribers.discard(subscriber)
        key = (subscriber.filter, subscriber.bits)
        group = self._groups.get(key, set())
        group.discard(subscriber)
        if not group:
            self._groups.pop(key, None)

    def recent(self, after: Place) -> Page | None:
        """The next stretch after a place, from memory; None: only Redis may know."""
        if not self._recent or not self._since <= after < self.last:
            return None
        low, high = 0, len(self._recent)        # a deque has no slices; its ends are near
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._recent[middle].place <= after else (low, middle)
        items = list(itertools.islice(self._recent, low, low + STRETCH))
        whole = low + STRETCH >= len(self._recent)
        return Page(items, self.last if whole else items[-1].place, None)

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
                    await self._begin()
                if away:
                    await self._mend()
                pause = await self._next()
                metrics.STREAM_UP.labels(self.stream.kind).set(1)
                if away:
                    logger.info("stream.back", stream=self.stream.kind)
                away = False
                await asyncio.sleep(pause)
            except AWAY as error:
                metrics.STREAM_UP.labels(self.stream.kind).set(0)
                if not away:
                    logger.warning("stream.away", stream=self.stream.kind, error=type(error).__name__)
                away = True
                await asyncio.sleep(RETRY_S)

    async def _begin(self) -> None:
        """Take the newest entries into memory, and read on from there."""
        found = (await self.client.xrevrange(self.stream.key, count=RECENT))[::-1]
        self.last = place(found[-1][0]) if found else ZERO
        self._keep([item for entry in found if (item := self._item(entry))])
        self._started.set()

    async def _mend(self) -> None:
        """After a break, entries may be gone before they were read here: sockets then read on, and are told."""
        if (await self.between(self.last, count=1)).oldest is not None:
            self._recent.clear()
            for subscriber in self.subscribers:
                subscriber.fall_back()

    async def _next(self) -> float:
        """One pass; how many seconds to let things gather before the next."""
        found = await self.client.xread({self.stream.key: str(self.last)}, block=BLOCK_MS, count=PAGE)
        started = time.perf_counter()
        for _, entries in found or []:
            items = [item for entry in entries if (item := self._item(entry))]
            self.last = place(entries[-1][0])
            self._keep(items)
            self._hand_out(items)
        if not found:
            return 0.0
        took = time.perf_counter() - started
        metrics.PASS_SECONDS.labels(self.stream.kind).observe(took)
        return min(took, LONGEST_PAUSE_S)

    def _keep(self, items: Sequence[Item]) -> None:
        if items and not self._recent:          # of what is before them, Redis knows more
            self._since = items[0].place
        self._recent.extend(items)
        while len(self._recent) > RECENT:
            self._since = self._recent.popleft().place

    def _hand_out(self, items: Sequence[Item]) -> None:
        """To every socket, without giving the loop away: `last` says that everything up to it was handed out."""
        sent = 0
        for (wanted, bits), group in self._groups.items():
            chosen = [item for item in items if wanted.wants(item.body)]
            if chosen:
                frames = b"".join([item.frame(bits) for item in chosen])
                for subscriber in group:
                    sent += subscriber.offer(chosen, frames)
        if sent:
            metrics.SENT.labels(self.stream.kind).inc(sent)

    def _item(self, entry: Any) -> Item | None:
        """None of an entry that is none of ours: somebody else's, in our stream."""
        kind = self.stream.kind
        try:
            text = entry[1][kind]
            body = json.loads(text)
            Filter().wants(body)
            group = f',"group":{json.dumps(entry[1]["group"])}' if "group" in entry[1] else ""
        except (KeyError, TypeError, ValueError):
            logger.warning("stream.entry_skipped", id=str(entry[0]))
            return None
        return Item(place(entry[0]), body, f'{{"type":"{kind}","id":"{entry[0]}"{group},"{kind}":{text}}}'.encode())
