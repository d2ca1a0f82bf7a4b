"""Everything that runs in production, as processes of their own: stores, workers on core 0, all the rest on core 1."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support import ROOT, Worker, free_port, until

from infra.cli.serve import prepare
from infra.embedded.broker import TansuBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.process import Service
from infra.embedded.valkey import ValkeyServer
from infra.kafka.server import HERE as KAFKA
from infra.kafka.server import KafkaMissingError, KafkaServer, find_java
from streams.settings import PREFIX, Settings
from tests.bench.world import BROKER_CORE, WORKER_CORE, pin

TOKEN = "a-token-for-benchmarks"
READY_SECONDS = 120.0


class Load:
    """Events at a steady rate, from a process of its own (`tests.bench.pace`)."""

    def __init__(self, settings: Settings, rate: int) -> None:
        self.rate = rate
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.pace", settings.kafka_url, settings.topic_prefix, str(rate)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pin(self.process.pid, BROKER_CORE)

    def stop(self) -> dict[str, Any]:
        """End it; what it has sent, and in how many seconds."""
        out, _ = self.process.communicate("stop\n", timeout=60)
        return dict(json.loads(out.splitlines()[-1]))

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Stack:
    """Broker, Valkey, PostgreSQL, gateway, and as many workers as are asked for."""

    def __init__(self, folder: Path, services: dict[str, Service], gateway_port: int, more: dict[str, str]) -> None:
        self.folder = folder
        self.services = services
        self.page = f"http://127.0.0.1:{gateway_port}"
        self.environment = {f"{PREFIX}{name}": service.url for name, service in services.items()} | {
            f"{PREFIX}API_TOKEN": TOKEN, f"{PREFIX}LOG_LEVEL": "warning", f"{PREFIX}DATA_DIR": str(folder / "data"),
            f"{PREFIX}PORT": str(gateway_port)} | more
        self.settings = Settings(kafka_url=services["KAFKA_URL"].url, redis_url=services["REDIS_URL"].url,
                                 database_url=services["DATABASE_URL"].url)
        self.workers: list[Worker] = []

    def worker(self) -> Worker:
        """Start a worker on the workers' core."""
        worker = Worker(self.environment, self.folder / f"worker-{len(self.workers)}.log").start()
        assert worker.process is not None
        pin(worker.process.pid, WORKER_CORE)
        self.workers.append(worker)
        return worker

    def gateway(self) -> Worker:
        """Start the gateway beside the stores."""
        found = Worker(self.environment, self.folder / "gateway.log", ["-m", "infra.cli.main", "gateway"]).start()
        assert found.process is not None
        pin(found.process.pid, BROKER_CORE)
        found.port = int(self.page.rsplit(":", 1)[1])
        return found.wait_ready(READY_SECONDS)

    def lag(self) -> float:
        """Records that the workers are behind; as they know it."""
        return sum(worker.metric("streamgauge_consumer_lag") for worker in self.workers if not worker.died())


def best_broker(folder: Path) -> Service:
    """Apache Kafka where Java and Maven bring it, else the embedded broker; says which.

    The embedded broker looks through all batches of a partition for each fetch that finds something: after ten
    thousand of them a hop takes tens of milliseconds of its core, and what is measured is that.
    """
    said = subprocess.run([str(KAFKA / "fetch.sh")], capture_output=True, text=True, check=False)
    try:
        if said.returncode:
            raise KafkaMissingError(said.stdout.strip() or said.stderr.strip())
        find_java()
    except KafkaMissingError as error:
        print(f"On the embedded broker, as Apache Kafka is not here: {error}", file=sys.stderr)
        return TansuBroker(folder / "broker")
    return KafkaServer(folder / "kafka")


def named(service: Service) -> str:
    """What a broker is, for the line of figures."""
    return "Apache Kafka" if isinstance(service, KafkaServer) else "Tansu"


@contextmanager
def stack(folder: Path, broker: Service | None = None, database: Path | None = None,
          **more: object) -> Iterator[Stack]:
    """Stores and gateway, ready. The broker is the embedded one if none is given; `more` are settings."""
    services = {"KAFKA_URL": broker or TansuBroker(folder / "broker"),
                "REDIS_URL": ValkeyServer(folder / "valkey", keep=True),
                "DATABASE_URL": PostgresServer(database or folder / "postgres")}
    for part in (folder, *folder.parents):      # PostgreSQL's own user must reach it, where we are root
        if os.access(part, os.W_OK) and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o755)
    with ExitStack() as held:
        for service in services.values():
            held.enter_context(service)
            pin_all(service)
        found = Stack(folder, services, free_port(),
                      {f"{PREFIX}{name.upper()}": str(value) for name, value in more.items()})
        asyncio.run(prepare(found.settings))
        gateway = found.gateway()
        held.callback(gateway.stop)
        held.callback(lambda: [worker.stop() for worker in found.workers])
        yield found


def pin_all(service: Service) -> None:
    """Keep a service and the processes that it has started off the workers' core."""
    pin(service.pid, BROKER_CORE)
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(service.pid)], capture_output=True, text=True,
                            check=False)
    for pid in listed.stdout.split():
        pin(int(pid), BROKER_CORE)


def settled(found: Stack, seconds: float = 60.0) -> None:
    """Wait until nothing is behind."""
    until(lambda: found.lag() == 0, seconds, "zero lag")
