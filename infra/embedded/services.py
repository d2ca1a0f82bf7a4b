"""The services that the settings leave open, started together in one data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.embedded.broker import TansuBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.process import EmbeddedError, Service, check_disk, disk_error
from infra.embedded.valkey import ValkeyServer
from streams.settings import PREFIX, Settings


class AlreadyRunningError(EmbeddedError):
    code = "already_running"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder, so that one run at a time uses it.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    check_disk(folder)
    path = folder / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode() or "unknown"
            raise AlreadyRunningError(
                f"Streamgauge already runs in {folder} (process {holder}); stop it with Ctrl-C there, or set "
                "STREAMGAUGE_DATA_DIR to another folder.") from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def embedded(settings: Settings, started: list[Service] | None = None) -> Iterator[dict[str, str]]:
    """Start what the settings leave open; yields the environment variables that point at all of it.

    What was started is put into `started`, for those who want to see whether it still runs.

    Raises:
        EmbeddedError: something cannot run here; whatever had started is stopped.
    """
    folder, logs = settings.data_dir, settings.data_dir / "logs"
    wanted: dict[str, Service] = {}
    if not settings.kafka_url:
        wanted["KAFKA_URL"] = TansuBroker(folder / "broker", log=logs / "broker.log")
    if not settings.redis_url.get_secret_value():
        wanted["REDIS_URL"] = ValkeyServer(folder / "valkey", log=logs / "valkey.log", keep=bool(settings.kafka_url))
    if not settings.database_url.get_secret_value():
        wanted["DATABASE_URL"] = PostgresServer(folder / "postgres", log=logs / "postgres.log")
    with ExitStack() as stack:
        for service in wanted.values():     # in this thread: a child dies with the thread that started it
            stack.callback(service.stop)
            service.launch()
        for service in wanted.values():
            service.wait()
        if started is not None:
            started.extend(wanted.values())
        environment = {f"{PREFIX}{name}": service.url for name, service in wanted.items()}
        given = {"KAFKA_URL": settings.kafka_url, "REDIS_URL": settings.redis_url.get_secret_value(),
                 "DATABASE_URL": settings.database_url.get_secret_value()}
        yield {f"{PREFIX}{name}": value for name, value in given.items() if value} | environment
