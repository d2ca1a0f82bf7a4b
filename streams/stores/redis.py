"""Redis: the streams of alerts and anomalies that sockets resume from, open incidents, and each series' newest windows.

All keys begin with `PREFIX` and the topics' prefix:

    alerts              stream   one entry an alert: alert = JSON, group = the incident that its group began with
    anomalies           stream   one entry an anomaly: anomaly = JSON
    seen:ID             string   the alert or anomaly is on its stream
    incidents:open      hash     incident id -> its newest alert
    groups:open         hash     incident id -> its group, while it is open
    group:CAUSE         string   ONSET|GROUP of the newest incident of that cause
    grouped:ID          string   the group of an incident, for whoever asks after its end
    silences            hash     silence id -> JSON, or "ended"
    rules               hash     version, body: the rules in force
    window:SIZE:SERIES  hash     PARTITION:start, :count, :body of the newest closed window
    recent:SIZE:SERIES  hash     PARTITION:SLOT -> START COUNT REVISION BODY; a ring of the last closed windows
    windows             stream   one entry a closed window or amendment: window = JSON, sketches and all
    score:SERIES        string   the newest anomaly
    series              zset     series -> wall clock of its last window, ms

A series is `environment|model|version|component`; none of the four may hold a bar.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import redis.asyncio as redis

from schemas.alerts import Alert, AlertCommand
from schemas.anomalies import Anomaly
from schemas.base import Subject
from streams.settings import Settings
from streams.windows.record import WindowHead, WindowRecord
from streams.windows.sketch import quantile

AnyWindow: TypeAlias = WindowHead | WindowRecord
PREFIX = "streamgauge:"
#: An alert id is remembered for this long; a repeat within it is dropped.
DEDUPE_SECONDS = 7 * 24 * 3600
#: The same of an anomaly id, of which there may be very many.
ANOMALY_DEDUPE_SECONDS = 600
#: A series without windows for this long leaves the hot view.
HOT_SECONDS = 3600
#: Incidents of one cause whose onsets lie so near to one another are one group; a cause is kept for an hour.
GROUP_MS, GROUP_SECONDS = 30_000, 3_600
#: Causes that have nothing to do with one another across models.
_ALONE = ("performance", "rule")
#: Redis does nothing else meanwhile.
_APPEND_AT_ONCE = 200
#: Closed windows of each series, granularity and partition that are kept: the window that begins at t is in slot
#: t / size mod RECENT, so that a ring whose newest begins at t has every window that begins after t - RECENT * size.
RECENT = 16
CONNECT_SECONDS, ANSWER_SECONDS = 5, 10

# KEYS: dedupe key, stream, open incidents, open groups, newest of the cause, group of the incident. ARGV: body, state,
# incident id, dedupe seconds, stream length, onset ms, span ms (of a group; negative: this cause has none), seconds
# that a cause is kept.
_FIND_GROUP = """
local group = redis.call('GET', KEYS[6]) or redis.call('HGET', KEYS[4], ARGV[3])
if not group then
  group = ARGV[3]
  local newest = redis.call('GET', KEYS[5])
  if newest and ARGV[2] ~= 'resolved' then
    local at, of = string.match(newest, '^(%d+)|(.*)$')
    if math.abs(tonumber(at) - tonumber(ARGV[6])) <= tonumber(ARGV[7]) then group = of end
  end
  if tonumber(ARGV[7]) >= 0 then redis.call('SET', KEYS[5], ARGV[6] .. '|' .. group, 'EX', ARGV[8]) end
  redis.call('SET', KEYS[6], group, 'EX', ARGV[4])
end
"""
_GROUP = _FIND_GROUP + "return group"
_APPEND = "if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[4]) then return false end" + _FIND_GROUP + """
if ARGV[2] == 'resolved' then
  redis.call('HDEL', KEYS[3], ARGV[3])
  redis.call('HDEL', KEYS[4], ARGV[3])
else
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])
  redis.call('HSET', KEYS[4], ARGV[3], group)
end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'alert', ARGV[1], 'group', group)
"""

# KEYS: rules. ARGV: version, body.
_PUT_RULES = """
if tonumber(redis.call('HGET', KEYS[1], 'version') or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
return 1
"""

# KEYS: stream, then a dedupe key each. ARGV: dedupe seconds, stream length, then a body each.
_APPEND_NEW = """
for at = 2, #KEYS do
  if redis.call('SET', KEYS[at], '1', 'NX', 'EX', ARGV[1]) then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'anomaly', ARGV[at + 1])
  end
