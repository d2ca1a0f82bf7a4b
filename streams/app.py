"""The Faust app of a worker: settings read once, topics, the snapshot table, checkpoints and who owns what.

`Pipeline` is what agents register with. It knows none of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.types import TP

from streams import log, members, metrics
from streams.batch import Decoder, Limits, TelemetryBatch, decode_feedback, decode_lifecycle
from streams.kafka import bootstrap_servers, client_options, ssl_context
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Checkpointer, Partition
from streams.state.continuity import Verdict
from streams.state.keyed import Codec
from streams.topics import (
    ALERT_COMMANDS,
    ANOMALIES,
    DRIFT_EVENTS,
    FEEDBACK,
    LIFECYCLE_EVENTS,
    METRICS,
    TELEMETRY,
    TopicRow,
)
from streams.transport.outbox import Outbox

logger = log.get(__name__)

#: Topics that agents read; the driver delivers them by batch.
CONSUMED = (TELEMETRY, FEEDBACK, METRICS, ANOMALIES, DRIFT_EVENTS, ALERT_COMMANDS, LIFECYCLE_EVENTS)
#: Batches that wait for an agent; more and the partition's fetching pauses.
BUFFERED_BATCHES = 8
FETCH_BYTES = 4 * 1024 * 1024
#: A last checkpoint that takes longer is given up; the log is read again instead.
STOP_SECONDS = 10.0
#: Leaving the group after that.
LEAVE_SECONDS = 5.0
#: The share of the time in which snapshots may hold the event loop, and the longest that one is put off for it.
SNAPSHOT_SHARE = 0.05
MOST_CHECKPOINT_MS = 15_000
MAX_REQUEST_BYTES = 16 * 1024 * 1024
#: Few large batches of outputs and rows: brokers and their readers pay by the batch, the embedded one most of all.
BATCH_BYTES = 1024 * 1024
LINGER_SECONDS = 0.01

Handler = Callable[[RecordBatch, Partition], Awaitable[None]]


class App(faust.App):
    """A Faust app whose batched topics come whole, and that may save its state before partitions go."""

    batched_topics: frozenset[str] = frozenset()
    client_options: Mapping[str, Any] = MappingProxyType({})
    before_revoke_hook: Callable[[set[TP]], Awaitable[None]] | None = None

    async def before_revoke(self, revoked: set[TP]) -> None:
        """Called by the driver while the group still waits for this member."""
        if self.before_revoke_hook is not None and revoked:
            await self.before_revoke_hook(revoked)


class Tables(TableManager):
    """Faust's, which waits a second for tables that are made late; ours are made before the start."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class Timed:
    """A decoder with its own stage: whichever agent needs a batch first decodes it for all."""

    def __init__(self, run: Decoder, stage: str) -> None:
        self.run = run
        self.stage = stage
        self.seconds = 0.0

    def __call__(self, batch: RecordBatch) -> TelemetryBatch:
        started = time.perf_counter()
        with metrics.stage(self.stage):
            found = self.run(batch)
        self.seconds += time.perf_counter() - started
        return found


