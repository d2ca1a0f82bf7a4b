"""Our own processes under `streamgauge up`: started, watched, started again when they end by themselves, stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.embedded.process import Service, reason

FIRST_RESTART_S, LONGEST_RESTART_S = 1.0, 30.0
#: A child that ran for so long begins its pauses anew.
STEADY_S = 60.0


class Child(Service):
    """`streamgauge ARGUMENTS...` in a session of its own. One that ends with 0 is done; another is started again."""

    stop_seconds = 25.0

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], data_dir: Path,
                 page: str = "") -> None:
        self.name = name
        super().__init__(data_dir / "run", log=data_dir / "logs" / f"{name}.log")
        self.arguments = arguments
        self.environment = environment
        #: Where /metrics and /readyz are; empty: nowhere.
        self.page = page
        self.restarts = 0
        self.done = False
        self.due: float | None = None
        self._began = 0.0
        self._was_ready = False
        self._pause = 0.0

    @property
    def mark(self) -> str:
        return "infra.cli.main"

    @property
    def command(self) -> list[str]:
        """What is run; -P keeps the working folder's modules out of the way of ours."""
        return [sys.executable, "-P", "-m", "infra.cli.main", *self.arguments]

    def launch(self) -> None:
        self.spawn(self.command, self.environment, folder=Path.cwd())

    def begin(self, now: float) -> None:
        """Start it; `now` is a monotonic clock's."""
        self.launch()
        self._began, self.due, self._was_ready = now, None, False

    def tend(self, now: float) -> str | None:
        """Note that it has ended, and start it again when its pause is over; a sentence if something happened."""
        if self.due is not None and now >= self.due:
            self.begin(now)
            self.restarts += 1
            return f"{self.name} is started again."
        if self.process is None or self.process.poll() is None:
            return None
        code, self.process = self.process.returncode, None
        if code == 0:
            self.done = True
            return f"{self.name} is done."
        steady = now - self._began >= STEADY_S
        self._pause = FIRST_RESTART_S if steady or not self._pause else min(2 * self._pause, LONGEST_RESTART_S)
        self.due = now + self._pause
        return f"{self.name} ended ({reason(code)}), again in {self._pause:.0f} s: {self.tail()} ({self.log})"

    def state(self, now: float, ready: bool | None) -> str:
        """One word or two for people. `ready` is what its page says, None if it has none or is silent."""
        if self.done:
            return "done"
        if self.due is not None:
            return f"again in {max(0.0, self.due - now):.0f} s"
        if not self.page:
            return "running"
        self._was_ready = self._was_ready or bool(ready)
        return "ready" if ready else "not ready" if self._was_ready else "starting"

    def ask_to_stop(self) -> None:
        """Send the signal and return at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)


def stop_all(children: Iterable[Child]) -> None:
    """Ask all at once, then wait for each."""
    asked = list(children)
    for child in asked:
        child.ask_to_stop()
    for child in asked:
        child.stop()