end
"""

# KEYS: stream. ARGV: stream length, then a body each.
_APPEND_ALL = """
for at = 2, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'window', ARGV[at]) end
"""

# KEYS: window, series. ARGV: partition, start ms, count, body, seconds, series, now ms.
_PUT = """
redis.call('ZADD', KEYS[2], ARGV[7], ARGV[6])
local have = redis.call('HMGET', KEYS[1], ARGV[1] .. ':start', ARGV[1] .. ':count')
if have[1] then
  local older = tonumber(ARGV[2]) - tonumber(have[1])
  if older < 0 or (older == 0 and tonumber(ARGV[3]) < tonumber(have[2])) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1] .. ':start', ARGV[2], ARGV[1] .. ':count', ARGV[3], ARGV[1] .. ':body', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

# KEYS: ring. ARGV: seconds, then for each window its field, start ms, count, revision, body.
_KEEP = """
for at = 2, #ARGV, 5 do
  local have = redis.call('HGET', KEYS[1], ARGV[at])
  local newer = true
  if have then
    local start, count, revision = string.match(have, '^(%d+) (%d+) (%d+) ')
    local later = tonumber(ARGV[at + 1]) - tonumber(start)
    if later == 0 then later = tonumber(ARGV[at + 2]) - tonumber(count) end
    if later == 0 then later = tonumber(ARGV[at + 3]) - tonumber(revision) end
    newer = later >= 0
  end
  if newer then redis.call('HSET', KEYS[1], ARGV[at], table.concat(ARGV, ' ', at + 1, at + 4)) end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


def connect(settings: Settings) -> redis.Redis:
    """A client with its own pool; text in and out."""
    return redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True, protocol=2,
                                socket_timeout=ANSWER_SECONDS, socket_connect_timeout=CONNECT_SECONDS)


def series_of(subject: Subject | AnyWindow) -> str:
    """The name of a subject's series."""
    return "|".join((subject.environment, subject.model, subject.version, subject.component))


def cause_of(alert: Alert) -> str:
    """What an alert has in common with those of other models that come from the same: environment, cause, field."""
    data = alert.cause in ("drift", "anomaly_rate")
    return "|".join((alert.environment, "data" if data else alert.cause, (alert.field or "") if data else ""))


class Stream(NamedTuple):
    """A stream: its key, the field of an entry that holds its JSON, and how many entries are kept."""

    key: str
    kind: str
    length: int


class RecentWindow(msgspec.Struct, frozen=True):
    """A window from a ring; its fields as JSON."""

    start_ms: int
    size_ms: int
    partition: int
    count: int
    errors: int
    revision: int
    fields: dict[str, msgspec.Raw]


_recent = msgspec.json.Decoder(RecentWindow).decode


