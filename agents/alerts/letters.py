"""Alerts that a receiver did not take, put aside on the topic `alerts-undelivered`."""

from __future__ import annotations

from collections.abc import Callable

from schemas.alerts import Alert, UndeliveredAlert
from streams import log
from streams.kafka import LateProducer
from streams.messages import to_bytes
from streams.settings import Settings
from streams.topics import UNDELIVERED

logger = log.get(__name__)


class Letters:
    """A producer of them, that starts with the first."""

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        self.settings = settings
        self._now_s = now_s
        self._producer = LateProducer(settings)

    async def put_aside(self, receiver: str, alert: Alert, error: str) -> None:
        """Say who did not take what, and why; done once the broker has it.

        Raises:
            KafkaError, OSError: the broker is away.
        """
        logger.warning("hook.undelivered", hook=receiver, alert_id=alert.alert_id, error=error)
        letter = UndeliveredAlert(hook=receiver, ts=int(self._now_s() * 1000), error=error, alert=alert)
        producer = await self._producer.started()
        await producer.send_and_wait(self.settings.topic(UNDELIVERED.name), to_bytes(letter), key=alert.model.encode())

    async def close(self) -> None:
        """Let the broker go."""
        await self._producer.close()
