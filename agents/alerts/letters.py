"""Alerts that a receiver did not take, put aside on the topic `alerts-undelivered`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.alerts import Alert, UndeliveredAlert
from streams import log
from streams.kafka import client_options
from streams.messages import to_bytes
from streams.settings import Settings
from streams.topics import UNDELIVERED

logger = log.get(__name__)
CLOSE_SECONDS = 10.0


class Letters:
    """A producer of them, that starts with the first."""

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        self.settings = settings
        self._now_s = now_s
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def put_aside(self, receiver: str, alert: Alert, error: str) -> None:
        """Say who did not take what, and why; done once the broker has it.

        Raises:
            KafkaError, OSError: the broker is away.
        """
        logger.warning("hook.undelivered", hook=receiver, alert_id=alert.alert_id, error=error)
        letter = UndeliveredAlert(hook=receiver, ts=int(self._now_s() * 1000), error=error, alert=alert)
        producer = await self._started()
        await producer.send_and_wait(self.settings.topic(UNDELIVERED.name), to_bytes(letter), key=alert.model.encode())

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**client_options(self.settings))
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Let the broker go."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(producer.stop(), CLOSE_SECONDS)
