"""What broker tests share: a worker as a process that can be killed, a producer, and reading a topic to its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from infra.embedded.process import die_with_parent
from streams.kafka import client_options, create_topics, end_offsets
from streams.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.05) -> Any:
    """The first true answer of `condition`, or an error that says what did not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what}")


class Worker:
    """A worker process over given settings."""

    def __init__(self, environment: dict[str, str], log: Path, command: list[str] | None = None) -> None:
        self.command = command or ["-c", "from agents.worker import run; from streams.settings import Settings; "
                                   "run(Settings())"]
        self.port = free_port()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        # Tests close windows with events of a later time.
        self.environment |= {f"{PREFIX}MAX_AHEAD_MS": "300000", f"{PREFIX}DATA_DIR": str(log.parent)} | environment
        self.environment[f"{PREFIX}WORKER_PORT"] = str(self.port)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, *self.command], cwd=ROOT, env=self.environment, stdout=out, stderr=out,
                preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()))
        return self

    def get(self, path: str) -> tuple[int, str]:
        """(status, body); (0, "") while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, seconds: float = 60.0) -> Worker:
        until(lambda: self.get("/readyz")[0] == 200 or self.died(), seconds, f"worker ready ({self.log})")
        assert not self.died(), self.log.read_text()[-3000:]
        return self

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(sample.value for sample in self.samples(name))

    def samples(self, *names: str) -> list[Sample]:
        """Metrics, with their labels."""
        page = self.get(f"/metrics?{'&'.join(f'name[]={name}' for name in names)}")[1]
        return [sample for family in text_string_to_metric_families(page) for sample in family.samples
                if sample.name in names]

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if not self.died():
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not stop within {seconds} s ({self.log})") from None


async def with_topics(broker_url: str, test: str) -> Settings:
    """Settings with a group and topics of a test's own, which exist; `test` is the name of its node."""
    name = test.split("[")[0][:60]
    chosen = Settings(kafka_url=broker_url, topic_prefix=f"{name}.", group=name)
    await create_topics(chosen)
    return chosen


async def produce(settings: Settings, topic: str, items: Iterable[dict[str, Any] | bytes],
                  key: Callable[[Any], bytes] = lambda item: item["model"].encode(),
                  partition: Callable[[Any], int | None] = lambda item: None) -> int:
    """Send items in order, each acknowledged by the broker before this returns."""
    producer = AIOKafkaProducer(**client_options(settings), linger_ms=5, max_request_size=16 * 1024 * 1024)
    await producer.start()
    try:
        sent = [await producer.send(settings.topic(topic), item if isinstance(item, bytes) else
                                    json.dumps(item).encode(),
                                    key=b"hostile" if isinstance(item, bytes) else key(item),
                                    partition=partition(item)) for item in items]
        await asyncio.gather(*sent)
        return len(sent)
    finally:
        await producer.stop()


async def read_all(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic (aiokafka records with .value bytes), partition by partition, to its end."""
    name = settings.topic(topic)
    tps = [TopicPartition(name, number) for number in range(settings.partitions)]
    ends = await end_offsets(client_options(settings), tps)
    wanted = [tp for tp in tps if ends[tp] > 0]
    if not wanted:      # aiokafka raises CancelledError when a consumer without a group is stopped as soon as started
        return []
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest",
                                fetch_max_wait_ms=50)
    await consumer.start()
    found: dict[TopicPartition, list[Any]] = {tp: [] for tp in tps}
    try:
        consumer.assign(wanted)
        await consumer.seek_to_beginning(*wanted)
        while [tp for tp in wanted if await consumer.position(tp) < ends[tp]]:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                found[tp].extend(records)
    finally:
        await consumer.stop()
    return [record for tp in tps for record in found[tp]]


def newest(records: list[Any]) -> dict[str, dict[str, Any]]:
    """window_id -> the copy with the largest count, as every reader of `metrics` takes it."""
    windows: dict[str, dict[str, Any]] = {}
    for record in records:
        window = json.loads(record.value)
        have = windows.get(window["window_id"])
        if have is None or window["count"] >= have["count"]:
            windows[window["window_id"]] = window
    return windows
