"""The sinks. Each has its own consumer group, so that a store that is away holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from schemas.alerts import AlertCommand
from streams.settings import Settings
from streams.stores import redis as hot
from streams.stores.exposition import MODELS, ModelMetrics
from streams.stores.history import History
from streams.stores.postgres import connect
from streams.stores.sink import CLOSE_SECONDS, Sink, Write
from streams.stores.spans import Retention
from streams.topics import ALERT_COMMANDS, ALERTS, ANOMALIES, DRIFT_EVENTS, LEVELS, METRICS, RETRAINING_REQUESTS
from streams.windows import packed
from streams.windows.record import WindowHead

#: So often is old history dropped.
DROP_EVERY = timedelta(hours=1)


def retention(settings: Settings) -> Retention:
    """How long history is kept."""
    return Retention(settings.retention_days, settings.window_days)


class HistorySink(Sink):
    """Windows, anomalies, drift, alerts and requests into PostgreSQL; drops there what is past its retention."""

    name = "history"
    #: A busy event loop has time for few fetches a second, and of windows 1 MB are a hundred.
    fetch_bytes = 4 << 20

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(settings, [METRICS, LEVELS, ANOMALIES, DRIFT_EVENTS, ALERTS, RETRAINING_REQUESTS])
        self._clock = clock
        self._pool: asyncpg.Pool | None = None
        self._history: History | None = None
        self._drop_next = datetime.min.replace(tzinfo=UTC)
        packed.warm()

    async def open(self) -> Mapping[str, Write]:
        self._pool = await connect(self.settings)
        self._history = history = History(self._pool, retention(self.settings), self._clock)
        return {METRICS.name: history.windows, LEVELS.name: history.levels, ANOMALIES.name: history.anomalies,
                DRIFT_EVENTS.name: history.drift, ALERTS.name: history.alerts,
                RETRAINING_REQUESTS.name: history.requests}

    async def tend(self) -> None:
        if self._history is not None and self._clock() >= self._drop_next:
            await self._history.drop_old()
            self._drop_next = self._clock() + DROP_EVERY

    async def close(self) -> None:
        pool, self._pool, self._history = self._pool, None, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()


class RedisSink(Sink):
    """What the two Redis sinks share."""

    _hot: hot.Hot | None = None

    async def _connect(self) -> hot.Hot:
        self._hot = hot.Hot(hot.connect(self.settings), self.settings)
        await self._hot.client.ping()
        return self._hot

    async def close(self) -> None:
        held, self._hot = self._hot, None
        if held is not None:
            with contextlib.suppress(OSError):
                await held.client.aclose()


class AlertRelay(RedisSink):
    """Alerts onto the Redis stream, at once, each id once; and what commands changed, for gateways to list."""

    name = "relay"
    fetch_wait_ms = 50

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [ALERTS, ALERT_COMMANDS])

    async def open(self) -> Mapping[str, Write]:
        store = await self._connect()

        async def obey(commands: Sequence[AlertCommand]) -> None:
            for command in commands:
                await store.obey(command)

        return {ALERTS.name: store.append_alerts, ALERT_COMMANDS.name: obey}


class AnomalyRelay(RedisSink):
    """Anomalies onto their Redis stream. Apart from the alerts, which no storm of anomalies may hold up."""

    name = "anomalies"
    fetch_wait_ms = 50

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [ANOMALIES])

    async def open(self) -> Mapping[str, Write]:
        return {ANOMALIES.name: (await self._connect()).append_anomalies}


class HotView(RedisSink):
    """The newest windows and anomalies of every series into Redis, and windows onto their stream."""

    name = "hotview"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [METRICS, ANOMALIES])

    async def open(self) -> Mapping[str, Write]:
        store = await self._connect()

        async def windows(found: Sequence[WindowHead]) -> None:
            await store.put_windows(found)
            await store.keep_recent(found)
            await store.append_windows(found)

        return {METRICS.name: windows, ANOMALIES.name: store.put_scores}


class Exposition(Sink):
    """What models do, for Prometheus: windows of the second finest granularity, anomalies, drift and alerts. No store.
    """

    name = "exposition"

    def __init__(self, settings: Settings, models: ModelMetrics = MODELS) -> None:
        super().__init__(settings, [METRICS, ANOMALIES, DRIFT_EVENTS, ALERTS])
        self.models = models
        models.most = settings.exposed_series
        sizes = settings.granularities_ms
        self._size = b"-%d-" % sizes[min(1, len(sizes) - 1)]

    def wanted(self, topic: str, key: bytes | None) -> bool:
        """Windows of the other granularities are told by their keys, and not read."""
        return topic != METRICS.name or key is None or self._size in key[:64]

    async def open(self) -> Mapping[str, Write]:
        def each(take: Callable[[Any], None]) -> Write:
            async def write(found: Sequence[Any]) -> None:
                for one in found:
                    take(one)

            return write

        return {METRICS.name: each(self.models.window), ANOMALIES.name: each(self.models.anomaly),
                DRIFT_EVENTS.name: each(self.models.drift), ALERTS.name: each(self.models.alert)}

    async def tend(self) -> None:
        self.models.prune()

    async def close(self) -> None:
        """Nothing is held."""
