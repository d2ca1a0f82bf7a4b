"""What kernels share, compiled: numbers brought into bounds, random ones, the score of columns together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
CountArray = NDArray[np.int64]
#: Of columns, of which there are 256 at most.
ColumnArray = NDArray[np.uint8]
#: Of rows of a window.
MassArray = NDArray[np.unsignedinteger[Any]]

LARGEST = 1e100
#: Times lie within +-NO_TIME ms; as a state it says that there was none yet.
NO_TIME = -(2 ** 60)
DAY_MS = 86_400_000
#: 1 - exp(-36) is still below 1.
MOST_ROOT = 36.0


@bare
def clamp(rows: FloatArray) -> None:
    """Bring values to +-1e100, in place, so that no difference of two overflows."""
    flat = rows.reshape(-1)
    for i in range(flat.size):
        if flat[i] > LARGEST:
            flat[i] = LARGEST
        elif flat[i] < -LARGEST:
            flat[i] = -LARGEST


@bare
def draw(state: NDArray[np.uint64]) -> float:
    """A uniform number in [0, 1): splitmix64 (Steele, Lea, Flood, OOPSLA 2014), the same on every platform."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 2.0 ** -53


@bare
def score_of(columns: FloatArray) -> float:
    """1 - exp(-r) of the root mean square r of the columns' scores (k,), NaN where missing; in [0, 1)."""
    total, found = 0.0, 0
    for f in range(columns.size):
        if columns[f] == columns[f]:
            total += columns[f] ** 2
            found += 1
    return float(-np.expm1(-min(np.sqrt(total / found), MOST_ROOT))) if found else 0.0
