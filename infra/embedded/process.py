"""A child process that is a service: started with a log file, waited for, stopped, and never left behind."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

#: Free space below which nothing is started.
LEAST_FREE_BYTES = 200 * 1024 * 1024
START_SECONDS = 30.0
STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class EmbeddedError(RuntimeError):
    """An embedded service cannot run here; the text is one sentence that says what to do."""

    code = "embedded"
    retriable = False


class MissingWheelError(EmbeddedError):
    code = "missing_wheel"


class PortTakenError(EmbeddedError):
    code = "port_taken"


class DiskFullError(EmbeddedError):
    code = "disk_full"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def check_port(port: int, setting: str) -> None:
    """Raise PortTakenError if somebody listens on the loopback port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTakenError(f"Port {port} is taken by another program; stop it, or set {setting} to another "
                                 "port (0 takes any free one).") from error


def check_disk(folder: Path) -> None:
    """Make the folder, and raise DiskFullError if there is no room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise disk_error(folder, error) from error
    if free < LEAST_FREE_BYTES:
        raise DiskFullError(f"The disk of {folder} has {free // 2**20} MB free and {LEAST_FREE_BYTES // 2**20} MB are "
                            "needed; make room, or set STREAMGAUGE_DATA_DIR to another disk.")


def disk_error(folder: Path, error: OSError) -> EmbeddedError:
    """What an operating-system error about the data folder means to a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"The disk of {folder} is full; make room, or set STREAMGAUGE_DATA_DIR to another disk.")
    return EmbeddedError(f"{folder} cannot be written ({error.strerror}); set STREAMGAUGE_DATA_DIR to another folder.")


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Run in the child before exec: signal it when the parent ends, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


class Service:
    """One child process. Subclasses say the command and how to tell that it answers."""

    name = "service"
    #: What ends the service when its parent is gone.
    death_signal = signal.SIGKILL
    #: What asks it to stop.
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running service."""
        if self.process is None:
            raise EmbeddedError(f"{self.name} is not running.")
        return self.process.pid

    def start(self) -> Self:
        """Start and wait until it answers."""
        raise NotImplementedError

    def spawn(self, command: list[str], answers: Callable[[], bool], environment: Mapping[str, str] | None = None,
              user: str | None = None) -> None:
        """Run the command in a session of its own, and wait until `answers()`.

        Raises:
            EmbeddedError: it ended, or did not answer in time; the text has the end of its log.
        """
        check_disk(self.folder)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env=None if environment is None else dict(environment), user=user,
                preexec_fn=lambda: die_with_parent(self.death_signal))
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self.process.poll() is not None:
                raise EmbeddedError(f"{self.name} ended at once: {self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"{self.name} did not answer within {START_SECONDS:.0f} s: {self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """The last line of its log that says something."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"no log in {self.log}"

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()


def listens(port: int) -> bool:
    """True if something accepts connections on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    """True if a process of that id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