class Pipeline:
    """Agents, timers, state and checkpoints of one worker process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = _new_app(settings)
        self.app.batched_topics = frozenset(settings.topic(row.name) for row in CONSUMED)
        self.app.client_options = client_options(settings)
        self.app.before_revoke_hook = self._before_revoke
        self.app.on_rebalance_complete.connect(self._on_rebalance_complete, weak=False)
        self.table = self.app.Table("snapshots", key_type=bytes, value_type=bytes, store="fenced://snapshots",
                                    partitions=settings.partitions,
                                    extra_topic_configs={"min.cleanable.dirty.ratio": "0.1",
                                                         "max.message.bytes": str(MAX_REQUEST_BYTES),
                                                         "segment.bytes": str(64 * 1024 * 1024)})
        self.outbox = Outbox(lambda: self.app.producer._ensure_producer(), LINGER_SECONDS)
        self.checkpointer = Checkpointer(
            rows=lambda: self.table.data.rows, changelog=lambda: self.table.changelog_topic_name,
            outbox=self.outbox, ack=self._ack, commit=self._commit, written=self._written, start=self._start)
        limits = Limits(settings.max_record_bytes, settings.max_events_per_record,
                        settings.max_age_ms, settings.max_ahead_ms)
        self.decode = Timed(Decoder(limits, settings.segment_keys), "decode")
        self.decode.run.warm()
        self.decode_feedback = partial(decode_feedback, limits=limits)
        self.decode_lifecycle = partial(decode_lifecycle, limits=limits)
        self.assigned = False
        self.joined: members.Joined = members.nobody
        self._producing = metrics.Shared("produce")
        self._readers: Counter[str] = Counter()
        self._done: dict[tuple[str, TP], int] = {}          # the last offset that each agent is through with
        self.timer(self._checkpoint_ms, self.checkpointer.checkpoint, "checkpoint")
        self.app.task(self._send_outputs)

    # -- what agents use ----------------------------------------------------------------------------

    def state(self, agent: str, codec: Codec[Any]) -> None:
        """Declare an agent's keyed state; `partition.states(agent)` gives it."""
        self.checkpointer.register(agent, codec)

    def agent(self, name: str, row: TopicRow, handle: Handler) -> None:
        """Run `handle(batch, partition)` for every batch of a topic: one at a time, acked at a checkpoint."""
        topic = self.app.topic(self.settings.topic(row.name), key_type=bytes, value_type=bytes,
                               key_serializer="raw", value_serializer="raw", allow_empty=True)

        self._readers[topic.get_topic_name()] += 1

        async def run(stream: Any) -> None:
            async for event in stream.noack().events():
                await self._guarded(name, handle, event)

        run.__name__ = name
        self.app.agent(topic, name=name)(run)

    def timer(self, interval_ms: int | Callable[[], int], run: Callable[[], Coroutine[Any, Any, None]],
              name: str) -> None:
        """Run a coroutine every `interval_ms`; one that raises stops the worker, which is then restarted."""
        async def tick() -> None:
            while not self.app.should_stop:
                await self.app.sleep((interval_ms if isinstance(interval_ms, int) else interval_ms()) / 1000)
                if self.app.should_stop:
                    return
                try:
                    await run()
                    await self.outbox.room()
                except Exception as error:
                    await self._fail(name, error)
                    return

        tick.__name__ = name
        self.app.task(tick)

    def behind(self, agent: str, row: TopicRow, partition: int) -> bool:
        """True if records of a partition are known to wait for an agent."""
        tp = TP(self.settings.topic(row.name), partition)
        end, done = self.app.monitor.tp_end_offsets.get(tp), self._done.get((agent, tp))
        return end is not None and done is not None and end - done > 1

    def done(self, agent: str, row: TopicRow, partition: int) -> int:
        """The last offset that an agent is through with; -1 if none is known."""
        return self._done.get((agent, TP(self.settings.topic(row.name), partition)), -1)

    async def end(self, row: TopicRow, partition: int) -> int:
        """The offset after the last record of a partition, as the broker says now."""
        tp = TP(self.settings.topic(row.name), partition)
        ends = await self.app.consumer.highwaters(tp)
        return int(ends[tp])

    def wrong(self) -> list[str]:
        """Why the worker is not ready, for /readyz; empty when it is."""
        reasons = []
        if not self.assigned:
            reasons.append("waiting for the consumer group, or restoring state")
        allowed = max(30.0, 5 * self.settings.checkpoint_ms / 1000)
        age = time.monotonic() - self.checkpointer.last_success
        if self.assigned and age > allowed:
            reasons.append(f"no checkpoint for {age:.0f} s: is the broker away?")
        return reasons

    async def stop(self) -> None:
        """Write a last checkpoint, then leave the group."""
        if not self.app.crashed:
            try:
                await asyncio.wait_for(self.checkpointer.checkpoint(), STOP_SECONDS)
            except Exception as error:
                logger.warning("checkpoint.skipped", reason="the worker stops", error=repr(error))
        self.checkpointer.close()
        stopping = asyncio.ensure_future(self.app.stop())       # waits for what it has to send, for ever if it may
        done, _ = await asyncio.wait({stopping}, timeout=LEAVE_SECONDS)
        if not done:
            logger.warning("stop.cut_short", reason="the broker does not answer; the group will notice by itself")

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that this worker owns now."""
        return list(self.checkpointer.partitions.values())

    def _checkpoint_ms(self) -> int:
        """How long until the next checkpoint: longer where much changes, so that snapshots take their share only."""
        share = int(self.checkpointer.held_seconds / SNAPSHOT_SHARE * 1000)
        return max(self.settings.checkpoint_ms, min(share, MOST_CHECKPOINT_MS))

    # -- what keeps it exact ------------------------------------------------------------------------

    async def _guarded(self, name: str, handle: Handler, event: Any) -> None:
        batch: RecordBatch = event.value
        partition = self.checkpointer.partitions.get(batch.partition)
        if partition is None or partition.closed or not await self._follows(name, batch, partition):
            return
        metrics.BATCH_EVENTS.labels(batch.topic).observe(len(batch))
        try:
            decoding = self.decode.seconds
            with metrics.stage(name, lambda: self.decode.seconds - decoding):
                await handle(batch, partition)
            with self._producing:
                await self.outbox.room()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._fail(name, error, topic=batch.topic, partition=batch.partition,
                             first_offset=batch.first_offset, last_offset=batch.last_offset)
            return
        partition.note(event)
        if not partition.closed:
            self._lag(name, batch)
        batch.read(self._readers[batch.topic])

    async def _follows(self, name: str, batch: RecordBatch, partition: Partition) -> bool:
        """False for a batch before which others are missing; they are fetched again."""
        verdict = partition.continuity.check(name, batch)
        if verdict is Verdict.SEEK:
            offset = partition.continuity.seek_to(batch.topic)
            logger.warning("batch.gap", agent=name, topic=batch.topic, partition=batch.partition,
                           first_offset=batch.first_offset, read_again_from=offset)
            metrics.REREADS.labels(batch.topic).inc()
            self.app.consumer.read_again(TP(batch.topic, batch.partition), offset)
        return verdict is Verdict.TAKE

    async def _fail(self, name: str, error: Exception, **where: Any) -> None:
        """A fault of ours: nothing is acked; stop at once, so that a restart begins from the last checkpoint."""
        if self.app.should_stop:
            return
        logger.error("worker.failed", stage=name, error=repr(error), exc_info=error, **where)
        self.checkpointer.close()
        os._exit(70)

    def _lag(self, agent: str, batch: RecordBatch) -> None:
        tp = TP(batch.topic, batch.partition)
        end = self.app.monitor.tp_end_offsets.get(tp)
        self._done[agent, tp] = batch.last_offset
        if end is not None:
            metrics.LAG.labels(batch.topic, str(batch.partition)).set(max(0, end - batch.last_offset - 1))

    async def _send_outputs(self) -> None:
        try:
            await self.outbox.run()
        except Exception as error:
            await self._fail("outputs", error)

    def _ack(self, event: Any) -> None:
        event.ack()

    async def _commit(self) -> None:
        await self.app.consumer.commit()

    def _start(self, topic: str, partition: int) -> int | None:
        found: int | None = self.app.consumer.started_at.get(TP(topic, partition))
        return found

    def _written(self, partition: int, offset: int) -> None:
        self.table.data.set_persisted_offset(TP(self.table.changelog_topic_name, partition), offset)

    async def _before_revoke(self, revoked: set[TP]) -> None:
        metrics.REBALANCES.inc()
        self.assigned = False
        try:
            await asyncio.wait_for(self.checkpointer.checkpoint(), self.settings.session_timeout_ms / 1000)
        except Exception as error:
            logger.warning("checkpoint.skipped", reason="partitions are being revoked", error=repr(error))
        self._let_go()

    def _let_go(self) -> None:
        """The partitions may be another worker's now; what batches under way have told of them since goes with them."""
        self.checkpointer.close()
        self._done.clear()
        metrics.LAG.clear()
        metrics.WATERMARK_DELAY.clear()

    async def _on_rebalance_complete(self, sender: Any, **_: Any) -> None:
        self.joined(self.settings.group, self.app.consumer.member_id)
        telemetry = self.settings.topic(TELEMETRY.name)
        self._let_go()
        self.checkpointer.open({tp.partition for tp in self.app.consumer.assignment() if tp.topic == telemetry})
        self.assigned = True


def _new_app(settings: Settings) -> App:
    settings.data_dir.mkdir(parents=True, exist_ok=True)     # Faust makes its own folder in it
    servers = ";".join(f"kafkabatch://{server}" for server in bootstrap_servers(settings))
    return App(
        settings.group,
        broker=servers,
        broker_credentials=_credentials(settings),
        broker_client_id="streamgauge-worker",
        broker_session_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.session_timeout_ms / 3000,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        producer_max_request_size=MAX_REQUEST_BYTES,
        producer_max_batch_size=BATCH_BYTES,
        producer_linger=0,                  # the outbox waits already
        store="memory://",
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        stream_wait_empty=False,
        web_enabled=False,
        loghandlers=[],
        datadir=str(settings.data_dir / "faust"),
        autodiscover=False,
        topic_disable_leader=True,
        TableManager=Tables,
    )


def _credentials(settings: Settings) -> Any:
    protocol, context = settings.kafka_security_protocol, ssl_context(settings)
    if protocol.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=settings.kafka_sasl_username, password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism, ssl_context=context)
        credentials.protocol = faust.types.auth.AuthProtocol(protocol)
        return credentials
    return faust.SSLCredentials(context) if context else None
