"""What a running `streamgauge up` leaves in its data folder, so that other commands find its services."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streams.settings import PREFIX, Settings, settings

FILE = "running.json"
SERVICES = tuple(f"{PREFIX}{name}" for name in ("KAFKA_URL", "REDIS_URL", "DATABASE_URL"))


@contextmanager
def told(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Keep the environment variables in the folder (mode 0600: they hold a password) for as long as this lasts."""
    path, part = folder / FILE, folder / f"{FILE}.part"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(dict(environment), out)
    part.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def found(folder: Path) -> dict[str, str]:
    """The variables of the run that holds the folder now; empty if none does."""
    if not _held(folder / "lock"):
        return {}
    with contextlib.suppress(OSError, ValueError):
        read = json.loads((folder / FILE).read_text())
        return {str(name): str(value) for name, value in read.items()}
    return {}


def join() -> None:
    """Point this process at the services of a running `up`, unless its own settings name others."""
    variables = found(Settings().data_dir)
    if any(os.environ.get(name) and os.environ[name] != variables.get(name) for name in SERVICES):
        return
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    settings.cache_clear()


def _held(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
