"""The order of a checkpoint is the proof of exactness: each test stops it somewhere and looks at what was written."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from streams.state.checkpoint import Checkpointer, Partition
from streams.state.keyed import META
from streams.state.store import Rows
from test_keyed import Counts


class Broker:
    """Remembers what was sent, and acknowledges only when it is told to."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes | None]] = []
        self.told = 0
        self.open = asyncio.Event()
        self.open.set()
        self.events: list[str] = []

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None,
            headers: Mapping[str, bytes] | None = None) -> None:
        self.log.append((topic, key))

    def put_all(self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        self.log += [(topic, key) for key, _ in records]

    async def room(self) -> None:
        """There always is."""

    async def sent(self) -> dict[tuple[str, int], int]:
        await self.open.wait()
        self.events += [topic for topic, _ in self.log[self.told:]]
        self.told = len(self.log)
        return {}

    def ack(self, note: Any) -> None:
        self.events.append(f"ack {note}")

    async def commit(self) -> None:
        self.events.append("commit")


def setup(broker: Broker) -> tuple[Checkpointer, Partition]:
    rows = Rows()
    checkpointer = Checkpointer(lambda: rows, lambda: "changelog", broker, broker.ack, broker.commit)
    checkpointer.register("test", Counts())
    checkpointer.open({0})
    return checkpointer, checkpointer.partitions[0]


async def batch(partition: Partition, offset: int) -> None:
    held = partition.states("test")
    for key in ("a", META):
        entry = held.entry(key)
        entry.state["n"] += 1
        held.touch(entry, "telemetry", offset)
    partition.publish("output", "k", b"v")
    partition.note(offset)


async def test_outputs_then_rows_then_acks_then_the_commit() -> None:
    broker = Broker()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    await checkpointer.checkpoint()
    assert broker.events == ["output", "changelog", "changelog", "ack 0", "commit"]


async def test_outputs_that_are_held_back_go_before_the_rows() -> None:
    broker, had = Broker(), list[int]()
    checkpointer, partition = setup(broker)

    def send(whose: Partition) -> None:
        had.append(whose.states("test").entry("a").state["n"])
        whose.publish("held back", "k", b"v")

    checkpointer.before(send)
    await batch(partition, 0)
    await checkpointer.checkpoint()
    assert broker.events == ["output", "held back", "changelog", "changelog", "ack 0", "commit"]
    assert had == [1]


async def test_no_row_is_sent_while_an_output_is_unacknowledged() -> None:
    broker = Broker()
    broker.open.clear()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    running = asyncio.create_task(checkpointer.checkpoint())
    for _ in range(10):
        await asyncio.sleep(0)
    assert [topic for topic, _ in broker.log] == ["output"]
    broker.open.set()
    await running
    assert broker.log[1:] == [("changelog", b"test\x00a"), ("changelog", b"test\x00")]


async def test_a_batch_noted_after_the_freeze_waits_for_the_next_checkpoint() -> None:
    broker = Broker()
    broker.open.clear()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    running = asyncio.create_task(checkpointer.checkpoint())
    for _ in range(10):
        await asyncio.sleep(0)
    await batch(partition, 1)
    broker.open.set()
    await running
    assert "ack 0" in broker.events
    assert "ack 1" not in broker.events
    await checkpointer.checkpoint()
    assert broker.events[-2:] == ["ack 1", "commit"]


async def test_a_closed_partition_writes_and_acks_nothing() -> None:
    broker = Broker()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    checkpointer.close()
    await batch(partition, 1)
    await checkpointer.checkpoint()
    await checkpointer.persist("test", partition)
    assert [event for event in broker.events if event != "output"] == []


async def test_a_new_owner_has_a_later_epoch_than_every_row() -> None:
    broker = Broker()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    await checkpointer.checkpoint()
    first = partition.epoch
    checkpointer.close()
    checkpointer.open({0})
    assert checkpointer.partitions[0].epoch == first + 1
    assert checkpointer.partitions[0].states("test").entry("a").state["n"] == 1


async def test_a_failed_write_acks_nothing() -> None:
    broker = Broker()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)

    async def refuse() -> Any:
        raise ConnectionError("broker is away")

    broker.sent = refuse
    with pytest.raises(ConnectionError):
        await checkpointer.checkpoint()
    assert "commit" not in broker.events
    assert "ack 0" not in broker.events


async def test_a_partition_that_is_given_up_with_outputs_unsent_writes_no_row() -> None:
    broker = Broker()
    checkpointer, partition = setup(broker)
    await batch(partition, 0)
    broker.open.clear()
    running = asyncio.create_task(checkpointer.checkpoint())
    for _ in range(10):
        await asyncio.sleep(0)
    checkpointer.close()
    broker.open.set()
    await running
    assert broker.events == ["output"]
    checkpointer.open({0})
    assert checkpointer.partitions[0].states("test").entry("a").state["n"] == 0
