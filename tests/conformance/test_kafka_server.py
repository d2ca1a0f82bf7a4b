"""Apache Kafka as tests and production run it: it keeps its log over a restart, and lets in whom it should."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.kafka.server import LIB, KafkaServer, find_java, quiet_port
from streams.kafka import KafkaSetupError, client_options, create_topics, end_offsets
from streams.settings import Settings
from streams.topics import TELEMETRY
from support import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka_jars")]
TP = TopicPartition(TELEMETRY.name, 0)


async def send(settings: Settings, count: int) -> None:
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    try:
        for _ in range(count):
            await producer.send_and_wait(TP.topic, b"{}", key=b"k", partition=TP.partition)
    finally:
        await producer.stop()


async def test_a_restart_keeps_records_committed_offsets_and_the_port(tmp_path: Path) -> None:
    with KafkaServer(tmp_path) as kafka:
        settings, port = kafka.settings(), kafka.port
        await create_topics(settings)
        await send(settings, 3)
        consumer = AIOKafkaConsumer(TP.topic, **client_options(settings), group_id="g", enable_auto_commit=False)
        await consumer.start()
        await consumer.commit({TP: 2})
        await consumer.stop()
        first = kafka.pid
        kafka.stop()
        with pytest.raises(KafkaSetupError, match="no broker answers"):
            await create_topics(settings)
        kafka.start()
        assert (kafka.port, kafka.pid != first) == (port, True)
        assert await create_topics(settings) == []
        await send(settings, 1)
        assert await end_offsets(client_options(settings), [TP]) == {TP: 4}
        consumer = AIOKafkaConsumer(**client_options(settings), group_id="g")
        await consumer.start()
        assert await consumer.committed(TP) == 2
        await consumer.stop()


async def test_clients_find_a_restarted_broker_by_themselves(tmp_path: Path) -> None:
    with KafkaServer(tmp_path) as kafka:
        await create_topics(kafka.settings())
        producer = AIOKafkaProducer(**client_options(kafka.settings()), request_timeout_ms=60_000)
        await producer.start()
        try:
            await producer.send_and_wait(TP.topic, b"before", partition=0)
            await asyncio.to_thread(kafka.stop)
            waiting = await producer.send(TP.topic, b"during", partition=0)
            await asyncio.to_thread(kafka.start)
            assert (await asyncio.wait_for(waiting, 60)).offset == 1
        finally:
            await producer.stop()


@pytest.fixture(scope="module", params=["SASL_PLAINTEXT", "SASL_SSL"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("guarded"), security=request.param) as kafka:
        asyncio.run(create_topics(kafka.settings()))
        yield kafka


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_with_the_password_is_let_in(guarded: KafkaServer, mechanism: str) -> None:
    settings = guarded.settings(kafka_sasl_mechanism=mechanism)
    before = (await end_offsets(client_options(settings), [TP]))[TP]
    await send(settings, 2)
    assert await end_offsets(client_options(settings), [TP]) == {TP: before + 2}


@pytest.mark.parametrize("wrong", [
    {"kafka_sasl_password": "wrong"}, {"kafka_sasl_username": "nobody"}, {"kafka_security_protocol": "PLAINTEXT"},
    {"kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_sasl_password": "wrong"}])
async def test_anyone_else_is_told_that_the_broker_cannot_be_used(guarded: KafkaServer, wrong: dict[str, str]) -> None:
    settings = guarded.settings(**wrong)
    with pytest.raises(KafkaSetupError, match="STREAMGAUGE_KAFKA") as error:
        await asyncio.wait_for(create_topics(settings), 60)
    assert guarded.door.password not in str(error.value)


async def test_tls_with_client_certificates_lets_in_only_who_has_one(tmp_path: Path) -> None:
    with KafkaServer(tmp_path, security="SSL", client_certificate=True) as kafka:
        await create_topics(kafka.settings())
        await send(kafka.settings(), 1)
        for wrong in ({"kafka_ssl_certfile": None}, {"kafka_ssl_cafile": None}):
            with pytest.raises(KafkaSetupError, match="no broker answers"):
                await asyncio.wait_for(create_topics(kafka.settings(**wrong)), 60)


def test_secrets_are_in_files_that_only_their_owner_reads(guarded: KafkaServer) -> None:
    for path in guarded.folder.rglob("*"):
        if path.is_file() and path.suffix in (".properties", ".pem", ".arguments"):
            holds = guarded.door.password in path.read_text(errors="replace") or "PRIVATE KEY" in path.read_text()
            assert not holds or path.stat().st_mode & 0o077 == 0, path
    line = Path(f"/proc/{guarded.pid}/cmdline")
    assert not line.exists() or guarded.door.password not in line.read_text()
    assert guarded.door.password not in guarded.log.read_text()


# -- docker-compose.yml ------------------------------------------------------------------------------------------------

class ComposeKafka(KafkaServer):
    """Kafka with the environment of docker-compose.yml, made into files by the code that runs in the image."""

    PASSWORD = "0a1b2c3d4e5f"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, quiet_port(), security="SASL_PLAINTEXT", password=self.PASSWORD)

    def environment(self) -> dict[str, str]:
        service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]
        ports = {"9091": quiet_port(), "9092": self.port, "9093": quiet_port(), "9094": quiet_port()}
        found = {key: str(value) for key, value in service["environment"].items()}
        for key, value in found.items():
            value = re.sub(r"\$\{KAFKA_PASSWORD:[^}]*\}", self.PASSWORD, value)
            value = re.sub(r"\$\{KAFKA_EXTERNAL_HOST:-([^}]*)\}", r"\1", value)
            value = value.replace("//kafka:", "//127.0.0.1:").replace("0.0.0.0", "127.0.0.1")
            found[key] = re.sub(r":(909\d)\b", lambda port: f":{ports[port[1]]}", value)
        return found | {"KAFKA_LOG_DIRS": str(self.folder / "data")}

    def launch(self) -> None:
        empty, mounted, final = (self.folder / name for name in ("default", "mounted", "final"))
        for path in (empty, mounted, final):
            path.mkdir(parents=True)
        for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
            (empty / name).touch()
        java = [find_java(), "-cp", f"{LIB}/*"]
        subprocess.run([*java, "kafka.docker.KafkaDockerWrapper", "setup", "-D", empty, "-M", mounted, "-F", final],
                       env=os.environ | self.environment(), check=True, capture_output=True)
        self.spawn([*java, "-Xmx512m", "kafka.Kafka", str(final / "server.properties")])


async def test_the_kafka_of_compose_starts_lets_in_the_worker_and_nobody_else(tmp_path: Path) -> None:
    with ComposeKafka(tmp_path) as kafka:
        service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]["environment"]
        mine = {key.removeprefix("STREAMGAUGE_").lower(): value for key, value in service.items()
                if key.startswith("STREAMGAUGE_KAFKA")}
        settings = Settings(**(mine | {"kafka_url": kafka.url, "kafka_sasl_password": kafka.PASSWORD, "partitions": 8}))
        assert len(await create_topics(settings)) > 0
        await send(settings, 1)
        consumer = AIOKafkaConsumer(TP.topic, **client_options(settings), group_id="g", auto_offset_reset="earliest")
        await consumer.start()
        try:
            assert (await asyncio.wait_for(consumer.getone(), 30)).key == b"k"
        finally:
            await consumer.stop()
        for wrong in ({"kafka_sasl_password": "wrong"}, {"kafka_security_protocol": "PLAINTEXT"}):
            with pytest.raises(KafkaSetupError):
                await asyncio.wait_for(create_topics(kafka.settings(**wrong)), 60)
