"""When state is written and when the log may move on.

A checkpoint, in this order:

1. send the outputs that agents hold back, then freeze: encode what changed, of all agents; partition by partition
   (synchronous: nothing else runs in between)
2. wait until the broker has every output that was sent before the freeze
3. write the rows: keys, then META, then deletions; wait until the broker has them; only then are they snapshots
4. ack the batches that the freeze included; commit

Outputs come before rows: were a row that says "this window was published" to survive and the window not, the window
would be lost. A crash between any two steps repeats outputs (their ids are deterministic, downstream drops repeats)
and reads batches again (every key's fence skips what it has). So does a checkpoint that is given up half-way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from streams import log, metrics
from streams.state.continuity import Continuity
from streams.state.keyed import Codec, Frozen, KeyedStates
from streams.state.store import Rows, changelog_key, epoch_header

logger = log.get(__name__)


class Sender(Protocol):
    """Takes records at once, and says when the broker has them; `streams.transport.outbox.Outbox`."""

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None,
            headers: Mapping[str, bytes] | None = None) -> None: ...

    def put_all(self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None]]) -> None: ...

    async def room(self) -> None: ...

    async def sent(self) -> Mapping[tuple[str, int], int]: ...


class Partition:
    """Partition p of every topic, while this worker owns it: states, outputs under way, batches to ack."""

    def __init__(self, number: int, epoch: int, rows: Rows, codecs: dict[str, Codec[Any]], outbox: Sender,
                 start: Callable[[str, int], int | None] = lambda topic, partition: None) -> None:
        self.number = number
        self.epoch = epoch
        self.closed = False
        self.continuity = Continuity(lambda topic: start(topic, number))
        self._rows = rows
        self._codecs = codecs
        self._outbox = outbox
        self._states: dict[str, KeyedStates[Any]] = {}
        self._notes: list[Any] = []

    def states(self, agent: str) -> KeyedStates[Any]:
        """The agent's keyed state in this partition."""
        found = self._states.get(agent)
        if found is None:
            found = KeyedStates(agent, self.number, self._codecs[agent], self._rows.view(self.number, agent))
            self._states[agent] = found
        return found

    def publish(self, topic: str, key: str, value: bytes) -> None:
        """Send an output to this partition of a topic; the next checkpoint waits for the broker to have it.

        This never gives the event loop away: between a change of state and the sending of what it puts out no
        checkpoint may freeze, or a crash would lose the output.
        """
        if not self.closed:
            self._outbox.put(topic, self.number, key.encode(), value)

    def publish_all(self, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
        """The same of many outputs (key, value)."""
        if not self.closed:
            self._outbox.put_all(topic, self.number, [(key.encode(), value) for key, value in records])

    def note(self, event: Any) -> None:
        """Say that the batch is in the state; it is acked at the next checkpoint. For a closed partition: nothing."""
        if not self.closed:
            self._notes.append(event)

    def freeze(self, agent: str | None = None) -> list[Frozen]:
        """Encode what changed, of one agent or of all."""
        chosen = [self._states[agent]] if agent else list(self._states.values())
        return [states.freeze(self.epoch) for states in chosen]

    def written(self, frozen: Frozen) -> None:
        """Say that the broker has the rows."""
        self._states[frozen.agent].written(frozen)

    def take_notes(self) -> list[Any]:
        taken, self._notes = self._notes, []
        return taken

    def close(self) -> None:
        """Nothing of this object may reach the broker any more."""
        self.closed = True
        for states in self._states.values():
            states.closed = True
        self._notes.clear()


class Checkpointer:
    """The partitions that this worker owns, and the writing of their state."""

    def __init__(self, rows: Callable[[], Rows], changelog: Callable[[], str], outbox: Sender,
                 ack: Callable[[Any], None], commit: Callable[[], Awaitable[Any]],
                 written: Callable[[int, int], None] = lambda partition, offset: None,
                 start: Callable[[str, int], int | None] = lambda topic, partition: None) -> None:
        self._start = start
        self._rows = rows
        self._changelog = changelog
        self.outbox = outbox
        self._ack = ack
        self._commit = commit
        self._written = written
        self._codecs: dict[str, Codec[Any]] = {}
        self._held_back: list[Callable[[Partition], None]] = []
        self._lock = asyncio.Lock()
        self.partitions: dict[int, Partition] = {}
        self.last_success = time.monotonic()
        self.held_seconds = 0.0         # how long the last checkpoint held the event loop

    def register(self, agent: str, codec: Codec[Any]) -> None:
        """Declare an agent's state."""
        self._codecs[agent] = codec

    def before(self, send: Callable[[Partition], None]) -> None:
        """Declare how an agent sends the outputs that it holds back: no row may say that they were."""
        self._held_back.append(send)

    def open(self, numbers: set[int]) -> None:
        """Take over partitions whose rows have been restored. Each gets an epoch later than any row's."""
        for number in sorted(numbers - set(self.partitions)):
            epoch = self._rows().epoch(number) + 1
            self.partitions[number] = Partition(number, epoch, self._rows(), self._codecs, self.outbox, self._start)
            logger.info("partition.opened", partition=number, epoch=epoch)
        metrics.PARTITIONS.set(len(self.partitions))

    def close(self) -> None:
        """Let all partitions go; what was not written is read again by whoever owns them next."""
        for partition in self.partitions.values():
            partition.close()
        self.partitions.clear()
        metrics.PARTITIONS.set(0)

    async def checkpoint(self) -> None:
        """Write everything that changed, then ack and commit what it includes."""
        async with self._lock:
            started = time.perf_counter()
            frozen, notes = await self._freeze()
            await self.outbox.sent()
            await self._write(frozen)
            if self._acked(notes):
                await self._commit()
            self._report([item for _, item in frozen], started)

    async def _freeze(self) -> tuple[list[tuple[Partition, Frozen]], list[tuple[Partition, list[Any]]]]:
        """What changed, and the batches that it includes. Partitions are apart, so others run between them."""
        frozen, notes = [], []
        self.held_seconds = 0.0
        for partition in list(self.partitions.values()):
            started = time.perf_counter()
            for send in self._held_back:
                send(partition)
            frozen += [(partition, item) for item in partition.freeze()]
            notes.append((partition, partition.take_notes()))
            held = time.perf_counter() - started
            self.held_seconds += held
            metrics.SNAPSHOT_FREEZE_SECONDS.observe(held)
            await asyncio.sleep(0)
        return frozen, notes

    async def persist(self, agent: str, partition: Partition) -> None:
        """Write one agent's changes in one partition at once, without acking anything."""
        async with self._lock:
            if not partition.closed:
                frozen = [(partition, item) for item in partition.freeze(agent)]
                await self.outbox.sent()
                await self._write(frozen)

    async def _write(self, frozen: list[tuple[Partition, Frozen]]) -> None:
        topic = self._changelog()
        for partition, item in frozen:
            if partition.closed:        # perhaps with outputs unsent: its rows must not say that they were
                continue
            self.outbox.put_all(topic, item.partition,
                                [(changelog_key(item.agent, key), data) for key, data in item.puts])
            for key in item.deletes:
                self.outbox.put(topic, item.partition, changelog_key(item.agent, key), None,
                                epoch_header(partition.epoch))
        ends = await self.outbox.sent()
        for partition in dict.fromkeys(partition for partition, _ in frozen):
            end = ends.get((topic, partition.number))
            if end is not None and not partition.closed:
                self._written(partition.number, end)
        for partition, item in frozen:
            partition.written(item)

    def _acked(self, notes: list[tuple[Partition, list[Any]]]) -> bool:
        """Ack what still is this worker's to ack; True if there was any."""
        ours = [note for partition, noted in notes if not partition.closed for note in noted]
        for note in ours:
            self._ack(note)
        return bool(ours)

    def _report(self, frozen: list[Frozen], started: float) -> None:
        self.last_success = time.monotonic()
        metrics.SNAPSHOT_SECONDS.observe(time.perf_counter() - started)
        metrics.SNAPSHOT_BYTES.set(sum(item.size_bytes for item in frozen))
        metrics.SNAPSHOT_ROWS.set(sum(len(item.puts) + len(item.deletes) for item in frozen))
