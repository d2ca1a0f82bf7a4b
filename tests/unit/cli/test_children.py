"""Children of `up`: started again with growing pauses, done when they are done, stopped for good."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import until

from infra.cli.children import LONGEST_RESTART_S, STEADY_S, Child, stop_all
from infra.embedded.process import alive


class Scripted(Child):
    """A child that runs a few lines of Python instead of a command of ours."""

    def __init__(self, folder: Path, script: str, page: str = "") -> None:
        super().__init__("scripted", [], os.environ, folder, page)
        self.script = script

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script]

    def ended(self) -> Scripted:
        assert self.process is not None
        self.process.wait(30)
        return self


def test_a_child_that_crashes_is_started_again_after_pauses_that_grow(tmp_path: Path) -> None:
    child, now, pauses = Scripted(tmp_path, "import sys; print('the weir is dry'); sys.exit(3)"), 0.0, []
    child.begin(now)
    for _ in range(7):
        said = child.ended().tend(now)
        assert said is not None
        assert "exit code 3" in said
        assert "the weir is dry" in said
        assert child.due is not None
        pauses.append(child.due - now)
        assert child.tend(child.due - 0.01) is None, "not before its time"
        now = child.due
        assert child.tend(now) == "scripted is started again."
    assert pauses == [1, 2, 4, 8, 16, LONGEST_RESTART_S, LONGEST_RESTART_S]
    assert child.restarts == 7
    child.stop()


def test_a_child_that_ran_long_begins_its_pauses_anew(tmp_path: Path) -> None:
    child = Scripted(tmp_path, "raise SystemExit(1)")
    child.begin(0.0)
    child.ended().tend(0.0)
    child.tend(1.0)
    child.ended().tend(1.0 + STEADY_S)
    assert child.due == 2.0 + STEADY_S


def test_a_child_that_ends_well_is_done(tmp_path: Path) -> None:
    child = Scripted(tmp_path, "")
    child.begin(0.0)
    assert child.ended().tend(0.0) == "scripted is done."
    assert child.tend(1e9) is None
    assert child.state(1e9, None) == "done"


def test_a_killed_child_is_called_that(tmp_path: Path) -> None:
    child = Scripted(tmp_path, "import os; os.kill(os.getpid(), 9)")
    child.begin(0.0)
    assert "killed by SIGKILL" in str(child.ended().tend(0.0))


def test_its_state_is_told_in_words(tmp_path: Path) -> None:
    child = Scripted(tmp_path, "import time; time.sleep(600)", page="http://127.0.0.1:1")
    child.begin(0.0)
    try:
        assert child.state(1.0, False) == child.state(STEADY_S + 1, False) == "starting"     # it may have to compile
        assert child.state(STEADY_S + 2, True) == "ready"
        assert child.state(STEADY_S + 3, False) == "not ready"
    finally:
        child.stop()
    crashed = Scripted(tmp_path, "raise SystemExit(1)")
    crashed.begin(0.0)
    crashed.ended().tend(0.0)
    assert crashed.state(0.4, None) == "again in 1 s"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_stopping_ends_it_and_what_it_started(tmp_path: Path) -> None:
    script = ("import subprocess, sys, time\n"
              "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
              "print(inner.pid, flush=True); time.sleep(600)")
    child = Scripted(tmp_path, script)
    child.begin(0.0)
    inner = int(until(lambda: child.log.read_text().strip(), 20, "the child has started its own"))
    pid = child.pid
    stop_all([child])
    assert not alive(pid)
    until(lambda: not alive(inner), 10, "what the child started is gone too")
    assert child.tend(1e9) is None, "a child that was stopped is not started again"


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = Scripted(tmp_path, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                               "print('deaf', flush=True); time.sleep(600)")
    child.stop_seconds = 0.2
    child.begin(0.0)
    until(lambda: "deaf" in child.log.read_text(), 20, "the child is deaf")
    pid = child.pid
    child.stop()
    assert not alive(pid)
