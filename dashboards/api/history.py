"""Questions to PostgreSQL. Messages come back as the JSON text they were stored as."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from schemas.base import MAX_TIMESTAMP_MS
from streams.stores.postgres import epoch_ms, moment

Row = dict[str, Any]
#: Seconds until a free connection; then the database counts as away.
ACQUIRE_SECONDS = 5.0

#: The order of an incident's transitions, where their time is one; ours are numbered at the end of their ids.
_ORDER = ("CASE state WHEN 'open' THEN 0 WHEN 'resolved' THEN 2 ELSE 1 END {0}, "
          "substring(alert_id from '[0-9]{{1,15}}$')::bigint {0}")
_INCIDENTS = f"""
WITH newest AS (
  SELECT DISTINCT ON (incident_id) incident_id, at, environment, model, state, severity, body FROM alerts
  ORDER BY incident_id, at DESC, {_ORDER.format("DESC")})
SELECT body FROM newest
WHERE ($1 = '' OR environment = $1) AND ($2 = '' OR model = $2) AND ($3 = '' OR severity = $3)
  AND ($4 = '' OR (state = 'resolved') = ($4 = 'resolved'))
ORDER BY at DESC, incident_id LIMIT $5
"""  # noqa: S608
_WINDOWS = """
WITH wanted AS (
  SELECT start_at, version, component, partition, count, errors,
         CASE WHEN $8 = '' THEN fields ELSE jsonb_build_object($8::text, fields -> $8) END AS fields,
         dense_rank() OVER (ORDER BY start_at, version, component) AS place
  FROM metric_windows
  WHERE environment = $1 AND model = $2 AND size_ms = $3 AND start_at >= $4 AND start_at < $5
    AND ($6 = '' OR version = $6) AND ($7 = '' OR component = $7))
SELECT * FROM wanted WHERE place <= $9 ORDER BY place, partition
"""
_MODELS = """
SELECT environment, model, array_agg(DISTINCT version ORDER BY version) AS versions,
  array_agg(DISTINCT component ORDER BY component) AS components, sum(count) AS events, sum(errors) AS errors,
  max(start_at) AS last_at
FROM metric_windows WHERE size_ms = $1 AND start_at > $2 GROUP BY environment, model ORDER BY environment, model
"""
_COUNTS = """
SELECT (SELECT count(*) FROM anomalies WHERE at > $1) AS anomalies,
       (SELECT count(*) FROM drift_events WHERE at > $1 AND state = 'drifted') AS drifts,
       (SELECT count(*) FROM alerts WHERE at > $1 AND state = 'open') AS incidents,
       (SELECT count(*) FROM retraining_requests WHERE at > $1) AS retraining_requests
"""
#: Tables with a body, and their ids.
IDS = {"anomalies": "anomaly_id", "drift_events": "drift_id", "alerts": "alert_id", "retraining_requests": "request_id"}


class Cursor(NamedTuple):
    """After which row a page begins, newest first: its moment and id."""

    at_ms: int
    id: str

    def encoded(self) -> str:
        """For a header and a query: letters, digits, - and _ only."""
        return base64.urlsafe_b64encode(f"{self.at_ms}:{self.id}".encode()).decode().rstrip("=")


def decoded(text: str) -> Cursor:
    """The cursor that `encoded` made.

    Raises:
        ValueError: it made no such text.
    """
    at, mark, name = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode().partition(":")
    if not (mark and at.isdecimal() and len(at) <= 14 and int(at) <= MAX_TIMESTAMP_MS):
        raise ValueError(text)
    return Cursor(int(at), name)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose messages, and where the page begins."""

    environment: str = ""
    model: str = ""
    before_ms: int = 0
    cursor: Cursor | None = None
    limit: int = 100


