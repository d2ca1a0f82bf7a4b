"""A worker process: a pipeline with some rooms of agents, the sinks, and the page, from start to a clean stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from streams import log, page
from streams.app import Pipeline
from streams.garbage import SECONDS, Garbage
from streams.kafka import KafkaSetupError, create_topics
from streams.members import Joined, Note, take_out_dead
from streams.pulse import Pulse
from streams.settings import Settings

logger = log.get(__name__)
SINK_STOP_SECONDS = 10.0

#: Adds a room's agents to a worker.
Register = Callable[[Pipeline], None]


class Sink(Protocol):
    """Copies topics into a store, with a consumer group of its own, until it is told to stop."""

    joined: Joined

    async def run(self, stop: asyncio.Event) -> None: ...


async def serve(settings: Settings, rooms: Sequence[Register], sinks: Sequence[Sink], stop: asyncio.Event) -> int:
    """Run until `stop` is set or something crashes; returns the exit code."""
    await create_topics(settings)
    notes = settings.data_dir / "members"
    await take_out_dead(notes, settings)
    note, pipeline = Note(notes, settings.kafka_url), Pipeline(settings)
    pipeline.joined = note.joined
    for sink in sinks:
        sink.joined = note.joined
    for register in rooms:
        register(pipeline)
    pulse = Pulse(settings)
    beating = asyncio.create_task(pulse.run())
    runner, port = await page.serve(settings.host, settings.worker_port, lambda: pulse.wrong() + pipeline.wrong())
    logger.info("worker.started", metrics=f"http://{settings.host}:{port}/metrics")
    await pipeline.app.start()
    looking = asyncio.create_task(_look_for_garbage(Garbage()))
    running = [asyncio.create_task(sink.run(stop)) for sink in sinks]
    stopping = asyncio.create_task(stop.wait())
    crashed = asyncio.create_task(pipeline.app.wait_until_stopped())
    await asyncio.wait({stopping, crashed, *running}, return_when=asyncio.FIRST_COMPLETED)
    failed = pipeline.app.crashed or any(task.done() and task.exception() for task in running)
    stop.set()
    beating.cancel()
    looking.cancel()
    await pipeline.stop()
    await asyncio.wait({*running, stopping}, timeout=SINK_STOP_SECONDS)
    await runner.cleanup()
    logger.info("worker.stopped", failed=bool(failed))
    return 1 if failed else 0


async def _look_for_garbage(garbage: Garbage) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        freed = garbage.look()
        if freed:
            logger.info("garbage.freed", objects=freed)


def run(settings: Settings, rooms: Sequence[Register], sinks: Sequence[Sink]) -> NoReturn:
    """Serve until SIGINT or SIGTERM, then end the process.

    The exit is hard: by then the state is written and the group left, and Faust leaves threads and tasks behind that
    do not take a cancellation, on which asyncio's own clean-up would wait for ever.
    """
    log.configure(settings, "worker")

    async def main() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve(settings, rooms, sinks, stop)

    code = 1
    try:
        code = asyncio.new_event_loop().run_until_complete(main())
    except (KafkaSetupError, OSError) as error:
        logger.error("worker.failed", error=str(error))
        code = 3
    except Exception as error:
        logger.error("worker.failed", error=str(error), exc_info=error)
    finally:
        sys.stderr.flush()
        os._exit(code)
