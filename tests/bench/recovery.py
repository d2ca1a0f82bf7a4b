"""What a fault costs: events lost or counted twice, alerts lost or repeated, seconds until nothing is behind.

One run a fault, each on services of its own, under a steady load that never stops. Afterwards:

    lost, twice       events of the log of `telemetry` against the counts of the 1 s windows on `metrics`
    alerts_lost       alerts of the topic that a subscriber, which comes back after each break, did not get
    alerts_repeated   alerts that it got twice, and incidents that were opened twice
    rows_wrong        windows whose row in PostgreSQL is missing or differs
    zero_lag_s        from the fault (or from its end, where a store was away) until every partition's newest event is
                      younger than half a second, and, where a store was away, until it has everything; each once
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import redis
from fleet import flush
from rich.console import Console
from rich.table import Table
from support import Worker, newest, produce, read_all, until

from infra.embedded.process import Service
from infra.kafka.server import KafkaMissingError, KafkaServer, find_java
from tests.bench.listener import Listener
from tests.bench.stack import Load, Stack, best_broker, named, pin_all, stack
from tests.bench.world import BROKER_CORE, WORKER_CORE, machine, pin

RATE = {True: 2_000, False: 20_000}
BEFORE_S, AFTER_S = {True: 4.0, False: 12.0}, {True: 2.0, False: 6.0}
AWAY_S = {True: 3.0, False: 60.0}
FRESH_S, PATIENCE_S, STORED_S = 0.5, 180.0, 20
SIZE_MS = 1_000
DISK_MB = 400
LATER_MS = 200_000


class _Event(msgspec.Struct):
    model: str
    ts: int


class Run:
    """One fault's run."""

    def __init__(self, running: Stack, quick: bool) -> None:
        self.stack = running
        self.away_s = AWAY_S[quick]
        self.since = 0.0                    # when what is measured began: the fault, or its end
        self.level: set[tuple[str, str]] = set()    # (sink, topic): had everything since
        self.stores = False                 # wait for the stores as well
        self.disk: Path | None = None

    @property
    def worker(self) -> Worker:
        return self.stack.workers[-1]

    def begin(self) -> None:
        """From now on it is counted how long it takes."""
        self.since = time.monotonic()


# -- the faults ----------------------------------------------------------------------------------------


def kill(run: Run) -> None:
    """kill -9, and a new worker at once."""
    run.begin()
    run.worker.kill()
    run.stack.worker()


def stop(run: Run) -> None:
    """SIGTERM, and a new worker when the old one has gone."""
    run.begin()
    run.worker.stop()
    run.stack.worker()


def freeze(run: Run) -> None:
    """The worker is stopped for longer than its session, then goes on."""
    run.begin()
    run.worker.signal(signal.SIGSTOP)
    time.sleep(2 * run.stack.settings.session_timeout_ms / 1000)
    run.worker.signal(signal.SIGCONT)


def rebalance(run: Run) -> None:
    """A second worker comes, and is killed."""
    second = run.stack.worker().wait_ready()
    time.sleep(AFTER_S[False])
    run.begin()
    second.kill()
    run.stack.workers.remove(second)


def poison(run: Run) -> None:
    """A thousand records that nobody can read, in the midst of the others."""
    run.begin()
    bad = [b'{"event_id":', b"[" * 20_000, b'{"ts":1e999}', b"\x00\xff" * 300, b"[" + b"1," * 4_000 + b"1]"] * 200
    asyncio.run(produce(run.stack.settings, "telemetry", bad))


def broker_restart(run: Run) -> None:
    """The broker is killed, and started again on its log."""
    broker = run.stack.services["KAFKA_URL"]
    run.begin()
    os.kill(broker.pid, signal.SIGKILL)
    broker.stop()
    broker.start()
    pin_all(broker)


def redis_full(run: Run) -> None:
    """Redis takes no writes for a while."""
    client = redis.Redis.from_url(run.stack.services["REDIS_URL"].url)
    client.config_set("maxmemory", 1)
    time.sleep(run.away_s / 2)
    client.config_set("maxmemory", 0)
    run.stores = True
    run.begin()


def database_away(run: Run) -> None:
    """PostgreSQL is stopped for a minute."""
    database = run.stack.services["DATABASE_URL"]
    database.stop()
    time.sleep(run.away_s)
    database.start()
    pin_all(database)
    run.stores = True
    run.begin()


