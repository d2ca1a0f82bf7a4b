"""Publishing: the fleet moved forward by the clock, its messages sent to Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from infra.demo import metrics
from infra.demo.fleet import Fleet
from infra.demo.serving import Message
from infra.demo.truth import GroundTruth
from infra.publisher import Publisher

_LEAST_STEP_MS, _MOST_STEP_MS = 200, 5_000
#: An endless accelerated run begins this much wall time's worth before now.
_HEADSTART_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How event time follows the wall clock: `origin_ms + speed x elapsed`, never past the clock itself."""

    origin_ms: int
    speed: float
    length_ms: int | None

    @staticmethod
    def starting(now_ms: int, speed: float, duration_ms: int | None) -> Pace:
        """A pace that reaches the present when a timed run ends; an endless one after an hour of wall time."""
        back = (speed - 1.0) * (_HEADSTART_MS if duration_ms is None else duration_ms)
        length = None if duration_ms is None else int(duration_ms * speed) // 1000 * 1000
        return Pace(int(now_ms - max(0.0, back)) // 1000 * 1000, speed, length)

    @property
    def step_ms(self) -> int:
        """Event time served at once: 0.2 s, more when time runs faster."""
        return int(min(max(_LEAST_STEP_MS * self.speed, _LEAST_STEP_MS), _MOST_STEP_MS))

    @property
    def end_ms(self) -> int | None:
        return None if self.length_ms is None else self.origin_ms + self.length_ms

    def due_ms(self, elapsed_ms: float, now_ms: float) -> int:
        """Event time to have reached."""
        due = min(self.origin_ms + self.speed * elapsed_ms, now_ms)
        return int(due if self.end_ms is None else min(due, self.end_ms))


@dataclass(slots=True)
class Progress:
    """Where a run is."""

    events: int = 0
    labels: int = 0
    event_ms: int = 0
    behind_ms: int = 0


async def publish(fleet: Fleet, pace: Pace, publisher: Publisher, truth: GroundTruth,
                  tell: Callable[[Progress], None], stop: asyncio.Event,
                  before_last: Callable[[], Awaitable[None]] | None = None,
                  clock_ms: Callable[[], float] = lambda: time.time() * 1000) -> Progress:
    """Move the fleet until the pace's end, or until `stop` is set. Incidents still open are closed in `truth`.

    `before_last` is awaited before the last messages are sent, unless a stop came first.
    """
    progress = Progress(event_ms=pace.origin_ms)
    started = clock_ms()
    done = pace.origin_ms
    try:
        while not stop.is_set() and (pace.end_ms is None or done < pace.end_ms):
            now = clock_ms()
            due = pace.due_ms(now - started, now)
            until = min(done + pace.step_ms, pace.end_ms or done + pace.step_ms)
            if until > due:
                await _wait(stop, max(0.005, min((until - due) / pace.speed / 1000, 1.0)))
                continue
            if until == pace.end_ms and before_last is not None:
                await before_last()
            messages = fleet.advance(until)
            truth.note(fleet.opened + fleet.closed)
            metrics.INCIDENTS.inc(len(fleet.opened) - len(fleet.closed))
            fleet.opened.clear()
            fleet.closed.clear()
            await _send(messages, publisher, progress)
            done = progress.event_ms = until
            progress.behind_ms = int((due - done) / pace.speed)
            metrics.BEHIND.set(progress.behind_ms / 1000)
            tell(progress)
    finally:
        truth.note(fleet.stop())
    return progress


async def _send(messages: list[Message], publisher: Publisher, progress: Progress) -> None:
    await publisher.send((message.topic, message.model, message.body) for message in messages)
    labels = sum(message.topic == "feedback" for message in messages)
    progress.labels += labels
    progress.events += len(messages) - labels
    metrics.LABELS.inc(labels)
    metrics.EVENTS.inc(len(messages) - labels)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
