"""Python's garbage collector, for a process that keeps millions of objects and makes next to no cycles.

The collector looks through what is new, and then again and again through what has stayed, which was a tenth of a
worker's time with 10,000 models, in pauses. Here what has outlived one look is set aside (`gc.freeze`). Reference
counts free it as ever; only cycles of it would stay. So now and then it is counted, and if there is twice as much as
after the last look through everything, everything is looked through.
"""

from __future__ import annotations

import gc
from typing import Any

#: New objects after which Python looks through them for cycles; and how many such looks until older ones have a turn,
#: of which there are next to none.
THRESHOLDS = 50_000, 20, 50
GROWTH = 2.0
#: Seconds between two countings, which take some milliseconds a million objects.
SECONDS = 60.0


class Garbage:
    """The collector of this process, from the end of its start on."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(_set_aside)
        self._kept = gc.get_freeze_count()

    def look(self) -> int:
        """Look through everything, if there is much more of it than the last time; how many objects that has freed."""
        if gc.get_freeze_count() < GROWTH * self._kept:
            return 0
        gc.unfreeze()
        freed = gc.collect()
        self._kept = gc.get_freeze_count()
        return freed


def _set_aside(phase: str, _: dict[str, Any]) -> None:
    """Called by the collector before and after a look."""
    if phase == "stop":
        gc.freeze()
