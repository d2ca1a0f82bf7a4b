"""The batch transport on a real broker: what every worker's exactness rests on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.embedded.broker import TansuBroker
from streams.kafka import client_options, create_topics, end_offsets
from streams.settings import PREFIX, Settings
from streams.state import row as rows
from streams.topics import TELEMETRY
from streams.transport.fetches import BLOCK_BYTES
from support import ROOT, Worker, produce, read_all, until, with_topics

APP = ROOT / "tests" / "apps" / "recorder.py"


class Recorder(Worker):
    """The recorder app as a process."""

    def __init__(self, settings: Settings, folder: Path, name: str, delay_ms: int = 0) -> None:
        self.batches = folder / "batches"
        super().__init__({f"{PREFIX}KAFKA_URL": settings.kafka_url, f"{PREFIX}TOPIC_PREFIX": settings.topic_prefix,
                          f"{PREFIX}GROUP": settings.group, f"{PREFIX}CHECKPOINT_MS": "300",
                          "RECORDER_LOG": str(self.batches), "RECORDER_DELAY_MS": str(delay_ms)},
                         folder / f"{name}.log", [str(APP)])


@pytest.fixture
async def settings(broker_url: str, request: pytest.FixtureRequest) -> Settings:
    return await with_topics(broker_url, request.node.name)


async def counted(settings: Settings) -> Counter[str]:
    """Records per key, from the newest snapshot row of each (partition, key)."""
    changelog = f"{settings.group}-snapshots-changelog"
    newest: dict[tuple[int, bytes], tuple[tuple[int, int], int]] = {}
    for record in await read_all(Settings(kafka_url=settings.kafka_url), changelog):
        if record.value is not None:
            rank, count = rows.epoch_and_fence(record.value), json.loads(rows.decode(record.value).payload)[0]
            place = (record.partition, record.key)
            if place not in newest or rank >= newest[place][0]:
                newest[place] = (rank, count)
    total: Counter[str] = Counter()
    for (_, key), (_, count) in newest.items():
        total[key.decode().partition("\x00")[2]] += count
    return total


async def committed(settings: Settings) -> tuple[int, int]:
    """(sum of committed offsets, sum of ends) of telemetry."""
    tps = [TopicPartition(settings.topic(TELEMETRY.name), number) for number in range(settings.partitions)]
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group)
    await consumer.start()
    try:
        done = sum([await consumer.committed(tp) or 0 for tp in tps])
        return done, sum((await end_offsets(client_options(settings), tps)).values())
    finally:
        await consumer.stop()


async def caught_up(settings: Settings, seconds: float = 60) -> None:
    import asyncio
    import time
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, end = await committed(settings)
        if done == end:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"committed {done} of {end}")


def items(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"model": f"m{n % 7}", "n": n} for n in range(start, start + count)]


def expected(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(item["model"] for item in found)


async def test_a_backlog_comes_in_large_batches_and_is_committed_to_its_end(settings: Settings, tmp_path: Path) -> None:
    load = items(30_000)
    await produce(settings, "telemetry", load)
    worker = Recorder(settings, tmp_path, "one").start().wait_ready()
    try:
        await caught_up(settings)
        sizes = [json.loads(line)[4] for line in worker.batches.read_text().splitlines()]
        assert sum(sizes) == len(load)
        assert len(sizes) < len(load) / 20
        assert await counted(settings) == expected(load)
    finally:
        assert worker.stop() == 0


async def test_what_was_compressed_comes_in_blocks_and_a_kill_between_them_loses_and_repeats_nothing(
        settings: Settings, tmp_path: Path) -> None:
    producer = AIOKafkaProducer(**client_options(settings), compression_type="lz4", linger_ms=50,
                                max_batch_size=1 << 20, max_request_size=16 << 20)
    await producer.start()
    sent = [await producer.send(settings.topic("telemetry"), b"x" * 2_000, key=b"k%d" % (number % 7), partition=0)
            for number in range(10_000)]            # 20 MB, which a fetch has in a fiftieth
    await asyncio.gather(*sent)
    await producer.stop()
    one = Recorder(settings, tmp_path, "one", delay_ms=600).start().wait_ready()
    until(lambda: one.batches.exists() and len(one.batches.read_text().splitlines()) >= 2, 30, "the second block")
    one.kill()
    two = Recorder(settings, tmp_path, "two").start().wait_ready()
    try:
        await caught_up(settings)
        assert await counted(settings) == {f"k{number}": 10_000 // 7 + (number < 10_000 % 7) for number in range(7)}
        lines = [json.loads(line) for line in one.batches.read_text().splitlines() if line.endswith("]")]
        assert max(line[4] for line in lines) <= BLOCK_BYTES // 2_000
        assert len(lines) >= 5
    finally:
        two.stop()


async def test_a_clean_stop_commits_what_was_taken_in_and_a_restart_takes_nothing_twice(
        settings: Settings, tmp_path: Path) -> None:
    load = items(5_000)
    await produce(settings, "telemetry", load)
    worker = Recorder(settings, tmp_path, "one").start().wait_ready()
    await caught_up(settings)
    assert worker.stop() == 0
    more = items(3_000, 5_000)
    await produce(settings, "telemetry", more)
    again = Recorder(settings, tmp_path, "two").start().wait_ready()
    try:
        await caught_up(settings)
        assert await counted(settings) == expected(load + more)
        sizes = [json.loads(line)[4] for line in worker.batches.read_text().splitlines()]
        assert sum(sizes) == 8_000
    finally:
        again.stop()


async def test_tombstones_and_missing_keys_are_records_like_others(settings: Settings, tmp_path: Path) -> None:
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    for number in range(40):
        await producer.send_and_wait(settings.topic("telemetry"), None if number % 2 else b"{}",
                                     key=b"k" if number % 4 else None, partition=number % 4)
    await producer.stop()
    worker = Recorder(settings, tmp_path, "one").start().wait_ready()
    try:
        await caught_up(settings)
        assert await counted(settings) == {"tombstones": 20, "k": 10, "none": 10}
    finally:
        worker.stop()


async def test_partitions_that_move_while_a_batch_is_under_way_lose_and_repeat_nothing(
        settings: Settings, tmp_path: Path) -> None:
    load = items(2_000)
    await produce(settings, "telemetry", load)
    one = Recorder(settings, tmp_path, "one", delay_ms=400).start().wait_ready()
    await produce(settings, "telemetry", items(2_000, 2_000))
    two = Recorder(settings, tmp_path, "two", delay_ms=400).start().wait_ready()
    await produce(settings, "telemetry", items(2_000, 4_000))
    try:
        until(one.batches.exists, 30, "the first batch")
        pids = until(lambda: {json.loads(line)[0] for line in one.batches.read_text().splitlines()
                              if line.endswith("]")} - {one.process.pid}, 30, "the second worker takes a batch")
        assert pids == {two.process.pid}
        two.signal(signal.SIGKILL)
        await produce(settings, "telemetry", items(2_000, 6_000))
        await caught_up(settings)
        assert await counted(settings) == expected(items(8_000))
    finally:
        one.stop()


async def test_a_worker_that_was_frozen_past_its_session_spoils_nothing(settings: Settings, tmp_path: Path) -> None:
    await produce(settings, "telemetry", items(2_000))
    one = Recorder(settings, tmp_path, "one", delay_ms=50).start().wait_ready()
    until(lambda: one.batches.exists(), 30, "the first batch")
    one.signal(signal.SIGSTOP)
    await produce(settings, "telemetry", items(2_000, 2_000))
    two = Recorder(settings, tmp_path, "two").start().wait_ready()
    try:
        await caught_up(settings)
        one.signal(signal.SIGCONT)
        await produce(settings, "telemetry", items(2_000, 4_000))
        await caught_up(settings)
        assert await counted(settings) == expected(items(6_000))
    finally:
        one.signal(signal.SIGCONT)
        two.stop()
        if not one.died():
            one.stop()


@pytest.mark.kafka
async def test_gaps_of_transaction_markers_do_not_stop_the_commit(kafka_url: str, tmp_path: Path) -> None:
    settings = Settings(kafka_url=kafka_url, topic_prefix="gaps.", group="gaps")
    await create_topics(settings)
    producer = AIOKafkaProducer(**client_options(settings), transactional_id="gaps")
    await producer.start()
    for number in range(50):
        async with producer.transaction():
            for _ in range(3):
                await producer.send(settings.topic("telemetry"), b"{}", key=b"k", partition=number % 4)
    await producer.stop()
    worker = Recorder(settings, tmp_path, "one").start().wait_ready()
    try:
        done, end = -1, 0
        def last() -> bool:
            return sum(json.loads(line)[4] for line in worker.batches.read_text().splitlines()) == 150 \
                if worker.batches.exists() else False
        until(last, 30, "all records taken in")
        assert worker.stop() == 0
        done, end = await committed(settings)
        assert await counted(settings) == {"k": 150}
        assert end - done <= 4, "only the marker after each partition's last record is left"
    finally:
        if not worker.died():
            worker.stop()


async def test_a_worker_whose_broker_is_gone_still_stops(tmp_path: Path) -> None:
    with TansuBroker(tmp_path / "broker") as broker:
        settings = Settings(kafka_url=broker.url, group="forsaken")
        await create_topics(settings)
        worker = Recorder(settings, tmp_path, "forsaken").start().wait_ready()
        await produce(settings, "telemetry", items(500))
        until(lambda: worker.metric("streamgauge_batch_events_count") > 0, 30, "a batch")
    assert worker.stop() == 0
    assert "stop.cut_short" in worker.log.read_text()