class HistoryReader:
    """The reading side of the history."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def ready(self) -> None:
        """Raise if the database does not answer, or was never set up."""
        (row,) = await self._fetch("SELECT to_regclass('window_days') IS NOT NULL AS there")
        if not row["there"]:
            raise LookupError("it has no tables yet: run `streamgauge setup`")

    async def incidents(self, state: str, environment: str, model: str, severity: str, limit: int) -> list[str]:
        """The newest transition of each incident, newest first."""
        return [row["body"] for row in await self._fetch(_INCIDENTS, environment, model, severity, state, limit)]

    async def incident(self, incident_id: str) -> list[str]:
        """Every transition of one incident, oldest first."""
        return [row["body"] for row in await self._fetch(
            f"SELECT body FROM alerts WHERE incident_id = $1 ORDER BY at, {_ORDER.format('')}, alert_id",  # noqa: S608
            incident_id)]

    async def page(self, table: str, wanted: Wanted) -> tuple[list[str], Cursor | None]:
        """Messages of one table, newest first, and where the next page begins; None after the last."""
        key = IDS[table]
        cursor = wanted.cursor or Cursor(wanted.before_ms, "")
        rows = await self._fetch(
            f"SELECT at, {key} AS id, body FROM {table} WHERE ($1 = '' OR environment = $1) "  # noqa: S608
            f"AND ($2 = '' OR model = $2) AND (at, {key}) < ($3, $4) ORDER BY at DESC, {key} DESC LIMIT $5",
            wanted.environment, wanted.model, moment(cursor.at_ms), cursor.id, wanted.limit + 1)
        shown = rows[:wanted.limit]
        following = Cursor(epoch_ms(shown[-1]["at"]), shown[-1]["id"]) if len(rows) > wanted.limit else None
        return [row["body"] for row in shown], following

    async def models(self, size_ms: int, since_ms: int) -> list[Row]:
        """Who sent something since then, with totals."""
        return [{**dict(row), "events": int(row["events"]), "errors": int(row["errors"]),
                 "last_at": row["last_at"].isoformat(), "last_ms": epoch_ms(row["last_at"])}
                for row in await self._fetch(_MODELS, size_ms, moment(since_ms))]

    async def counts(self, since_ms: int) -> Row:
        """How many anomalies, drifts, incidents and requests there were since then."""
        (row,) = await self._fetch(_COUNTS, moment(since_ms))
        return dict(row)

    async def windows(self, environment: str, model: str, size_ms: int, span: tuple[int, int], version: str,
                      component: str, field: str, limit: int) -> list[Row]:
        """Rows of the first `limit` windows that begin in [span), one a partition, by start, version, component."""
        rows = await self._fetch(_WINDOWS, environment, model, size_ms, moment(span[0]), moment(span[1]), version,
                                 component, field, limit)
        return [{**dict(row), "start_ms": epoch_ms(row["start_at"]), "fields": json.loads(row["fields"])}
                for row in rows]

    async def stretch(self, environment: str, model: str, size_ms: int, span: tuple[int, int], limit: int) -> list[Row]:
        """Windows of all series that begin in [span), one a partition, in time order; patterns may end with `*`."""
        rows = await self._fetch(
            "SELECT * FROM metric_windows WHERE size_ms = $1 AND start_at >= $2 AND start_at < $3 "
            "AND environment LIKE $4 AND model LIKE $5 "
            "ORDER BY start_at, environment, model, version, component, partition LIMIT $6",
            size_ms, moment(span[0]), moment(span[1]), _like(environment), _like(model), limit)
        return [{**dict(row), "start_ms": epoch_ms(row["start_at"])} for row in rows]

    async def bodies(self, table: str, environment: str, model: str, span: tuple[int, int], limit: int) -> list[str]:
        """Messages of one table that are of [span), in time order; patterns may end with `*`."""
        return [row["body"] for row in await self._fetch(
            f"SELECT body FROM {table} WHERE at >= $1 AND at < $2 AND environment LIKE $3 "  # noqa: S608
            f"AND model LIKE $4 ORDER BY at, {IDS[table]} LIMIT $5",
            moment(span[0]), moment(span[1]), _like(environment), _like(model), limit)]

    async def _fetch(self, query: str, *given: Any) -> list[Any]:
        async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return list(await connection.fetch(query, *given))


def _like(pattern: str) -> str:
    """A name, the beginning of one and `*`, or empty for all, as LIKE has it."""
    literal = pattern.removesuffix("*").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal + "%" if pattern.endswith("*") or not pattern else literal
