"""What a gateway asks of the alerts agent: commands, onto their topic. It decides nothing by itself."""

from __future__ import annotations

import asyncio
import uuid

from aiokafka.errors import KafkaError

from dashboards.api import metrics
from schemas.alerts import AlertCommand
from streams.kafka import KafkaSetupError, LateProducer
from streams.messages import to_bytes
from streams.settings import Settings
from streams.topics import ALERT_COMMANDS

SECONDS = 10.0


class CommandsAwayError(RuntimeError):
    """The broker does not take the command; the text says what to do."""


class Commands:
    """A producer that starts with the first command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = LateProducer(settings)

    async def send(self, command: AlertCommand, partition: int | None = None) -> None:
        """Into one partition, or into all: done once the broker has it.

        Raises:
            CommandsAwayError: the broker is away, or none is named.
        """
        try:
            async with asyncio.timeout(SECONDS):
                producer = await self._producer.started()
                topic, value = self.settings.topic(ALERT_COMMANDS.name), to_bytes(command)
                numbers = range(self.settings.partitions) if partition is None else (partition,)
                sent = [await producer.send(topic, value, key=(command.incident_id or command.command_id).encode(),
                                            partition=number) for number in numbers]
                await asyncio.gather(*sent)
        except (KafkaError, KafkaSetupError, OSError, TimeoutError) as error:
            raise CommandsAwayError(f"Kafka does not take the command ({type(error).__name__}); nothing is decided "
                                    "yet: try again soon") from error
        metrics.COMMANDS.labels(command.action).inc()

    async def close(self) -> None:
        """Let the broker go."""
        await self._producer.close()


def new_id() -> str:
    """Of a command or a silence."""
    return uuid.uuid4().hex
