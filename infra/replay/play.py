"""Sending mapped rows: merged by time, as fast as they go or at a pace."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra.publisher import Publisher
from infra.replay.mapping import Faults, Mapper

CHUNK = 2_000
_TICK_S = 0.1
Timed = tuple[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of each file: those after the first `start`, at most `limit`."""

    start: int = 0
    limit: int | None = None


def merged(mappers: Sequence[Mapper], choice: Choice, faults: Faults, shift_ms: int = 0) -> Iterator[Timed]:
    """All events in order of time (each file in its own order)."""
    return heapq.merge(*(mapper.events(faults, choice.start, choice.limit, shift_ms) for mapper in mappers),
                       key=lambda timed: timed[0])


def span_ms(mappers: Sequence[Mapper], choice: Choice) -> tuple[int, int] | None:
    """(first, last) instant of what would be sent; reads the files through. None if there is no good row."""
    first = last = None
    for ts, _ in merged(mappers, choice, Faults()):
        first = ts if first is None else min(first, ts)
        last = ts if last is None else max(last, ts)
    return None if first is None or last is None else (first, last)


def shift_to_now_ms(span: tuple[int, int], speed: float, now_ms: int) -> int:
    """What to add to every instant so that the last one is the present when it is sent, and none is ahead of it."""
    first, last = span
    return now_ms + (round((last - first) / speed) if speed else 0) - last


def restamped(events: Iterable[Timed], speed: float, begin_ms: int) -> Iterator[Timed]:
    """Events at the times at which they are due: the first at `begin_ms`, the others 1/speed of their distance on."""
    first_ms: int | None = None
    for ts, event in events:
        first_ms = ts if first_ms is None else first_ms
        due_ms = begin_ms + round((ts - first_ms) / speed)
        yield due_ms, event | {"ts": due_ms}


async def play(events: Iterable[Timed], publisher: Publisher, speed: float, tell: Callable[[int], None],
               stop: asyncio.Event, clock_s: Callable[[], float] = time.monotonic) -> int:
    """Send to `telemetry`, keyed by model; returns how many. `speed` 0: as fast as possible; 1: as they came."""
    sent, chunk = 0, list[Timed]()
    started, first_ms = clock_s(), 0

    async def send() -> None:
        nonlocal sent
        await publisher.send(("telemetry", event["model"], event) for _, event in chunk)
        sent += len(chunk)
        chunk.clear()
        tell(sent)

    for ts, event in events:
        if stop.is_set():
            break
        if speed:
            first_ms = first_ms or ts
            due_s = started + (ts - first_ms) / 1000 / speed
            if due_s > clock_s() + _TICK_S:
                await send()
                await _wait(stop, due_s, clock_s)
        chunk.append((ts, event))
        if len(chunk) >= CHUNK:
            await send()
    if not stop.is_set():
        await send()
    return sent


async def _wait(stop: asyncio.Event, due_s: float, clock_s: Callable[[], float]) -> None:
    try:
        await asyncio.wait_for(stop.wait(), max(0.0, due_s - clock_s()))
    except TimeoutError:
        return
