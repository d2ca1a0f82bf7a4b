"""One worker process: every agent on its share of the partitions, the sinks, and the metrics page."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import NoReturn

from agents.ingest import agent as ingest
from streams import log
from streams.app import Pipeline
from streams.settings import Settings

logger = log.get(__name__)
ROOMS = (ingest,)


def build(settings: Settings) -> Pipeline:
    """A pipeline with all agents registered, not yet started."""
    pipeline = Pipeline(settings)
    for room in ROOMS:
        room.register(pipeline)
    return pipeline


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Run until `stop` is set or Faust crashes; returns the exit code."""
    pipeline = build(settings)
    app = pipeline.app
    await app.start()
    stopping = asyncio.create_task(stop.wait())
    crashed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
    failed = app.crashed
    await pipeline.stop()
    for task in (stopping, crashed):
        task.cancel()
    return 1 if failed else 0


def run(settings: Settings) -> NoReturn:
    """The `streamgauge worker` command: ends the process after SIGINT or SIGTERM.

    The exit is hard: by then the state is written and the group left, and Faust leaves threads and tasks behind that
    do not take a cancellation, on which asyncio's own clean-up would wait for ever.
    """
    log.configure(settings, "worker")

    async def main() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve(settings, stop)

    code = 1
    try:
        code = asyncio.new_event_loop().run_until_complete(main())
    except Exception as error:
        logger.error("worker.failed", error=str(error), exc_info=error)
    finally:
        sys.stderr.flush()
        os._exit(code)
