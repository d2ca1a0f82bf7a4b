"""Keyed state of one agent in one partition: live objects over their snapshots.

The rules that make a crash harmless:

1. Work on a batch is synchronous: look entries up, skip what `fence` says is included, change state, `touch`.
2. `META` is the partition's own entry (a watermark, say). A checkpoint writes ordinary keys first, `META` next and
   deletions last, in one changelog partition, so that what survives a crash is a prefix: `META` is never newer than
   the keys, and nothing is deleted that the old `META` would create again.
3. The state after a batch depends on the records alone, not on where batches are cut.
4. `snapshots` holds what the broker is known to have: a checkpoint that is given up half-way leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Protocol, TypeVar, runtime_checkable

from streams.state import row as rows

S = TypeVar("S")
T = TypeVar("T", contravariant=True)
META = ""
#: States that are encoded together: more would not stay in a processor's cache.
_TOGETHER = 256


class Codec(Protocol[S]):
    """How an agent makes, writes and reads the state of one key."""

    def new(self, key: str) -> S:
        """The state of a key never seen before."""
        ...

    def encode(self, key: str, state: S) -> bytes: ...

    def decode(self, key: str, data: bytes) -> S: ...


@runtime_checkable
class Together(Protocol[T]):
    """A codec that writes many states at once."""

    def encode_many(self, states: Sequence[T]) -> list[bytes]:
        """As `Codec.encode` of each."""
        ...


@dataclass(slots=True, eq=False)
class Entry(Generic[S]):
    """One key's live state. `fence[topic]` is the last offset of that topic that the state includes."""

    key: str
    state: S
    fence: dict[str, int] = field(default_factory=dict)

    def includes(self, topic: str, offset: int) -> bool:
        """True if the record was already taken in."""
        return offset <= self.fence.get(topic, -1)


class KeyedStates(Generic[S]):
    """All keys of one agent in one partition.

    `snapshots` maps key -> encoded row; it is the table's view of this agent and partition, or a dict in tests.
    """

    def __init__(self, agent: str, partition: int, codec: Codec[S], snapshots: MutableMapping[str, bytes]) -> None:
        self.agent = agent
        self.partition = partition
        self.codec = codec
        self.snapshots = snapshots
        self.live: dict[str, Entry[S]] = {}
        self.dirty: set[str] = set()
        self.dropped: set[str] = set()
        self._released: set[str] = set()
        self._writing: Frozen | None = None
        self.closed = False
        self.returned = 0       # entries made from their snapshots

    def entry(self, key: str) -> Entry[S]:
        """The key's entry: live, else from its snapshot, else new. New entries count once they are touched."""
        entry = self.live.get(key)
        if entry is None:
            data = None if self._is_gone(key) else self.snapshots.get(key)
            if data is None:
                entry = Entry(key, self.codec.new(key))
            else:
                row = rows.decode(data)
                entry = Entry(key, self.codec.decode(key, row.payload), dict(row.fence))
                self.returned += 1
            self.live[key] = entry
        return entry

    def touch(self, entry: Entry[S], topic: str | None = None, offset: int = -1) -> None:
        """Say that the state changed, and now includes `topic` up to `offset`."""
        if topic is not None and offset > entry.fence.get(topic, -1):
            entry.fence[topic] = offset
        self.live.pop(entry.key, None)
        self.live[entry.key] = entry        # last: those touched longest ago come first
        self.dirty.add(entry.key)
        self.dropped.discard(entry.key)

    def entries(self, keys: Sequence[str]) -> list[Entry[S]]:
        """The same as `entry` of each."""
        found = list(map(self.live.get, keys))
        return [entry or self.entry(key) for entry, key in zip(found, keys, strict=True)]

    def touch_all(self, entries: Sequence[Entry[S]], topic: str | None = None, offset: int = -1) -> None:
        """The same as `touch` of each."""
        live, keys = self.live, [entry.key for entry in entries]
        for key, entry in zip(keys, entries, strict=True):
            if topic is not None and offset > entry.fence.get(topic, -1):
                entry.fence[topic] = offset
            live.pop(key, None)
            live[key] = entry
        self.dirty.update(keys)
        self.dropped.difference_update(keys)

    def drop(self, key: str) -> None:
        """Forget a key; its snapshot goes with the next checkpoint."""
        self.live.pop(key, None)
        self.dirty.discard(key)
        if key in self.snapshots or (self._writing and key in self._writing.put_keys):
            self.dropped.add(key)

    def evict(self, key: str) -> bool:
        """Put a clean key back to its snapshot only, to save memory. False if that is older than the state."""
        if key in self.dirty or key not in self.snapshots or (self._writing and key in self._writing.put_keys):
            return False
        return self.live.pop(key, None) is not None

    def release(self, keys: Iterable[str]) -> None:
        """Say that keys are not wanted soon: each is evicted once its snapshot is as new as its state."""
        self._released.update(keys)

    def shrink(self, most: int) -> int:
        """Evict keys, those touched longest ago first, until `most` are live or only changed ones are left.

        Returns how many went.
        """
        gone = 0
        for key in list(self.live):
            if len(self.live) <= most:
                break
            gone += key != META and self.evict(key)
        return gone

    def __contains__(self, key: str) -> bool:
        return key in self.live or (key in self.snapshots and not self._is_gone(key))

    def keys(self) -> Iterator[str]:
        """Every key but META, live or only in its snapshot."""
        yield from (key for key in list(self.live) if key != META)
        yield from (key for key in list(self.snapshots)
                    if key != META and key not in self.live and not self._is_gone(key))

    def _is_gone(self, key: str) -> bool:
        return key in self.dropped or bool(self._writing and key in self._writing.deletes)

    def freeze(self, epoch: int) -> Frozen:
        """Encode what changed since the last freeze, in the order in which it must be written; then call `written`."""
        keys = sorted(self.dirty - {META})
        if META in self.dirty:
            keys.append(META)
        puts = [put for first in range(0, len(keys), _TOGETHER)
                for put in self._encoded(keys[first:first + _TOGETHER], epoch)]
        self._writing = Frozen(self.agent, self.partition, puts, sorted(self.dropped))
        self.dirty.clear()
        self.dropped.clear()
        return self._writing

    def written(self, frozen: Frozen) -> None:
        """Say that the broker has it. Nothing for a closed partition, whose rows another worker may write by now."""
        self._writing = None
        if self.closed:
            return
        self.snapshots.update(frozen.puts)
        for key in frozen.deletes:
            self.snapshots.pop(key, None)
        self._released = {key for key in self._released if not self.evict(key) and key in self.live}

    def _encoded(self, keys: list[str], epoch: int) -> Iterator[tuple[str, bytes]]:
        entries, codec = [self.live[key] for key in keys], self.codec
        if isinstance(codec, Together):
            payloads = codec.encode_many([entry.state for entry in entries])
        else:
            payloads = [codec.encode(entry.key, entry.state) for entry in entries]
        return zip(keys, rows.encoded([entry.fence for entry in entries], payloads, epoch), strict=True)


@dataclass(frozen=True)
class Frozen:
    """What one agent has to write for one partition at a checkpoint: puts in order, then deletes."""

    agent: str
    partition: int
    puts: list[tuple[str, bytes]]
    deletes: list[str]

    @cached_property
    def put_keys(self) -> frozenset[str]:
        return frozenset(key for key, _ in self.puts)

    @property
    def size_bytes(self) -> int:
        return sum(len(data) for _, data in self.puts)
