"""How many events a key has a day, by their own time: what a budget of false alarms is shared out over."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000.0
#: Rows after which the pace is measured, and the weight of a measurement.
EVERY, WEIGHT = 256, 1 / 16
#: The shares of rows that may be alarms at most, and at least.
MOST, LEAST = 0.01, 1e-9
_LAYOUT = struct.Struct("<q3d")


@dataclass(slots=True)
class Pace:
    """Milliseconds between two events of a key: an exponential mean over measurements of 256 rows each.

    A function of the log alone: time is the newest event's so far, and `parts` says where it is measured.
    """

    rows: int = 0
    newest_ms: float = 0.0
    #: The newest event's time when the pace was measured last.
    since_ms: float = 0.0
    between_ms: float = 0.0

    def parts(self, n: int) -> list[slice]:
        """n rows, cut where the pace is measured."""
        starts = [0, *range(EVERY - self.rows % EVERY, n, EVERY)] if n else []
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n], strict=True)]

    def note(self, ts_ms: NDArray[np.int64]) -> bool:
        """Take in the times (n,) of a part, n >= 1; True if the pace was measured anew."""
        if not self.rows:
            self.newest_ms = self.since_ms = float(ts_ms[0])
        self.rows += len(ts_ms)
        self.newest_ms = max(self.newest_ms, float(ts_ms.max()))
        if self.rows % EVERY:
            return False
        between = (self.newest_ms - self.since_ms) / EVERY
        self.between_ms += (between - self.between_ms) * (WEIGHT if self.between_ms else 1.0)
        self.since_ms = self.newest_ms
        return True

    def share(self, budget: float) -> float:
        """The share of rows that may be false alarms, for `budget` of them a day."""
        return min(MOST, max(LEAST, budget * self.between_ms / DAY_MS))

    def encode(self) -> bytes:
        """rows (int64), newest, since and between (float64, ms)."""
        return _LAYOUT.pack(self.rows, self.newest_ms, self.since_ms, self.between_ms)

    @classmethod
    def decode(cls, data: bytes) -> tuple[Self, bytes]:
        """The pace in the first bytes, and the rest of them.

        Raises:
            ValueError: cut short.
        """
        if len(data) < _LAYOUT.size:
            raise ValueError("the snapshot is cut short")
        return cls(*_LAYOUT.unpack_from(data)), data[_LAYOUT.size:]
