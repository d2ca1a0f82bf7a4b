"""A field over the windows of a group, as groups were written before they had arrays."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.windows.record import joined
from streams.windows.sketch import CODE_BITS, SPAN


class Cell(msgspec.Struct, array_like=True):
    """A field over the windows of a group. `log_n` and `watched_n` count the values that have a logarithm, and those in
    the sum through the lens. Sums of logarithms are of `meant_n` values without a sketch, for which their mean stands.
    Sketches wait as JSON.
    """

    n: int = 0
    missing: int = 0
    mean: float = 0.0
    m2: float = 0.0
    log_n: int = 0
    meant_n: int = 0
    log_sum: float = 0.0
    log_squares: float = 0.0
    watched_n: int = 0
    watched: float = 0.0
    waiting: list[bytes] = []

    def row(self) -> tuple[float, ...]:
        """As `cells` has it."""
        return (self.n, self.missing, self.mean, self.m2, self.log_n, self.meant_n, self.log_sum, self.log_squares,
                self.watched_n, self.watched)


def keys_of(cells: Sequence[Cell]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Buckets of all cells as keys, a cell's place for a slot, and their counts."""
    found = [((row << CODE_BITS) | (code + SPAN), count) for row, cell in enumerate(cells)
             for code, count in joined(cell.waiting) if -SPAN < code < SPAN and count > 0]
    return np.array([key for key, _ in found], np.int32), np.array([count for _, count in found], np.int64)
