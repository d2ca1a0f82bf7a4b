"""Redis: the alert stream that sockets resume from, open incidents, and the newest windows of every series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis

from schemas.alerts import Alert
from schemas.windows import MetricWindow
from streams.settings import Settings

#: An alert id is remembered for this long; a repeat within it is dropped.
DEDUPE_SECONDS = 7 * 24 * 3600
#: A series without windows for this long leaves the hot view.
HOT_SECONDS = 3600

# KEYS: dedupe key, stream, open incidents. ARGV: body, state, incident id, dedupe seconds, stream length.
_APPEND = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[4]) then return false end
if ARGV[2] == 'resolved' then redis.call('HDEL', KEYS[3], ARGV[3])
else redis.call('HSET', KEYS[3], ARGV[3], ARGV[1]) end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'alert', ARGV[1])
"""


def connect(settings: Settings) -> redis.Redis:
    """A client with its own pool; text in and out."""
    return redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True, socket_timeout=10,
                                socket_connect_timeout=5)


class Hot:
    """Everything this project keeps in Redis, under one prefix."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.client: Any = client      # the client's own types cover bytes and text alike; here it is text
        self.prefix = f"streamgauge:{settings.topic_prefix}"
        self.stream = f"{self.prefix}alerts"
        self.open_incidents = f"{self.prefix}incidents:open"
        self.length = settings.alert_stream_length
        self._append = client.register_script(_APPEND)

    async def append_alert(self, alert: Alert) -> str | None:
        """Put the alert on the stream, once by its id; returns its place in the stream, or None for a repeat."""
        place: Any = await self._append(
            keys=[f"{self.prefix}seen:{alert.alert_id}", self.stream, self.open_incidents],
            args=[alert.model_dump_json(), alert.state, alert.incident_id, DEDUPE_SECONDS, self.length])
        return str(place) if place else None

    async def put_windows(self, windows: Sequence[MetricWindow]) -> None:
        """Keep the newest closed window of every series and granularity."""
        newest: dict[tuple[str, int], MetricWindow] = {}
        for window in windows:
            key = ("|".join((window.environment, window.model, window.version, window.component)), window.size_ms)
            have = newest.get(key)
            if have is None or (window.start_ms, window.count) >= (have.start_ms, have.count):
                newest[key] = window
        pipe = self.client.pipeline(transaction=False)
        for (series, size), window in newest.items():
            key_name = f"{self.prefix}window:{size}:{series}"
            pipe.set(key_name, window.model_dump_json(), ex=HOT_SECONDS)
            pipe.hset(f"{self.prefix}series", series, window.start_ms)
        await pipe.execute()

    async def series(self) -> dict[str, int]:
        """`environment|model|version|component` -> start of its newest window (epoch ms)."""
        found = await self.client.hgetall(f"{self.prefix}series")
        return {str(name): int(start) for name, start in found.items()}
