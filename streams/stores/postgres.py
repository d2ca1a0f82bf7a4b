"""PostgreSQL: connections, and bringing the database to this release's shape."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from streams.settings import Settings

_LOCK = 0x53_67_61_67
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"(\d{4})_\w+\.sql")

#: What a store raises for the content of a record: trying it again would change nothing.
REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError,
           ValueError, OverflowError, TypeError)


class MigrationError(RuntimeError):
    """The database cannot be brought to this release's shape; the text says why."""

    code = "migration"
    retriable = False


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def moment(timestamp_ms: int) -> datetime:
    """Epoch milliseconds as a datetime, exactly."""
    return _EPOCH + timedelta(milliseconds=timestamp_ms)


def epoch_ms(at: datetime) -> int:
    """The inverse of `moment`."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


async def connect(settings: Settings, most: int = 4, command_seconds: float = COMMAND_SECONDS) -> asyncpg.Pool:
    """A pool of connections; JSON columns come and go as text."""
    return await asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=most,
                                     timeout=CONNECT_SECONDS, command_timeout=command_seconds)


def migrations(folder: Path) -> list[Migration]:
    """The folder's SQL files in order.

    Raises:
        MigrationError: a file's name has no number, or two have the same.
    """
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: name it with four digits, as 0002_what_it_does.sql")
        if match[1] in found:
            raise MigrationError(f"{found[match[1]].name} and {path.name} have the same number; raise the newer one's")
        found[match[1]] = Migration(path.name, path.read_text(encoding="utf-8"))
    return list(found.values())


async def migrate(settings: Settings, folder: Path) -> list[str]:
    """Apply, in order, the SQL files of the folder that have not been applied; returns their names.

    Processes that do so at the same time wait for one another; a file that fails leaves nothing of itself behind.

    Raises:
        MigrationError: a file that was applied has changed since, or a new one belongs before it.
    """
    files = migrations(folder)
    connection = await asyncpg.connect(settings.database_url.get_secret_value(), timeout=CONNECT_SECONDS)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations "
                                 "(name text PRIMARY KEY, checksum text NOT NULL, at timestamptz DEFAULT now())")
        rows = await connection.fetch("SELECT name, checksum FROM migrations")
        new = _missing(files, {row["name"]: row["checksum"] for row in rows})
        for file in new:
            async with connection.transaction():
                await connection.execute(file.text)
                await connection.execute("INSERT INTO migrations VALUES ($1, $2)", file.name, file.checksum)
        return [file.name for file in new]
    finally:
        await connection.close()


def _missing(files: list[Migration], applied: dict[str, str]) -> list[Migration]:
    for file in files:
        if applied.get(file.name, file.checksum) != file.checksum:
            raise MigrationError(f"{file.name} was applied in another form; restore the file, and put the change into "
                                 "a new one with the next number")
    new = [file for file in files if file.name not in applied]
    if new and applied and new[0].name < max(applied):
        raise MigrationError(f"{new[0].name} comes before {max(applied)}, which is applied; give it the next number")
    return new
