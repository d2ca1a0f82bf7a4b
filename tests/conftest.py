"""Brokers for tests, one of each for the whole run: the embedded one, and Apache Kafka for tests marked `kafka`.

A test that takes `broker_url` runs on both: on Tansu under `make test`, on Kafka under `make test-kafka`. Each uses
topics and groups of its own (a prefix), as the brokers are shared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from infra.kafka.command import TEST_URL
from infra.kafka.server import KafkaMissingError, KafkaServer, find_java


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of the embedded broker."""
    from infra.embedded.broker import TansuBroker
    with TansuBroker(tmp_path_factory.mktemp("tansu")) as broker:
        yield broker.url


@pytest.fixture(scope="session")
def kafka_jars() -> None:
    """Skips, with the reason, where Kafka cannot run; for tests that start a broker of their own."""
    try:
        find_java()
    except KafkaMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of Apache Kafka: the one that infra/kafka/run.sh has started, else one of our own."""
    given = os.environ.get(TEST_URL)
    if given:
        yield given
        return
    request.getfixturevalue("kafka_jars")
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka.url


@pytest.fixture(params=["tansu", pytest.param("kafka_url", marks=pytest.mark.kafka, id="kafka")])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """redis:// of a server for the whole run; each test uses a prefix of its own."""
    from infra.embedded.valkey import ValkeyServer
    with ValkeyServer(tmp_path_factory.mktemp("valkey"), keep=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """postgresql:// of a server for the whole run; each test makes a database of its own.

    Not in pytest's folder: each run of pytest closes that to others, so also to the server's user, where we are root.
    """
    from infra.embedded.postgres import PostgresServer
    with TemporaryDirectory(prefix="streamgauge-") as folder:
        Path(folder).chmod(0o755)
        with PostgresServer(Path(folder)) as server:
            yield server.url
