"""Publishing: the fleet moved forward by the clock, its messages sent to Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.demo.fleet import Fleet
from infra.demo.serving import Message
from infra.demo.truth import GroundTruth
from streams.kafka import KafkaSetupError, client_options
from streams.settings import Settings

LINGER_MS = 5
_LEAST_STEP_MS, _MOST_STEP_MS = 200, 5_000
#: An endless accelerated run begins this much wall time's worth before now.
_HEADSTART_MS = 3_600_000


class PublishError(RuntimeError):
    """The broker stopped taking messages; the text says what to do."""

    code = "demo_publish"
    retriable = True


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


class Publisher:
    """Sends messages, keyed by model, and finds out if any was refused.

    Raises:
        KafkaSetupError: on entering, when no broker answers.
        PublishError: a message was not taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._pending: list[asyncio.Future[object]] = []
        self._encoder = msgspec.json.Encoder()

    async def __aenter__(self) -> Publisher:
        self._producer = AIOKafkaProducer(**client_options(self._settings), linger_ms=LINGER_MS)
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise KafkaSetupError(f"no broker answers at {self._settings.kafka_url}: start it, or correct "
                                  f"STREAMGAUGE_KAFKA_URL ({error})") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, topic: str, key: str, body: object) -> None:
        """Hand one record to the producer; waits while its buffer is full."""
        assert self._producer is not None
        try:
            self._pending.append(await self._producer.send(
                self._settings.topic(topic), self._encoder.encode(body), key=key.encode()))
        except KafkaError as error:
            raise PublishError(_refused(error)) from error

    async def flush(self) -> None:
        """Wait until the broker has everything sent so far."""
        pending, self._pending = self._pending, []
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise PublishError(_refused(outcome)) from outcome


def _refused(error: BaseException) -> str:
    return f"the broker did not take a record: {error!r}. See that it runs and has room, then start again"


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
            fleet.opened.clear()
            fleet.closed.clear()
            await _send(messages, publisher, progress)
            done = progress.event_ms = until
            progress.behind_ms = int((due - done) / pace.speed)
            tell(progress)
    finally:
        truth.note(fleet.stop())
    return progress


async def _send(messages: list[Message], publisher: Publisher, progress: Progress) -> None:
    for message in messages:
        await publisher.send(message.topic, message.model, message.body)
    await publisher.flush()
    labels = sum(message.topic == "feedback" for message in messages)
    progress.labels += labels
    progress.events += len(messages) - labels


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
