"""How long nothing has come, as a worker that looks now and then can know it."""

from __future__ import annotations


class IdleClock:
    """Runs only while the worker does: records that came while it stood still have yet to be fetched.

    A process that was halted, swapped out or starved finds seconds gone by at once, and a wall clock may be set;
    windows must not close by that with their events still waiting. To be looked at about every `step_ms`.
    """

    def __init__(self, step_ms: int) -> None:
        self.now_ms = step_ms
        self._step_ms = step_ms
        self._looked_ms: int | None = None

    def looked(self, monotonic_ms: int) -> int:
        """The time now. More than two steps since the last look count as one."""
        gone_ms = 0 if self._looked_ms is None else monotonic_ms - self._looked_ms
        self._looked_ms = monotonic_ms
        self.now_ms += gone_ms if gone_ms <= 2 * self._step_ms else self._step_ms
        return self.now_ms
