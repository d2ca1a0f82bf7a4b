"""History: what is written twice is there once, what is old goes, what cannot be stored is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from stores_world import DAY, a_drift, a_request, a_window, an_alert, an_anomaly, database, summary

from streams.settings import Settings
from streams.stores.history import History, jsonb
from streams.stores.postgres import REFUSED, connect, moment
from streams.stores.sinks import retention
from streams.stores.spans import Retention, span
from streams.windows.levels import LevelHead, read_level
from streams.windows.packed import unpacked

DAYS_MS = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now: datetime = moment(DAY)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    found = await connect(Settings(database_url=await database(postgres_url)))
    yield found
    await found.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(pool: asyncpg.Pool, clock: Clock) -> History:
    return History(pool, Retention(30, {1_000: 2}), clock)


async def rows(pool: asyncpg.Pool, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch(query)]


async def partitions(pool: asyncpg.Pool) -> list[str]:
    return [name for (name,) in await rows(pool, "SELECT inhrelid::regclass::text FROM pg_inherits "
                                                 "WHERE inhparent = 'metric_windows'::regclass ORDER BY 1")]


async def test_a_window_gives_way_to_a_larger_count_only(pool: asyncpg.Pool, history: History) -> None:
    await history.windows([a_window(count=5, errors=1)])
    await history.windows([a_window(count=4), a_window(count=3, revision=9)])
    assert await rows(pool, "SELECT count, errors, revision FROM metric_windows") == [(5, 1, 0)]
    await history.windows([a_window(count=7, errors=2, revision=1), a_window(count=6)])
    assert await rows(pool, "SELECT count, errors, revision FROM metric_windows") == [(7, 2, 1)]
    (body,) = await rows(pool, "SELECT fields FROM metric_windows")
    assert json.loads(unpacked(body[0]))["latency_ms"] == json.loads(msgspec.json.encode(summary(*[20.0] * 7)))


async def test_windows_of_several_days_partitions_and_sizes_are_apart(pool: asyncpg.Pool, history: History) -> None:
    await history.windows([a_window(DAY), a_window(DAY + DAYS_MS), a_window(DAY, partition=1),
                           a_window(DAY, size_ms=1_000), a_window(DAY - 1_000, size_ms=1_000)])
    assert await partitions(pool) == ["metric_windows_1000_20260430", "metric_windows_1000_20260501",
                                      "metric_windows_60000_20260501", "metric_windows_60000_20260502"]
    assert await rows(pool, "SELECT count(*) FROM metric_windows") == [(5,)]


async def test_of_one_count_the_later_revision_is_newer(pool: asyncpg.Pool, history: History) -> None:
    await history.windows([a_window(count=5, revision=2, errors=2)])
    await history.windows([a_window(count=5, revision=1, errors=1)])
    assert await rows(pool, "SELECT errors, revision FROM metric_windows") == [(2, 2)]


async def test_long_windows_share_a_partition_and_short_ones_go_first(pool: asyncpg.Pool, history: History,
                                                                     clock: Clock) -> None:
    begin = 1_776_902_400_000 - 1_776_902_400_000 % (32 * DAYS_MS)      # of 32 days from 1970 on
    await history.windows([a_window(begin, size_ms=3_600_000), a_window(begin + 31 * DAYS_MS, size_ms=3_600_000),
                           a_window(begin + 31 * DAYS_MS, size_ms=1_000)])
    assert span(3_600_000, moment(begin)) == span(3_600_000, moment(begin + 32 * DAYS_MS - 1))
    assert len(await partitions(pool)) == 2
    clock.now = moment(begin + 34 * DAYS_MS)
    await history.drop_old()
    assert [name.split("_")[2] for name in await partitions(pool)] == ["3600000"]


async def test_each_series_is_noted_with_its_first_and_last_window(pool: asyncpg.Pool, history: History,
                                                                   clock: Clock) -> None:
    await history.windows([a_window(DAY + 60_000), a_window(DAY), a_window(DAY, version="4", partition=1)])
    await history.windows([a_window(DAY - 60_000), a_window(DAY, size_ms=1_000)])
    found = "SELECT version, partition, size_ms, first_at, end_at FROM metric_series ORDER BY 1, 2, 3"
    assert await rows(pool, found) == [
        ("3", 0, 1_000, moment(DAY), moment(DAY + 1_000)),
        ("3", 0, 60_000, moment(DAY - 60_000), moment(DAY + 120_000)),
        ("4", 1, 60_000, moment(DAY), moment(DAY + 60_000))]
    await pool.execute("UPDATE metric_series SET written_at = end_at")
    clock.now = moment(DAY + 10 * DAYS_MS)
    await history.drop_old()
    assert {row[2] for row in await rows(pool, found)} == {60_000}


def a_level(start_ms: int, count: int = 2, level: str = "segment", segment: str = "country=PT") -> LevelHead:
    return read_level(msgspec.json.encode({
        "schema_version": 1, "environment": "prod", "model": "churn", "version": "3", "component": "model",
        "window_id": f"{level[0]}-{len(segment)}-{start_ms}", "start_ms": start_ms, "size_ms": 60_000, "partition": 0,
        "count": count, "errors": 0, "closed_ms": start_ms, "level": level, "segment": segment, "fields": {}}))


async def test_windows_of_levels_are_kept_and_dropped_as_those_of_series_beside_them(
        pool: asyncpg.Pool, history: History, clock: Clock) -> None:
    await history.windows([a_window(DAY)])
    await history.levels([a_level(DAY, 3), a_level(DAY, 5), a_level(DAY, 4), a_level(DAY, level="labels", segment=""),
                          a_level(DAY + 20 * DAYS_MS, segment="country=a\0b")])
    counts = "SELECT level, segment, count FROM level_windows ORDER BY start_at, level"
    assert await rows(pool, counts) == [("labels", "", 2), ("segment", "country=PT", 5),
                                        ("segment", "country=a\ufffdb", 2)]
    assert await rows(pool, "SELECT count(*) FROM metric_windows") == [(1,)]
    await pool.execute("UPDATE level_series SET written_at = end_at")
    clock.now = moment(DAY + 31 * DAYS_MS + 1)
    await history.drop_old()
    assert await rows(pool, counts) == [("segment", "country=a\ufffdb", 2)]
    assert await rows(pool, "SELECT segment FROM level_series") == [("country=a\ufffdb",)]
    assert await partitions(pool) == []


async def test_everything_else_is_written_once_by_its_id(pool: asyncpg.Pool, history: History) -> None:
    for _ in range(2):
        await history.anomalies([an_anomaly(1), an_anomaly(2), an_anomaly(1)])
        await history.drift([a_drift(1)])
        await history.alerts([an_alert(1), an_alert(1, alert_id="alert-1b", state="resolved")])
        await history.requests([a_request(1)])
    found = await rows(pool, "SELECT (SELECT count(*) FROM anomalies), (SELECT count(*) FROM drift_events), "
                             "(SELECT count(*) FROM alerts), (SELECT count(*) FROM retraining_requests)")
    assert found == [(2, 1, 2, 1)]
    (body,) = await rows(pool, "SELECT body FROM alerts WHERE alert_id = 'alert-1'")
    assert json.loads(body[0]) == json.loads(an_alert(1).model_dump_json())


async def test_two_writers_with_the_same_records_neither_wait_for_ever_nor_double(pool: asyncpg.Pool,
                                                                                 history: History) -> None:
    ahead = [a_window(DAY + 60_000 * number) for number in range(200)]
    await asyncio.gather(*(history.windows(part) for part in (ahead, ahead[::-1]) * 4),
                         *(history.anomalies([an_anomaly(n) for n in order]) for order in (range(200),
                                                                                           range(199, -1, -1))))
    assert await rows(pool, "SELECT (SELECT count(*) FROM metric_windows), (SELECT count(*) FROM anomalies)") == [
        (200, 200)]


async def test_days_past_the_retention_go_and_others_stay(pool: asyncpg.Pool, history: History, clock: Clock) -> None:
    await history.windows([a_window(DAY), a_window(DAY + 20 * DAYS_MS)])
    await history.anomalies([an_anomaly(1), an_anomaly(2, ts=DAY + 20 * DAYS_MS)])
    await pool.execute("UPDATE anomalies SET written_at = at")
    clock.now = moment(DAY + 30 * DAYS_MS)
    await history.drop_old()
    assert len(await partitions(pool)) == 2
    clock.now = moment(DAY + 31 * DAYS_MS + 1)
    await history.drop_old()
    assert await partitions(pool) == ["metric_windows_60000_20260521"]
    assert await rows(pool, "SELECT anomaly_id FROM anomalies") == [("anomaly-2",)]


async def test_history_replayed_today_is_kept_as_long_as_todays(pool: asyncpg.Pool, history: History,
                                                                clock: Clock) -> None:
    clock.now = moment(DAY + 4_000 * DAYS_MS)
    await history.windows([a_window(DAY)])
    await history.anomalies([an_anomaly(1)])
    await pool.execute("UPDATE anomalies SET written_at = $1", clock.now)
    clock.now += timedelta(days=29)
    await history.drop_old()
    assert len(await partitions(pool)) == 1
    assert await rows(pool, "SELECT count(*) FROM anomalies") == [(1,)]
    clock.now += timedelta(days=2)
    await history.drop_old()
    assert await partitions(pool) == []
    assert await rows(pool, "SELECT count(*) FROM anomalies") == [(0,)]


async def test_a_day_that_another_process_dropped_is_made_again(pool: asyncpg.Pool, history: History,
                                                                clock: Clock) -> None:
    await history.windows([a_window(DAY)])
    other = Clock()
    other.now = moment(DAY + 40 * DAYS_MS)
    await History(pool, Retention(30), other).drop_old()
    assert await partitions(pool) == []
    await history.windows([a_window(DAY, count=9)])
    assert await rows(pool, "SELECT count FROM metric_windows") == [(9,)]


async def test_an_incident_goes_as_a_whole_and_only_when_it_is_over(pool: asyncpg.Pool, history: History,
                                                                    clock: Clock) -> None:
    await history.alerts([an_alert(1), an_alert(1, alert_id="over", state="resolved", ts=DAY + 35 * DAYS_MS),
                          an_alert(2), an_alert(3), an_alert(3, alert_id="soon", state="resolved", ts=DAY + 9)])
    await pool.execute("UPDATE alerts SET written_at = at")
    clock.now = moment(DAY + 40 * DAYS_MS)
    await history.drop_old()
    assert await rows(pool, "SELECT alert_id FROM alerts ORDER BY 1") == [("alert-1",), ("alert-2",), ("over",)]


async def test_a_retention_of_for_ever_drops_nothing(pool: asyncpg.Pool, clock: Clock) -> None:
    await History(pool, Retention(10**12), clock).drop_old()


@pytest.mark.parametrize("window", [msgspec.structs.replace(a_window(), count=2**63), a_window(errors=2**63),
                                    a_window(size_ms=2**31), a_window(partition=2**31)])
async def test_numbers_that_no_column_holds_are_refused_and_nothing_is_written(pool: asyncpg.Pool, history: History,
                                                                               window: Any) -> None:
    with pytest.raises(REFUSED):
        await history.windows([a_window(DAY + 60_000), window])
    assert await rows(pool, "SELECT count(*) FROM metric_windows") == [(0,)]
    await history.windows([a_window(DAY + 60_000)])
    assert await rows(pool, "SELECT count(*) FROM metric_windows") == [(1,)]


async def test_an_id_with_a_nul_is_refused_and_a_text_with_one_is_kept(pool: asyncpg.Pool, history: History) -> None:
    with pytest.raises(REFUSED):
        await history.alerts([an_alert(1, alert_id="a\x00b")])
    await history.alerts([an_alert(1, title="a\x00b \\u0000 \\\x00")])
    (body,) = await rows(pool, "SELECT body FROM alerts")
    assert json.loads(body[0])["title"] == "a\ufffdb \\u0000 \\\ufffd"


@pytest.mark.parametrize("text", ["\x00", "\x00\x00", "\\u0000", "\\\x00", "\\\\\x00\\u0000\x00", "u0000"])
def test_only_the_character_itself_is_replaced(text: str) -> None:
    assert json.loads(jsonb(json.dumps([text]))) == [text.replace("\x00", "\ufffd")]


def test_retention_is_set_by_granularity() -> None:
    found = retention(Settings(window_retention="1000:2,60000:90", retention_days=30))
    assert [found.of(size).days for size in (1_000, 10_000, 60_000)] == [2, 30, 90]
    assert found.of_messages.days == 30
    assert retention(Settings(window_retention="")).of(1_000).days == 30
    for bad in ("1000", "1000:0", "0:5", "1000:2,", "1000:2;60000:3", "a:b", "1000:-2"):
        with pytest.raises(ValueError, match="MILLISECONDS:DAYS"):
            Settings(window_retention=bad)