def disk_full(run: Run) -> None:
    """The disk of PostgreSQL fills up, and gets room again; PostgreSQL is started again if that has ended it."""
    assert run.disk is not None
    filler = run.disk / "filler"
    with filler.open("wb", buffering=0) as out, suppress(OSError):     # a buffer would fail again at its end
        while out.write(b"\0" * 65_536):
            pass
    time.sleep(run.away_s)
    filler.unlink()
    database = run.stack.services["DATABASE_URL"]
    if not database.answers():
        database.stop()
        database.start()
        pin_all(database)
    run.stores = True
    run.begin()


FAULTS: dict[str, Callable[[Run], None]] = {
    "kill": kill, "stop": stop, "freeze": freeze, "rebalance": rebalance, "poison": poison,
    "broker_restart": broker_restart, "redis_full": redis_full, "database_away": database_away,
    "disk_full": disk_full}
QUICK = ("kill",)
#: They need a broker that keeps its log.
ON_KAFKA = ("broker_restart",)


# -- a run ---------------------------------------------------------------------------------------------


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures by fault."""
    pin(os.getpid(), BROKER_CORE)
    console, found = Console(stderr=True), {}
    for name in QUICK if quick else FAULTS:
        console.print(f"{name}: {(FAULTS[name].__doc__ or '').strip()} ...")
        try:
            found[name] = inflict(name, quick)
        except NotHereError as error:
            console.print(f"{name} was not run: {error}")
            found[name] = {"not_run": str(error)}
        except AssertionError as error:
            console.print(f"{name} did not recover: {error}")
            found[name] = {"failed": str(error)[:500]}
        else:
            console.print(", ".join(f"{key} {value}" for key, value in found[name].items()))
    _print(found)
    return {"bench": "recovery", "quick": quick, "events_per_s": RATE[quick], "machine": machine(), "faults": found}


class NotHereError(RuntimeError):
    """This machine cannot do what the fault needs."""


def inflict(name: str, quick: bool) -> dict[str, Any]:
    """Run one fault; the figures."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        disk = held.enter_context(_small_disk(folder)) if name == "disk_full" else None
        running = held.enter_context(stack(
            folder, _kafka(folder) if name in ON_KAFKA else None if quick else best_broker(folder),
            disk and disk / "postgres"))
        run = Run(running, quick)
        run.disk = disk
        pin(running.worker().wait_ready().process.pid, WORKER_CORE)     # type: ignore[union-attr]
        listener = held.enter_context(Listener(running))
        load = Load(running.settings, RATE[quick])
        held.callback(load.kill)
        until(lambda: _fresh(running), PATIENCE_S, "the load is kept up with")
        time.sleep(BEFORE_S[quick])
        until(lambda: "error_rate" in listener.causes, PATIENCE_S, "an alert about the load's failing model")
        FAULTS[name](run)
        until(partial(_each_once, [lambda: _fresh(running), lambda: not run.stores or _caught_up(run)], set()),
              PATIENCE_S, f"zero lag after {name}")
        took = time.monotonic() - run.since
        time.sleep(AFTER_S[quick])
        said = load.stop()
        return asyncio.run(_compare(running, listener)) | {
            "zero_lag_s": round(took, 2), "broker": named(running.services["KAFKA_URL"]), "events": said["sent"],
            "sent_per_s": round(said["sent"] / said["seconds"])}


def _kafka(folder: Path) -> Service:
    try:
        find_java()
    except KafkaMissingError as error:
        raise NotHereError(str(error)) from error
    return KafkaServer(folder / "kafka")


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own, in memory, that can be filled without harm."""
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", str(place)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"a small disk cannot be mounted ({done.stderr.strip()}); it takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def _each_once(conditions: Sequence[Callable[[], bool]], met: set[int]) -> bool:
    """True if each was true at some look: under load they are seldom so at the same instant. `met` is kept by looks."""
    met |= {at for at, condition in enumerate(conditions) if at not in met and condition()}
    return len(met) == len(conditions)


def _fresh(running: Stack) -> bool:
    """True if every partition's newest event, as the workers have it, is younger than half a second."""
    waits = {sample.labels["partition"]: sample.value for worker in running.workers if not worker.died()
             for sample in worker.samples("streamgauge_watermark_delay_seconds")}
    return len(waits) == running.settings.partitions and max(waits.values()) < FRESH_S and _moves(running)


def _moves(running: Stack) -> bool:
    """True if events are being taken in right now: figures of a frozen worker look well."""
    first = _events(running)
    time.sleep(0.1)
    return _events(running) > first


def _events(running: Stack) -> float:
    return sum(worker.metric("streamgauge_events_total") for worker in running.workers if not worker.died())


