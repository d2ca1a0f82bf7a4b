"""Every agent gets every record of a partition: checked by offsets, not trusted to the client before it.

A client that drops fetched records (in a rebalance, say) and goes on behind them makes a hole that no commit shows. So
each agent's batches must follow on one another, from the committed offset on; at a hole the log is read again from
where it begins. Offsets that the log itself does not have (compacted, transaction markers, older than the topic keeps)
are no hole: a batch says from where it was fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from streams.records import RecordBatch

#: Batches that are left while a seek is under way; then what it fetched was dropped too, and it is repeated.
MOST_LEFT = 32


class Verdict(Enum):
    """What to do with a batch."""

    TAKE = "take"
    SEEK = "seek"       #: leave it, and read the topic again from `seek_to`
    LEAVE = "leave"     #: such a seek is under way; it comes again


class Continuity:
    """The offsets that the agents of one partition expect.

    Args:
        start: Topic -> the offset at which this owner began to read; None if unknown.
    """

    def __init__(self, start: Callable[[str], int | None]) -> None:
        self._start = start
        self._next: dict[tuple[str, str], int] = {}
        self._seeking: dict[str, int] = {}
        self._left = 0

    def check(self, agent: str, batch: RecordBatch) -> Verdict:
        """The verdict on an agent's next batch."""
        at = (agent, batch.topic)
        expected = self._next.get(at, self._start(batch.topic))
        if batch.fetched_from <= self._seeking.get(batch.topic, -1):
            del self._seeking[batch.topic]
        if expected is not None and batch.fetched_from > expected:
            return self._hole(batch.topic, expected)
        self._next[at] = max(expected or 0, batch.last_offset + 1)
        return Verdict.TAKE

    def seek_to(self, topic: str) -> int:
        """Where to read again from: what the agent that is furthest behind expects."""
        return self._seeking[topic]

    def _hole(self, topic: str, expected: int) -> Verdict:
        self._left += 1
        if self._seeking.get(topic, expected + 1) <= expected and self._left < MOST_LEFT:
            return Verdict.LEAVE
        self._left = 0
        self._seeking[topic] = min([expected, *(offset for (_, name), offset in self._next.items() if name == topic)])
        return Verdict.SEEK
