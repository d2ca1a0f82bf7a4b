"""Members of consumer groups whose process was killed leave with the next start, and no others do."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from streams.kafka import client_options
from streams.members import Note, take_out_dead
from streams.settings import PREFIX, Settings
from streams.topics import TELEMETRY
from support import Worker, until, with_topics

#: Of the member that is killed; and how long the next one waits for its partitions, of which the embedded broker lets
#: it wait half a session in any case.
SESSION_MS, PATIENCE_S = 24_000, 20
START_S = 60
MEMBER = f"""
import asyncio, sys
from pathlib import Path
from aiokafka import AIOKafkaConsumer
from streams.members import Note
async def main(folder, url, topic, group):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=url, group_id=group, session_timeout_ms={SESSION_MS},
                                request_timeout_ms={SESSION_MS + 1_000})
    await consumer.start()
    assert consumer.assignment()
    note = Note(Path(folder), url)
    note.joined(group, consumer._coordinator.member_id)
    print(flush=True)
    await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def settings(broker_url: str, request: pytest.FixtureRequest) -> Settings:
    return await with_topics(broker_url, request.node.name)


@asynccontextmanager
async def member(folder: Path, settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has all partitions, and has noted who it is; killed at the end."""
    found = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, str(folder), settings.kafka_url, settings.topic(TELEMETRY.name), settings.group,
        stdout=asyncio.subprocess.PIPE)
    try:
        assert found.stdout is not None
        assert await asyncio.wait_for(found.stdout.readline(), START_S) == b"\n"
        yield found
    finally:
        if found.returncode is None:
            found.kill()
        await found.wait()


async def partitions_of_the_next(settings: Settings) -> int:
    """How many partitions who joins now has."""
    consumer = AIOKafkaConsumer(settings.topic(TELEMETRY.name), **client_options(settings), group_id=settings.group,
                                session_timeout_ms=6_000)
    try:
        await asyncio.wait_for(consumer.start(), PATIENCE_S)
        return len(consumer.assignment())
    finally:
        await consumer.stop()


async def test_who_was_killed_is_out_long_before_its_session_ends(settings: Settings, tmp_path: Path) -> None:
    async with member(tmp_path, settings) as killed:
        killed.kill()
        await killed.wait()
        assert await take_out_dead(tmp_path, settings) == 1
        assert await partitions_of_the_next(settings) == settings.partitions
        assert not list(tmp_path.iterdir())


async def test_the_notes_of_who_lives_are_left_alone(tmp_path: Path) -> None:
    note = Note(tmp_path, "127.0.0.1:1")
    note.joined("streamgauge", "m-1")
    assert await take_out_dead(tmp_path, Settings(kafka_url="127.0.0.1:1")) == 0
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"kafka_url": "127.0.0.1:1", "members": '
                                                                 '{"streamgauge": "m-1"}}']
    note.close()


async def test_a_worker_notes_its_group_and_those_of_its_sinks_and_the_next_takes_them_out(
        settings: Settings, tmp_path: Path) -> None:
    environment = {f"{PREFIX}KAFKA_URL": settings.kafka_url, f"{PREFIX}TOPIC_PREFIX": settings.topic_prefix,
                   f"{PREFIX}GROUP": settings.group, f"{PREFIX}DATA_DIR": str(tmp_path),
                   f"{PREFIX}LOG_LEVEL": "info", f"{PREFIX}SESSION_TIMEOUT_MS": "6000"}

    def noted() -> dict[str, str]:
        found = [json.loads(path.read_text() or "{}") for path in (tmp_path / "members").glob("*.json")]
        return dict(found[0].get("members", {})) if found else {}

    first = Worker(environment, tmp_path / "first.log").start()
    try:
        groups = {settings.group, f"{settings.group}-exposition"}
        await asyncio.to_thread(until, lambda: groups <= noted().keys(), START_S, "the notes of both groups")
        before = noted()
    finally:
        first.kill()
    second = Worker(environment, tmp_path / "second.log").start()
    try:
        await asyncio.to_thread(second.wait_ready)
        assert "members.taken_out" in second.log.read_text()
        assert not set(noted().items()) & set(before.items())
    finally:
        await asyncio.to_thread(second.stop)


async def test_notes_that_say_nothing_and_those_of_other_brokers_are_passed_over(tmp_path: Path) -> None:
    Note(tmp_path, "elsewhere:9092").close()
    elsewhere = Note(tmp_path, "elsewhere:9092")
    elsewhere.joined("streamgauge", "m-1")
    elsewhere.close()
    for number, text in enumerate(('{"kafka_url": "127.0.0.1:1", "memb', "[]", '{"kafka_url": 1, "members": 2}', "")):
        (tmp_path / f"{number}.json").write_text(text)
    assert await take_out_dead(tmp_path, Settings(kafka_url="127.0.0.1:1")) == 0       # without a broker: none is asked
    assert not list(tmp_path.iterdir())


async def test_a_broker_that_is_away_keeps_no_worker_from_its_start(tmp_path: Path) -> None:
    note = Note(tmp_path, "127.0.0.1:1")
    note.joined("streamgauge", "m-1")
    note.close()
    assert await take_out_dead(tmp_path, Settings(kafka_url="127.0.0.1:1")) == 0


async def test_workers_that_start_together_do_not_trip_over_one_another(tmp_path: Path) -> None:
    code = ("import asyncio, sys; from pathlib import Path; from streams.members import Note, take_out_dead; "
            "from streams.settings import Settings\n"
            "for _ in range(200):\n"
            "    note = Note(Path(sys.argv[1]), 'elsewhere:9092')\n"
            "    assert asyncio.run(take_out_dead(Path(sys.argv[1]), Settings(kafka_url='127.0.0.1:1'))) == 0\n"
            "    note.close()")
    workers = [await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path)) for _ in range(4)]
    assert [await worker.wait() for worker in workers] == [0, 0, 0, 0]