def _caught_up(run: Run) -> bool:
    """True if every sink has had everything of each topic once, by ends that the broker told since `run.since`."""
    lags, looked = _lags(run.worker)
    began = time.time() - (time.monotonic() - run.since)
    run.level |= {which for which, lag in lags.items() if lag == 0 and looked.get(which[0], 0.0) > began}
    return bool(lags) and run.level >= lags.keys()


def _stored(worker: Worker) -> bool:
    """True if every sink has everything."""
    lags, _ = _lags(worker)
    return bool(lags) and not any(lags.values())


def _lags(worker: Worker) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Records that are not in the stores yet by (sink, topic), and from when on each sink knows."""
    found = worker.samples("sink_lag_records", "sink_lag_measured_timestamp_seconds")
    return ({(sample.labels["sink"], sample.labels["topic"]): sample.value for sample in found
             if sample.name == "sink_lag_records"},
            {sample.labels["sink"]: sample.value for sample in found if sample.name != "sink_lag_records"})


# -- what came of it -----------------------------------------------------------------------------------


async def _compare(running: Stack, listener: Listener) -> dict[str, int]:
    settings = running.settings
    end_ms = int(time.time() * 1000) + LATER_MS
    await produce(settings, "telemetry", flush(settings, end_ms), partition=lambda item: item["partition_"])
    wanted = await _sent(running)
    got: Counter[tuple[int, str, int]] = Counter()
    for _ in range(int(PATIENCE_S)):
        windows = newest(await read_all(settings, "metrics"))
        got = Counter({(w["partition"], w["model"], w["start_ms"]): w["count"] for w in windows.values()
                       if w["size_ms"] == SIZE_MS and w["model"] != "flush"})
        if got == wanted:
            break
        await asyncio.sleep(1)
    until(lambda: all(_stored(worker) for worker in running.workers[-1:]), PATIENCE_S, "everything is in the stores")
    told = [json.loads(record.value) for record in await read_all(settings, "alerts")]
    await asyncio.to_thread(listener.wait_for, {alert["alert_id"] for alert in told}, 20.0)
    return {"lost": (wanted - got).total(), "twice": (got - wanted).total()} | _alerts(told, listener) | {
        "rows_wrong": await _rows_wrong(running, windows)}


async def _sent(running: Stack) -> Counter[tuple[int, str, int]]:
    """Events of the log by (partition, model, second)."""
    read, found = msgspec.json.Decoder(_Event).decode, Counter[tuple[int, str, int]]()
    for record in await read_all(running.settings, "telemetry"):
        try:
            event = read(record.value)
        except (msgspec.MsgspecError, RecursionError):
            continue
        if event.model != "flush":
            found[(record.partition, event.model, event.ts - event.ts % SIZE_MS)] += 1
    return found


def _alerts(told: list[dict[str, Any]], listener: Listener) -> dict[str, int]:
    ids = {alert["alert_id"] for alert in told}
    opened = Counter(alert["incident_id"] for alert in {alert["alert_id"]: alert for alert in told}.values()
                     if alert["state"] == "open")
    assert any(alert["cause"] == "error_rate" for alert in told), "the load's failing model was not found"
    return {"alerts": len(ids), "alerts_lost": len(ids - listener.seen.keys()),
            "alerts_repeated": sum(count - 1 for count in listener.seen.values())
            + sum(count - 1 for count in opened.values())}


async def _rows_wrong(running: Stack, windows: dict[str, dict[str, Any]]) -> int:
    """Rows that are missing or differ, once the store has had time: a lag of 0 is as old as the sink's last look."""
    connection = await asyncpg.connect(running.services["DATABASE_URL"].url)
    try:
        for _ in range(STORED_S):
            rows = {row["window_id"]: row["count"]
                    for row in await connection.fetch("SELECT window_id, count FROM metric_windows")}
            wrong = sum(rows.get(name) != window["count"] for name, window in windows.items())
            if not wrong:
                break
            await asyncio.sleep(1)
    finally:
        await connection.close()
    return wrong


def _print(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"Recovery; {machine()}")
    columns = ("events", "lost", "twice", "alerts", "alerts_lost", "alerts_repeated", "rows_wrong", "zero_lag_s")
    for column in ("fault", *columns):
        table.add_column(column.replace("_", " "), justify="left" if column == "fault" else "right")
    for name, row in found.items():
        table.add_row(name, *(f"{row[column]:,}" if column in row else "-" for column in columns))
    Console().print(table)


