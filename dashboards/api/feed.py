"""One reader of a Redis stream for all sockets of a gateway.

A pass takes what has come since the last one and goes over all sockets. Those that want the same, in the same encoding,
are a group: their messages are joined into one run of bytes, once, and each socket that keeps up gets it in one write.
A pass that took long is followed by a pause as long, so that what comes meanwhile shares the next one: the more there
is to do, the less it costs a message. Sockets that do not keep up: `dashboards.api.subscriber`.

Entries that sockets see otherwise than they are stored (`view`) are rendered while somebody listens, and then once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from redis.exceptions import RedisError

from dashboards.api import metrics
from dashboards.api.subscriber import HEAD, ZERO, Filter, Item, Page, Place, Subscriber, place
from streams import log
from streams.stores.redis import Stream

logger = log.get(__name__)
BLOCK_MS = 5_000
PAGE = 500
#: Entries kept here, so that sockets that come back after a break need no Redis.
RECENT = 10_000
#: Entries that a socket reads at once.
STRETCH = 100
#: Bytes of the messages that a socket is given in one write, beyond which it is asked again whether it takes more.
RUN_BYTES = 65_536
LONGEST_PAUSE_S = 0.05
RETRY_S = 0.5
AWAY = (RedisError, OSError, TimeoutError)


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
        self._groups: dict[tuple[Filter, int], set[Subscriber]] = {}
        #: The newest entries, without a hole, from behind `_since` to `last`.
        self._recent: deque[Item] = deque()
        self._most = min(RECENT, stream.length)
        self._since = ZERO
        self._asking: asyncio.Future[Any] | None = None
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
        if not self._recent or not self._since <= after <= self.last:
            return None
        if after == self.last:
            return Page([], after, None)
        low, high = 0, len(self._recent)        # a deque has no slices; its ends are near
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._recent[middle].place <= after else (low, middle)
        items = list(itertools.islice(self._recent, low, low + STRETCH))
        whole = low + STRETCH >= len(self._recent)
        return Page(items, self.last if whole else items[-1].place, None)

    async def newest(self) -> Place:
        """The place of the newest entry; 0-0 of an empty stream. Waits until the reader has begun.

        Thousands of sockets may come back at once; those that ask meanwhile share an answer.

        Raises:
            RedisError, OSError: Redis is away.
        """
        await self._started.wait()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self.client.xrevrange(self.stream.key, count=1))
        found = await asyncio.shield(self._asking)
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
        found = (await self.client.xrevrange(self.stream.key, count=self._most if self._rendering else 1))[::-1]
        self.last = place(found[-1][0]) if found else ZERO
        if self._rendering:
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
            self.last = place(entries[-1][0])
            if not self._rendering:
                self._recent.clear()            # what is in memory has no hole
                continue
            items = [item for entry in entries if (item := self._item(entry))]
            self._keep(items)
            self._hand_out(items)
        if not found:
            return 0.0
        took = time.perf_counter() - started
        metrics.PASS_SECONDS.labels(self.stream.kind).observe(took)
        return min(took, LONGEST_PAUSE_S)

    @property
    def _rendering(self) -> bool:
        """True if entries are worth their rendering: it costs nothing without a view, or somebody listens."""
        return self.view is None or bool(self.subscribers)

    def _keep(self, items: Sequence[Item]) -> None:
        if items and not self._recent:          # of what is before them, Redis knows more
            self._since = items[0].place
        self._recent.extend(items)
        while len(self._recent) > self._most:
            self._since = self._recent.popleft().place

    def _hand_out(self, items: Sequence[Item]) -> None:
        """To every socket, without giving the loop away: `last` says that everything up to it was handed out."""
        sent = 0
        for (wanted, bits), group in self._groups.items():
            chosen = [item for item in items if wanted.wants(item.body, item.group)]
            for run in _runs(chosen, bits):
                frames = b"".join([item.frame(bits) for item in run])
                for subscriber in group:
                    sent += subscriber.offer(run, frames)
        if sent:
            metrics.SENT.labels(self.stream.kind).inc(sent)

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
            group = str(entry[1].get("group", ""))
            said = f',"group":{json.dumps(group)}' if group else ""
        except (KeyError, TypeError, ValueError):
            logger.warning("stream.entry_skipped", id=str(entry[0]))
            return None
        message = f'{{"type":"{kind}","id":"{entry[0]}"{said},"{kind}":{text}}}'
        head = {name: body[name] for name in HEAD if name in body}
        return Item(place(entry[0]), head, message.encode(), group)


def _runs(items: Sequence[Item], bits: int) -> Iterator[Sequence[Item]]:
    """Items in runs of about `RUN_BYTES`: asyncio copies what a socket does not take at once, for each of them."""
    begin, size = 0, 0
    for at, item in enumerate(items):
        size += len(item.frame(bits))
        if size >= RUN_BYTES:
            yield items[begin:at + 1]
            begin, size = at + 1, 0
    if begin < len(items):
        yield items[begin:]