class Hot:
    """Everything this project keeps in Redis, under one prefix."""

    def __init__(self, client: redis.Redis, settings: Settings,
                 now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.client: Any = client      # the client's own types cover bytes and text alike; here it is text
        self.prefix = f"{PREFIX}{settings.topic_prefix}"
        self.alerts = Stream(f"{self.prefix}alerts", "alert", settings.alert_stream_length)
        self.anomalies = Stream(f"{self.prefix}anomalies", "anomaly", settings.anomaly_stream_length)
        self.windows = Stream(f"{self.prefix}windows", "window", settings.window_stream_length)
        self.open_incidents = f"{self.prefix}incidents:open"
        self.open_groups = f"{self.prefix}groups:open"
        self.known_silences = f"{self.prefix}silences"
        self.known_series = f"{self.prefix}series"
        self._now_ms = now_ms
        self._append: Any = client.register_script(_APPEND)
        self._group: Any = client.register_script(_GROUP)
        self._append_new: Any = client.register_script(_APPEND_NEW)
        self._put_rules: Any = client.register_script(_PUT_RULES)
        self._put: Any = client.register_script(_PUT)
        self._keep: Any = client.register_script(_KEEP)
        self._append_all: Any = client.register_script(_APPEND_ALL)

    async def append_alert(self, alert: Alert) -> str | None:
        """Put the alert on the stream, once by its id; returns its place in the stream, or None for a repeat.

        All or nothing: the dedupe key, the stream, the open incidents and groups change together.
        """
        place: Any = await self._append(*_appended(self, alert))
        return str(place) if place else None

    async def append_alerts(self, alerts: Sequence[Alert]) -> None:
        """The same for many, in this order, in few round trips."""
        for first in range(0, len(alerts), _APPEND_AT_ONCE):
            pipe = self.client.pipeline(transaction=False)
            for alert in alerts[first:first + _APPEND_AT_ONCE]:
                await self._append(*_appended(self, alert), client=pipe)
            await pipe.execute()

    async def group_of(self, alert: Alert) -> str:
        """The incident that the alert's group began with: the same whether it is on the stream already, or not yet."""
        return str(await self._group(*_appended(self, alert)))

    async def append_anomalies(self, anomalies: Sequence[Anomaly]) -> None:
        """Put anomalies on their stream, each once by its id, in this order."""
        for first in range(0, len(anomalies), _APPEND_AT_ONCE):
            some = anomalies[first:first + _APPEND_AT_ONCE]
            await self._append_new(
                keys=[self.anomalies.key, *(f"{self.prefix}seen:{anomaly.anomaly_id}" for anomaly in some)],
                args=[ANOMALY_DEDUPE_SECONDS, self.anomalies.length, *(anomaly.model_dump_json() for anomaly in some)])

    async def open_alerts(self) -> list[dict[str, Any]]:
        """The newest alert of every incident that is open or escalated."""
        return [json.loads(body) for body in (await self.client.hgetall(self.open_incidents)).values()]

    async def open_alert(self, incident_id: str) -> dict[str, Any] | None:
        """The newest alert of one incident; None: it is not open."""
        body = await self.client.hget(self.open_incidents, incident_id)
        return json.loads(body) if body else None

    async def groups(self) -> dict[str, str]:
        """Open incident -> the incident that its group began with."""
        return dict(await self.client.hgetall(self.open_groups))

    async def obey(self, command: AlertCommand) -> None:
        """Show what a command changed, as its owners carry it out: they decide, this is what gateways list.

        Commands come once a partition, in any order between partitions: what has ended does not begin again.
        """
        if command.action == "silence" and command.silence is not None:
            await self.client.hsetnx(self.known_silences, command.silence.silence_id,
                                     command.silence.model_dump_json())
        elif command.action == "unsilence":
            await self.client.hset(self.known_silences, command.text, "ended")
        elif command.action == "rules":
            await self._put_rules(keys=[f"{self.prefix}rules"], args=[command.version, command.rules])

    async def silences(self) -> list[dict[str, Any]]:
        """Silences that have not been ended, expired ones among them."""
        found = await self.client.hvals(self.known_silences)
        return [json.loads(body) for body in found if body != "ended"]

    async def rules(self) -> tuple[int, str]:
        """Version and JSON text of the rules in force; 0 and nothing: none."""
        version, body = await self.client.hmget(f"{self.prefix}rules", ["version", "body"])
        return int(version or 0), str(body or "")

    async def put_windows(self, windows: Sequence[AnyWindow]) -> None:
        """Keep the newest closed window of every series, granularity and partition; an older one changes nothing."""
        newest: dict[tuple[str, int, int], AnyWindow] = {}
        for window in windows:
            key = (series_of(window), window.size_ms, window.partition)
            have = newest.get(key)
            if have is None or (window.start_ms, window.count) >= (have.start_ms, have.count):
                newest[key] = window
        now = self._now_ms()
        pipe = self.client.pipeline(transaction=False)
        for (series, size, partition), window in newest.items():
            await self._put(keys=[f"{self.prefix}window:{size}:{series}", self.known_series],
                            args=[partition, window.start_ms, window.count, _body(window), HOT_SECONDS,
                                  series, now], client=pipe)
        pipe.zremrangebyscore(self.known_series, "-inf", now - 1000 * HOT_SECONDS)
        await pipe.execute()

    async def keep_recent(self, windows: Sequence[AnyWindow]) -> None:
        """Put closed windows into the rings; an older copy of one changes nothing."""
        rings: dict[tuple[str, int], dict[tuple[int, int], AnyWindow]] = {}
        for window in windows:
            ring = rings.setdefault((series_of(window), window.size_ms), {})
            slot = (window.partition, window.start_ms // window.size_ms % RECENT)
            have = ring.get(slot)
            if have is None or _age(window) >= _age(have):
                ring[slot] = window
        pipe = self.client.pipeline(transaction=False)
        for (series, size), ring in rings.items():
            await self._keep(keys=[f"{self.prefix}recent:{size}:{series}"], client=pipe, args=[
                HOT_SECONDS, *(part for (partition, slot), window in ring.items()
                               for part in (f"{partition}:{slot}", *_age(window), _body(window)))])
        await pipe.execute()

    async def recent(self, series: Sequence[str], sizes_ms: Sequence[int]) -> list[list[RecentWindow]]:
        """What the rings of these series hold, for each series, in no order."""
        pipe = self.client.pipeline(transaction=False)
        for name in series:
            for size in sizes_ms:
                pipe.hvals(f"{self.prefix}recent:{size}:{name}")
        answers, many = await pipe.execute(), len(sizes_ms)
        return [[_recent(text.split(" ", 3)[3]) for found in answers[at * many:(at + 1) * many] for text in found]
                for at in range(len(series))]

    async def append_windows(self, windows: Sequence[AnyWindow]) -> None:
        """Put windows on their stream, in this order. A window is there again when it is amended, or sent again."""
        for first in range(0, len(windows), _APPEND_AT_ONCE):
            await self._append_all(keys=[self.windows.key], args=[
                self.windows.length, *map(_whole, windows[first:first + _APPEND_AT_ONCE])])

    async def put_scores(self, anomalies: Sequence[Anomaly]) -> None:
        """Keep the newest anomaly of every series: when, how high, over which threshold."""
        newest: dict[str, Anomaly] = {}
        for anomaly in anomalies:
            have = newest.get(series_of(anomaly))
            if have is None or anomaly.ts >= have.ts:
                newest[series_of(anomaly)] = anomaly
        pipe = self.client.pipeline(transaction=False)
        for series, anomaly in newest.items():
            body = anomaly.model_dump(include={"anomaly_id", "event_id", "ts", "detector", "score", "threshold"})
            pipe.set(f"{self.prefix}score:{series}", json.dumps(body), ex=HOT_SECONDS)
        await pipe.execute()

    async def series(self) -> dict[str, int]:
        """`environment|model|version|component` -> when its last window came (wall clock, epoch ms), by name."""
        since = self._now_ms() - 1000 * HOT_SECONDS
        found = await self.client.zrangebyscore(self.known_series, since, "+inf", withscores=True)
        return {str(name): int(score) for name, score in sorted(found)}

    async def newest(self, series: Sequence[str], size_ms: int) -> list[dict[str, Any]]:
        """For each series its newest windows, one a partition, and its newest anomaly or None."""
        pipe = self.client.pipeline(transaction=False)
        for name in series:
            pipe.hgetall(f"{self.prefix}window:{size_ms}:{name}")
            pipe.get(f"{self.prefix}score:{name}")
        answers = await pipe.execute()
        return [{"windows": list(_bodies(windows)), "anomaly": json.loads(score) if score else None}
                for windows, score in zip(answers[::2], answers[1::2], strict=True)]


def _appended(hot: Hot, alert: Alert) -> tuple[list[str], list[Any]]:
    """Keys and arguments of the script that appends an alert."""
    return ([f"{hot.prefix}seen:{alert.alert_id}", hot.alerts.key, hot.open_incidents, hot.open_groups,
             f"{hot.prefix}group:{cause_of(alert)}", f"{hot.prefix}grouped:{alert.incident_id}"],
            [alert.model_dump_json(), alert.state, alert.incident_id, DEDUPE_SECONDS, hot.alerts.length,
             alert.onset_ms, -1 if alert.cause in _ALONE else GROUP_MS, GROUP_SECONDS])


def _bodies(windows: dict[str, str]) -> Iterable[dict[str, Any]]:
    return (view(json.loads(text)) for name, text in sorted(windows.items()) if name.endswith(":body"))


def _age(window: AnyWindow) -> tuple[int, int, int]:
    """Of two windows in one slot the larger is newer."""
    return window.start_ms, window.count, window.revision


def _whole(window: AnyWindow) -> bytes:
    """A window as it is on the stream: its body, and whose it is."""
    subject = {"environment": window.environment, "model": window.model, "version": window.version,
               "component": window.component}
    return b"%b,%b" % (msgspec.json.encode(subject)[:-1], _body(window)[1:])


def _body(window: AnyWindow) -> bytes:
    """A window as it is kept; its fields as they came, for those who read are few."""
    return msgspec.json.encode({
        "window_id": window.window_id, "start_ms": window.start_ms, "size_ms": window.size_ms,
        "partition": window.partition, "count": window.count, "errors": window.errors, "revision": window.revision,
        "fields": msgspec.Raw(window.fields_json().encode())})


def view(body: dict[str, Any]) -> dict[str, Any]:
    """A window with quantiles in the place of sketches, which are most of its bytes."""
    return body | {"fields": {name: _figures(summary) for name, summary in body["fields"].items()}}


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {"count": summary["count"], "missing": summary["missing"], "mean": summary["mean"], "min": summary["min"],
            "max": summary["max"], "p50": quantile(summary["sketch"], 0.5), "p95": quantile(summary["sketch"], 0.95)}
