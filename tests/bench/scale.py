"""How speed and memory follow the number of models, 10 to 10,000; events one a record, and 100 a record.

Memory is what the worker holds at the end, less what it held before the first event, by model that was seen.
What a model costs is its windows: so their number is told, where an event's time goes by stage and around the stages
(fetches, the Kafka client, sinks, the event loop, garbage), and two floors: the bytes of events and windows alone
(`scale_floor`); and with what carries them (`carried`): an event as with the fewest models, windows as bytes alone, and
what is around the stages. That would be left if no pane, watch, detector or snapshot cost more for being one of many.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support import until

from infra.embedded.broker import TansuBroker
from tests.bench.load import batched, events
from tests.bench.scale_floor import floor
from tests.bench.world import filled, machine, rate, resident_bytes, running, stages

MODELS = {True: (10, 100), False: (10, 100, 1_000, 10_000)}
EVENTS = {True: 60_000, False: 500_000}
IN_A_RECORD = 100
#: Of the table, where the output is no terminal.
WIDTH = 120
#: The stage that is no work.
WAITING = "produce"
#: Stages that follow the number of windows.
_OF_WINDOWS = ("aggregation", "drift", "alerts.windows", "retraining.windows", "snapshot")


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures by number of models."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        empty = _empty(Path(folder))
        for models in MODELS[quick]:
            found[str(models)] = _measure(models, EVENTS[quick], empty, Path(folder))
    for row in found.values():
        row["floor_us"]["carried_events_per_s"] = _carried(row, found[str(MODELS[quick][0])])
    _print(found)
    return {"bench": "scale", "quick": quick, "events": EVENTS[quick], "machine": machine()} | {
        name: {models: figures[name] for models, figures in found.items()} for name in next(iter(found.values()))}


def _empty(folder: Path) -> int:
    """What a worker holds before the first event."""
    with filled([], folder) as broker, running(broker, folder) as worker:
        worker.wait_ready(120)
        return resident_bytes(worker)


def _measure(models: int, count: int, empty: int, folder: Path) -> dict[str, Any]:
    load = events(count, models)
    seen = len({key for key, _ in load})
    with filled(load, folder) as broker:
        figures = _one_by_one(broker, count, seen, empty, folder)
    with filled(list(batched(load, IN_A_RECORD)), folder) as broker, running(broker, folder) as worker:
        figures["batched_events_per_s"] = round(rate([worker], count).events_per_s)
    return figures | {"floor_us": floor(load)}


def _one_by_one(broker: TansuBroker, count: int, seen: int, empty: int, folder: Path) -> dict[str, Any]:
    with running(broker, folder) as worker:
        found = rate([worker], count)
        around = found.cpu_us - sum(took for stage, took in stages(worker, count).items() if stage != WAITING)
        until(lambda: worker.metric("streamgauge_snapshot_rows") > 0, 60, "a snapshot")
        return {"events_per_s": round(found.events_per_s), "cpu_us": round(found.cpu_us, 3),
                "around_us": round(around, 3), "bytes_per_model": round((resident_bytes(worker) - empty) / seen),
                "events_a_window": round(count / max(1.0, worker.metric("streamgauge_windows_closed_total")), 1),
                "stages_us": stages(worker, count), "models_seen": seen,
                "snapshot_bytes": round(worker.metric("streamgauge_snapshot_bytes")),
                "snapshot_seconds": round(worker.metric("streamgauge_snapshot_seconds_sum")
                                          / max(1.0, worker.metric("streamgauge_snapshot_seconds_count")), 3)}


def _carried(row: dict[str, Any], fewest: dict[str, Any]) -> int:
    """Events a second if windows cost their bytes, and what carries them; see the module."""
    windows = row["floor_us"]["windows_written"] + row["floor_us"]["windows_read"]
    return round(1e6 / (fewest["cpu_us"] + windows + max(0.0, row["around_us"] - fewest["around_us"])))


def _print(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"Scale; {machine()}")
    for column in ("models", "events/s", "100 a record", "kB a model", "snapshot MB", "snapshot s", "events a window",
                   "us a window", "bytes alone", "carried"):
        table.add_column(column, justify="right")
    for models, row in found.items():
        table.add_row(f"{int(models):,}", f"{row['events_per_s']:,}", f"{row['batched_events_per_s']:,}",
                      f"{row['bytes_per_model'] / 1e3:,.0f}", f"{row['snapshot_bytes'] / 1e6:,.1f}",
                      f"{row['snapshot_seconds']:,.2f}", f"{row['events_a_window']:,}", f"{_of_windows_us(row):,.0f}",
                      f"{row['floor_us']['events_per_s']:,}", f"{row['floor_us']['carried_events_per_s']:,}")
    Console(width=max(Console().width, WIDTH)).print(table)


def _of_windows_us(row: dict[str, Any]) -> float:
    """What follows windows, a window: they are made, read for drift and alerts, and written down."""
    return sum(row["stages_us"].get(stage, 0.0) for stage in _OF_WINDOWS) * row["events_a_window"]
