"""Migrations: once, in order, by one process at a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from pathlib import Path

import asyncpg
import pytest
from stores_world import database

from infra.migrations import FOLDER
from streams.settings import Settings
from streams.stores.postgres import MigrationError, epoch_ms, migrate, migrations, moment
from streams.stores.spans import span

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def settings(postgres_url: str) -> Settings:
    return Settings(database_url=await database(postgres_url, migrated=False))


async def tables(settings: Settings) -> set[str]:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        return {row["relname"] for row in await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")}
    finally:
        await connection.close()


async def test_every_file_is_applied_once_and_in_order(settings: Settings) -> None:
    names = [path.name for path in sorted(FOLDER.glob("*.sql"))]
    assert await migrate(settings, FOLDER) == names
    assert await migrate(settings, FOLDER) == []
    assert await tables(settings) >= {"metric_windows", "anomalies", "drift_events", "alerts", "retraining_requests"}


async def test_processes_that_migrate_at_once_apply_each_file_once(settings: Settings) -> None:
    done = await asyncio.gather(*(migrate(settings, FOLDER) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, len(list(FOLDER.glob("*.sql")))]


async def test_a_file_that_changed_after_it_was_applied_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "0001_a.sql"
    file.write_text("CREATE TABLE a (n integer)")
    await migrate(settings, tmp_path)
    file.write_text("CREATE TABLE a (n bigint)")
    with pytest.raises(MigrationError, match=r"0001_a\.sql was applied in another form"):
        await migrate(settings, tmp_path)


async def test_a_file_that_fails_leaves_nothing_and_can_be_mended(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (n integer)")
    broken = tmp_path / "0002_b.sql"
    broken.write_text("CREATE TABLE b (n integer); CREATE TABLE a (n integer)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(settings, tmp_path)
    assert await tables(settings) == {"a", "migrations"}
    broken.write_text("CREATE TABLE b (n integer)")
    assert await migrate(settings, tmp_path) == ["0002_b.sql"]


async def test_a_new_file_before_an_applied_one_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "0002_b.sql").write_text("SELECT 1")
    await migrate(settings, tmp_path)
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"0001_a\.sql comes before 0002_b\.sql"):
        await migrate(settings, tmp_path)


@pytest.mark.parametrize(("names", "says"), [
    (["first.sql"], "name it with four digits"), (["0001_a.sql", "0001_b.sql"], "same number")])
def test_names_that_give_no_order_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=says):
        migrations(tmp_path)


def test_instants_survive_the_way_to_the_database_and_back() -> None:
    for timestamp_ms in (0, 1, 999, 1_001, 1_777_593_600_001, 1_777_593_600_123, 32_503_680_000_000):
        assert epoch_ms(moment(timestamp_ms)) == timestamp_ms


def test_the_wheel_has_the_sql_files_and_the_pages(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = [*FOLDER.glob("*.sql"), *(ROOT / "dashboards/api/static").iterdir()]
    assert {str(path.relative_to(ROOT)) for path in wanted} <= held


async def test_windows_of_the_older_shape_are_carried_over(settings: Settings, tmp_path: Path) -> None:
    for path in sorted(FOLDER.glob("000[12]_*.sql")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    await migrate(settings, tmp_path)
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        await connection.execute("""
            CREATE TABLE metric_windows_20260501 PARTITION OF metric_windows
                FOR VALUES FROM ('2026-05-01T00:00:00Z') TO ('2026-05-02T00:00:00Z');
            CREATE TABLE metric_windows_20260502 PARTITION OF metric_windows
                FOR VALUES FROM ('2026-05-02T00:00:00Z') TO ('2026-05-03T00:00:00Z');
            INSERT INTO window_days VALUES ('2026-05-01', '2026-05-03Z'), ('2026-05-02', '2026-05-04Z');
            INSERT INTO metric_windows
            SELECT 'w-' || size || '-' || at, at, size, 'prod', 'churn', '3', 'model', 0, 5, 1, 0, '{}'
            FROM unnest(ARRAY[1000, 60000, 3600000]) size,
                 generate_series('2026-05-01T10:00Z'::timestamptz, '2026-05-02T10:00Z', interval '1 hour') at""")
        await migrate(settings, FOLDER)
        kept = await connection.fetch("SELECT size_ms, count(*) AS n, sum(count) AS events, count(DISTINCT tableoid) "
                                      "AS tables FROM metric_windows GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in kept] == [(1_000, 25, 125, 2), (60_000, 25, 125, 2), (3_600_000, 25, 125, 1)]
        spans = await connection.fetch("SELECT size_ms, begin_at, written_at FROM window_spans ORDER BY 1, 2")
        assert {span(row["size_ms"], row["begin_at"]).begin_at for row in spans} == {row["begin_at"] for row in spans}
        assert len(spans) == 5
        series = await connection.fetch("SELECT size_ms, first_at, end_at FROM metric_series ORDER BY 1")
        assert [(row["size_ms"], (row["end_at"] - row["first_at"]).total_seconds()) for row in series] == [
            (1_000, 86_401), (60_000, 86_460), (3_600_000, 90_000)]
    finally:
        await connection.close()
