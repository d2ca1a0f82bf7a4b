"""Questions to PostgreSQL. Messages come back as the JSON text they were stored as."""

from __future__ import annotations

import base64
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
#: Windows of one size as far as they have closed, then finer ones of what came after, down to the finest.
_MODELS = """
WITH heads AS (
  SELECT s.*, greatest($2, max(end_at) OVER (PARTITION BY environment, model, version, component, partition
                                             ORDER BY size_ms DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
         ) AS head_at
  FROM metric_series s WHERE size_ms <= $1 AND end_at > $2)
SELECT h.environment, h.model, array_agg(DISTINCT h.version ORDER BY h.version) AS versions,
  array_agg(DISTINCT h.component ORDER BY h.component) AS components, sum(w.count) AS events, sum(w.errors) AS errors,
  max(w.last_at) AS last_at
FROM heads h CROSS JOIN LATERAL (
  SELECT sum(count) AS count, sum(errors) AS errors, max(start_at) AS last_at FROM metric_windows w
  WHERE w.environment = h.environment AND w.model = h.model AND w.size_ms = h.size_ms AND w.start_at >= h.head_at
    AND w.version = h.version AND w.component = h.component AND w.partition = h.partition) w
WHERE w.count IS NOT NULL
GROUP BY h.environment, h.model ORDER BY h.environment, h.model
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
        (row,) = await self.fetch("SELECT to_regclass('window_spans') IS NOT NULL AS there")
        if not row["there"]:
            raise LookupError("it has no tables yet: run `streamgauge setup`")

    async def incidents(self, state: str, environment: str, model: str, severity: str, limit: int) -> list[str]:
        """The newest transition of each incident, newest first."""
        return [row["body"] for row in await self.fetch(_INCIDENTS, environment, model, severity, state, limit)]

    async def incident(self, incident_id: str) -> list[str]:
        """Every transition of one incident, oldest first."""
        return [row["body"] for row in await self.fetch(
            f"SELECT body FROM alerts WHERE incident_id = $1 ORDER BY at, {_ORDER.format('')}, alert_id",  # noqa: S608
            incident_id)]

    async def page(self, table: str, wanted: Wanted) -> tuple[list[str], Cursor | None]:
        """Messages of one table, newest first, and where the next page begins; None after the last."""
        key = IDS[table]
        cursor = wanted.cursor or Cursor(wanted.before_ms, "")
        rows = await self.fetch(
            f"SELECT at, {key} AS id, body FROM {table} WHERE ($1 = '' OR environment = $1) "  # noqa: S608
            f"AND ($2 = '' OR model = $2) AND (at, {key}) < ($3, $4) ORDER BY at DESC, {key} DESC LIMIT $5",
            wanted.environment, wanted.model, moment(cursor.at_ms), cursor.id, wanted.limit + 1)
        shown = rows[:wanted.limit]
        following = Cursor(epoch_ms(shown[-1]["at"]), shown[-1]["id"]) if len(rows) > wanted.limit else None
        return [row["body"] for row in shown], following

    async def models(self, size_ms: int, since_ms: int) -> list[Row]:
        """Who sent something since then, with totals: from windows of this size, finer ones where none has closed."""
        return [{**dict(row), "events": int(row["events"]), "errors": int(row["errors"]),
                 "last_at": row["last_at"].isoformat(), "last_ms": epoch_ms(row["last_at"])}
                for row in await self.fetch(_MODELS, size_ms, moment(since_ms))]

    async def counts(self, since_ms: int) -> Row:
        """How many anomalies, drifts, incidents and requests there were since then."""
        (row,) = await self.fetch(_COUNTS, moment(since_ms))
        return dict(row)

    async def stretch(self, environment: str, model: str, size_ms: int, span: tuple[int, int], limit: int) -> list[Row]:
        """Windows of all series that begin in [span), one a partition, in time order; patterns may end with `*`."""
        rows = await self.fetch(
            "SELECT * FROM metric_windows WHERE size_ms = $1 AND start_at >= $2 AND start_at < $3 "
            "AND environment LIKE $4 AND model LIKE $5 "
            "ORDER BY start_at, environment, model, version, component, partition LIMIT $6",
            size_ms, moment(span[0]), moment(span[1]), _like(environment), _like(model), limit)
        return [{**dict(row), "start_ms": epoch_ms(row["start_at"])} for row in rows]

    async def bodies(self, table: str, environment: str, model: str, span: tuple[int, int], limit: int) -> list[str]:
        """Messages of one table that are of [span), in time order; patterns may end with `*`."""
        return [row["body"] for row in await self.fetch(
            f"SELECT body FROM {table} WHERE at >= $1 AND at < $2 AND environment LIKE $3 "  # noqa: S608
            f"AND model LIKE $4 ORDER BY at, {IDS[table]} LIMIT $5",
            moment(span[0]), moment(span[1]), _like(environment), _like(model), limit)]

    async def fetch(self, query: str, *given: Any) -> list[Any]:
        """Rows of a query; asyncpg prepares each once a connection."""
        async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return list(await connection.fetch(query, *given))


def _like(pattern: str) -> str:
    """A name, the beginning of one and `*`, or empty for all, as LIKE has it."""
    literal = pattern.removesuffix("*").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal + "%" if pattern.endswith("*") or not pattern else literal
