"""Which partition of `metric_windows`, or `level_windows`, a window belongs to, and how long it is kept.

A partition holds the windows of one size that begin in one span: a day of UTC, or 32 days (from 1970 on) where windows
last an hour or more. So a partition has at most 86,400 windows of a series, and goes as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
#: From this size on a partition spans `_LONG`.
_LONG_FROM_MS = 3_600_000
_LONG = 32 * _DAY
#: A longer retention is the same as this one: for ever.
LONGEST_DAYS = 500_000


class Span(NamedTuple):
    """A partition: the windows of `size_ms` that begin in [begin_at, end_at)."""

    size_ms: int
    begin_at: datetime

    @property
    def end_at(self) -> datetime:
        return self.begin_at + length(self.size_ms)

    def table(self, of: str) -> str:
        """Its name, as a partition of that table."""
        return f"{of}_{self.size_ms}_{self.begin_at:%Y%m%d}"


def length(size_ms: int) -> timedelta:
    """How long a partition of windows of this size spans."""
    return _DAY if size_ms < _LONG_FROM_MS else _LONG


def span(size_ms: int, start_at: datetime) -> Span:
    """The partition of a window."""
    step = length(size_ms)
    return Span(size_ms, _EPOCH + (start_at - _EPOCH) // step * step)


class Retention(NamedTuple):
    """Days of history: of messages and of windows, unless the size has its own."""

    days: int
    of_size_ms: Mapping[int, int] = {}

    def of(self, size_ms: int) -> timedelta:
        """How long windows of a size are kept."""
        return timedelta(days=min(self.of_size_ms.get(size_ms, self.days), LONGEST_DAYS))

    @property
    def of_messages(self) -> timedelta:
        return timedelta(days=min(self.days, LONGEST_DAYS))
