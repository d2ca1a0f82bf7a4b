"""How to reach Kafka, said once: options for aiokafka clients, a producer for few records, and creating the topics."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from streams.settings import Settings
from streams.topics import TOPICS, TopicRow

#: Of every topic: a rejected record holds the largest payload that is let in, in base64, and its reason.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
#: Of topics that producers write: what is too large for us is better kept with its reason than refused to a producer
#: that may not look.
PRODUCERS_MESSAGE_BYTES = 16 * 1024 * 1024

CLOSE_SECONDS = 10.0


class KafkaSetupError(RuntimeError):
    """The broker cannot be used as configured; the text says what to do."""

    code = "kafka_setup"
    retriable = True


def bootstrap_servers(settings: Settings) -> list[str]:
    """host:port of each bootstrap server.

    Raises:
        KafkaSetupError: STREAMGAUGE_KAFKA_URL is empty.
    """
    servers = [part.strip().removeprefix("kafka://") for part in settings.kafka_url.split(",") if part.strip()]
    if not servers:
        raise KafkaSetupError("no broker: set STREAMGAUGE_KAFKA_URL to host:port, or run `streamgauge up`, "
                              "which starts an embedded one")
    return servers


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context, or None for a plaintext protocol."""
    if "SSL" not in settings.kafka_security_protocol:
        return None
    context = ssl.create_default_context(cafile=str(settings.kafka_ssl_cafile) if settings.kafka_ssl_cafile else None)
    if settings.kafka_ssl_certfile:
        context.load_cert_chain(str(settings.kafka_ssl_certfile),
                                str(settings.kafka_ssl_keyfile) if settings.kafka_ssl_keyfile else None)
    return context


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for AIOKafkaProducer, AIOKafkaConsumer and AIOKafkaAdminClient."""
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(settings),
        "security_protocol": settings.kafka_security_protocol,
    }
    context = ssl_context(settings)
    if context is not None:
        options["ssl_context"] = context
    if settings.kafka_security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options


class LateProducer:
    """A producer that starts with its first record: for what is rarely sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def started(self) -> AIOKafkaProducer:
        """The producer; started by whoever comes first, anew after a failure.

        Raises:
            KafkaError, KafkaSetupError, OSError: the broker is away, or none is named.
        """
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**client_options(self._settings))
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Let the broker go; if it is away, it is gone already."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), CLOSE_SECONDS)


def topic_config(row: TopicRow) -> dict[str, str]:
    """The broker-side configuration of a topic.

    Records of producers get the broker's time: theirs is what `max_age_ms` and `max_ahead_ms` check.
    """
    from_producers = row.owner == "producers"
    return {"cleanup.policy": row.cleanup, "retention.ms": str(row.retention_ms),
            "max.message.bytes": str(PRODUCERS_MESSAGE_BYTES if from_producers else MAX_MESSAGE_BYTES),
            "message.timestamp.type": "LogAppendTime" if from_producers else "CreateTime"}


async def create_topics(settings: Settings) -> list[str]:
    """Create the topics that do not exist; return the names of the new ones.

    Raises:
        KafkaSetupError: the broker is away, or an existing topic has another number of partitions.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
    except KafkaError as error:
        await admin.close()
        secured = "" if settings.kafka_security_protocol == "PLAINTEXT" else " and the STREAMGAUGE_KAFKA_* secrets"
        raise KafkaSetupError(f"no broker answers at {settings.kafka_url}: start it, or correct "
                              f"STREAMGAUGE_KAFKA_URL{secured} ({error})") from error
    try:
        existing = set(await admin.list_topics())
        missing = [row for row in TOPICS if settings.topic(row.name) not in existing]
        if missing:
            answer = await admin.create_topics(
                [NewTopic(settings.topic(row.name), settings.partitions, settings.replication,
                          topic_configs=topic_config(row)) for row in missing])
            for name, code, *_ in answer.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise KafkaSetupError(f"cannot create topic {name}: {for_code(code).__name__}")
        described = await _describe(admin, [settings.topic(row.name) for row in TOPICS])
        for topic in described:
            if len(topic["partitions"]) != settings.partitions:
                raise KafkaSetupError(
                    f"topic {topic['topic']} has {len(topic['partitions'])} partitions, and "
                    f"STREAMGAUGE_PARTITIONS is {settings.partitions}: all topics need the same number")
        return [settings.topic(row.name) for row in missing]
    finally:
        await admin.close()


async def _describe(admin: AIOKafkaAdminClient, names: list[str], timeout_s: float = 10.0) -> list[dict[str, Any]]:
    """Metadata of the topics. Kafka's broker knows a new topic a moment after its controller has made it."""
    deadline = time.monotonic() + timeout_s
    while True:
        described: list[dict[str, Any]] = await admin.describe_topics(names)
        if time.monotonic() > deadline or not any(topic["error_code"] for topic in described):
            return described
        await asyncio.sleep(0.05)


async def end_offsets(options: Mapping[str, Any], partitions: Iterable[TopicPartition],
                      timeout_s: float = 10.0) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition, taken from a fetch response.

    Not from ListOffsets alone: the embedded broker answers that with the first offset of the last batch plus one,
    which would end a restore some rows too early.

    Raises:
        KafkaSetupError: the broker did not answer in time.
    """
    wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
    if not wanted:
        return {}
    consumer = AIOKafkaConsumer(**options, enable_auto_commit=False, fetch_max_wait_ms=50)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(wanted)
        filled = [tp for tp in wanted if ends[tp] > 0]
        consumer.assign(filled)
        for tp in filled:
            consumer.seek(tp, ends[tp] - 1)
        deadline = time.monotonic() + timeout_s
        while any(consumer.highwater(tp) is None for tp in filled):
            if time.monotonic() > deadline:
                raise KafkaSetupError("the broker does not say where its partitions end: is it overloaded?")
            await consumer.getmany(timeout_ms=100)
        return {tp: consumer.highwater(tp) if tp in filled else ends[tp] for tp in wanted}
    finally:
        await consumer.stop()
