"""A Faust table store for snapshot rows: in memory, by partition and agent, and fenced.

Faust applies a changelog in log order, so that the last write wins. A worker that was cut off (paused, or parted from
the network) may still write after a new owner took its partition; its rows carry an older epoch and lose here.

Register: entry point group `faust.stores`, scheme `fenced`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from faust.stores import base
from faust.types import TP, EventT

from streams.state import row as rows

SEPARATOR = "\x00"
EPOCH_HEADER = "epoch"


def changelog_key(agent: str, key: str) -> bytes:
    """The key of a row in the changelog."""
    return f"{agent}{SEPARATOR}{key}".encode()


def epoch_header(epoch: int) -> dict[str, bytes]:
    """Headers of a deletion, which has no row to say its epoch."""
    return {EPOCH_HEADER: str(epoch).encode()}


def _epoch(message: Any) -> int:
    if message.value is not None:
        return rows.epoch_and_fence(message.value)[0]
    return int(dict(message.headers or {}).get(EPOCH_HEADER, b"0"))


class Rows:
    """Snapshot rows: partition -> agent -> key -> bytes."""

    def __init__(self) -> None:
        self.partitions: dict[int, dict[str, dict[str, bytes]]] = defaultdict(lambda: defaultdict(dict))
        self.stale = 0

    def view(self, partition: int, agent: str) -> dict[str, bytes]:
        """The rows of one agent in one partition; live, not a copy."""
        return self.partitions[partition][agent]

    def apply(self, partition: int, key: bytes, value: bytes | None, epoch: int) -> None:
        """Take in one changelog record of an epoch, unless the row that is there has a later one."""
        agent, _, name = key.decode().partition(SEPARATOR)
        view = self.view(partition, agent)
        have = view.get(name)
        if have is not None and rows.epoch_and_fence(have)[0] > epoch:
            self.stale += 1
        elif value is None:
            view.pop(name, None)
        else:
            view[name] = value

    def epoch(self, partition: int) -> int:
        """The latest epoch that wrote to the partition; 0 if none did."""
        return max((rows.epoch_and_fence(data)[0] for view in self.partitions[partition].values()
                    for data in view.values()), default=0)

    def forget(self, partition: int) -> None:
        """Drop the rows of a partition that went to another worker."""
        self.partitions.pop(partition, None)

    def __len__(self) -> int:
        return sum(len(view) for agents in self.partitions.values() for view in agents.values())


class Store(base.Store):
    """The store behind the `snapshots` table."""

    def __post_init__(self) -> None:
        self.rows = Rows()
        self._offsets: dict[TP, int] = {}

    def apply_changelog_batch(self, batch: Iterable[EventT], to_key: Callable[[Any], Any],
                              to_value: Callable[[Any], Any]) -> None:
        """Rows read back from the changelog."""
        for event in batch:
            message = event.message
            self.rows.apply(message.partition, message.key, message.value, _epoch(message))

    def persisted_offset(self, tp: TP) -> int | None:
        """The last changelog offset that the rows include, while the partition is ours."""
        return self._offsets.get(tp)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Remember an offset that we wrote ourselves, so that a rebalance does not read it back."""
        self._offsets[tp] = max(offset, self._offsets.get(tp, -1))

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP],
                           generation_id: int = 0) -> None:
        """Forget what went away: another worker writes it from now on."""
        topic = self.table.changelog_topic_name
        for tp in revoked:
            if tp.topic == topic:
                self.rows.forget(tp.partition)
                self._offsets.pop(tp, None)

    def reset_state(self) -> None:
        """Nothing is kept on disk."""

    async def backup_partition(self, tp: Any, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Nothing is kept on disk; the changelog is the backup."""

    def restore_backup(self, tp: Any, latest: bool = True, backup_id: int = 0) -> None:
        """Nothing is kept on disk; the changelog is the backup."""

    def __getitem__(self, key: bytes) -> bytes:
        raise KeyError(key)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise NotImplementedError("write rows through streams.state.checkpoint, which fences them")

    def __delitem__(self, key: bytes) -> None:
        raise NotImplementedError("delete rows through streams.state.checkpoint")

    def __iter__(self) -> Iterator[bytes]:
        return iter(changelog_key(agent, key) for agents in self.rows.partitions.values()
                    for agent, view in agents.items() for key in view)

    def __len__(self) -> int:
        return len(self.rows)

    def _clear(self) -> None:
        self.rows = Rows()
