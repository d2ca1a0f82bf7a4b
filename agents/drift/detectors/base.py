"""What every change detector is: values in, one by one, and the moments at which it is sure of a change.

Detectors are watched by benchmarks and by `agents.drift.memory`; which of them a drift event rests on is a matter of
`agents.drift.watch`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
#: errors: 0 or 1, a rise is the change. shares: within [0, 1]. values: any finite number.
Domain = Literal["errors", "shares", "values"]


class Detector(Protocol):
    """A change detector over one series.

    After an alarm it begins anew with the next value, as River's do. Invariants: the same values give the same alarms,
    however they are cut into calls and wherever it was encoded and decoded.
    """

    name: str
    domain: Domain

    @property
    def width(self) -> int:
        """How many of the latest values belong to the new level; of use right after an alarm."""
        ...

    def update(self, value: float) -> bool:
        """Take in one value; True if it makes a change certain."""
        ...

    def update_many(self, values: FloatArray) -> IntArray:
        """Take in values (n,); the indices of those that made a change certain, ascending."""
        ...

    def encode(self) -> bytes:
        """All that it remembers."""
        ...

    def restore(self, data: bytes) -> None:
        """Go on from what another of the same parameters had encoded.

        Raises:
            ValueError: the bytes are damaged, or those of another detector.
        """
        ...
