"""The four sinks. Each has its own consumer group, so that a store that is away holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from schemas.alerts import AlertCommand
from streams.settings import Settings
from streams.stores import redis as hot
from streams.stores.history import History
from streams.stores.postgres import connect
from streams.stores.sink import CLOSE_SECONDS, Sink, Write
from streams.topics import ALERT_COMMANDS, ALERTS, ANOMALIES, DRIFT_EVENTS, METRICS, RETRAINING_REQUESTS

#: So often is old history dropped.
DROP_EVERY = timedelta(hours=1)


class HistorySink(Sink):
    """Windows, anomalies, drift, alerts and requests into PostgreSQL; drops there what is past its retention."""

    name = "history"

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(settings, [METRICS, ANOMALIES, DRIFT_EVENTS, ALERTS, RETRAINING_REQUESTS])
        self._clock = clock
        self._pool: asyncpg.Pool | None = None
        self._history: History | None = None
        self._drop_next = datetime.min.replace(tzinfo=UTC)

    async def open(self) -> Mapping[str, Write]:
        self._pool = await connect(self.settings)
        self._history = history = History(self._pool, self.settings.retention_days, self._clock)
        return {METRICS.name: history.windows, ANOMALIES.name: history.anomalies, DRIFT_EVENTS.name: history.drift,
                ALERTS.name: history.alerts, RETRAINING_REQUESTS.name: history.requests}

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
    """The newest windows and anomalies of every series into Redis."""

    name = "hotview"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [METRICS, ANOMALIES])

    async def open(self) -> Mapping[str, Write]:
        store = await self._connect()
        return {METRICS.name: store.put_windows, ANOMALIES.name: store.put_scores}
