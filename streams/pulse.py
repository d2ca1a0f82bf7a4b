"""Does the broker answer? Asked now and then over a connection of its own, as an idle worker would not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.kafka import client_options
from streams.settings import Settings

EVERY_SECONDS = 3.0
TIMEOUT_SECONDS = 5.0
#: Two questions without an answer.
ALLOWED_SECONDS = 2 * (EVERY_SECONDS + TIMEOUT_SECONDS)


class Pulse:
    """When the broker last answered; `run` asks until it is cancelled."""

    def __init__(self, settings: Settings, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock_s = clock_s
        self._answered_s = clock_s()

    def wrong(self) -> list[str]:
        """For /readyz; empty while it answers."""
        silent_s = self._clock_s() - self._answered_s
        return [f"the broker has not answered for {silent_s:.0f} s"] if silent_s > ALLOWED_SECONDS else []

    async def run(self) -> None:
        """Ask, over a new connection after each failure."""
        while True:
            admin = AIOKafkaAdminClient(**client_options(self._settings))
            try:
                await asyncio.wait_for(admin.start(), TIMEOUT_SECONDS)
                while True:
                    await asyncio.wait_for(admin.list_topics(), TIMEOUT_SECONDS)
                    self._answered_s = self._clock_s()
                    await asyncio.sleep(EVERY_SECONDS)
            except (KafkaError, OSError, TimeoutError):
                await asyncio.sleep(EVERY_SECONDS)
            finally:
                await admin.close()
