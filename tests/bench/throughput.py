"""Events a second of one worker, from a full topic, everything on; beside peers on the same events in the same run.

The worker (or peer) is pinned to core 0, the broker to core 1. The rate is taken from the worker's own counter between
its first and its last batch; start-up, joining the group and compiling are left out, for the peers as well.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support import ROOT

from streams.settings import Settings
from streams.topics import TELEMETRY
from tests.bench.load import Item, events
from tests.bench.world import WORKER_CORE, filled, machine, pin, rate, running, stages

SIZES = {True: (20_000, 2_000, 1), False: (1_500_000, 20_000, 3)}   # quick: (events, a peer's events, runs)
#: name -> (module, what the table says).
PEERS = {"tutorial": ("tests.bench.peers.tutorial", "Faust tutorial: pydantic + River HST + 3 windows")}


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    total, for_peer, runs = SIZES[quick]
    load = events(total)
    with tempfile.TemporaryDirectory() as folder:
        ours = sorted((_ours(load, Path(folder)) for _ in range(runs)), key=lambda run: run["events_per_s"])
        peers = {name: statistics.median(_peer(module, load[:for_peer], Path(folder)) for _ in range(runs))
                 for name, (module, _) in PEERS.items()}
    middle = ours[len(ours) // 2]
    best = middle["events_per_s"]
    _print(load, middle, peers)
    return {"bench": "throughput", "quick": quick, "events": total, "events_per_s": round(best),
            "peers": {name: round(found) for name, found in peers.items()},
            "ratio": {name: round(best / found, 1) for name, found in peers.items()}, "stages_us": middle["stages_us"],
            "runs": [round(run["events_per_s"]) for run in ours], "machine": machine()}


def _ours(load: list[Item], folder: Path) -> dict[str, Any]:
    with filled(load, folder) as broker, running(broker, folder) as worker:
        found = rate([worker], len(load))
        parts = stages(worker, len(load))
    parts["rest"] = round(1e6 / found - sum(parts.values()), 3)
    return {"events_per_s": found, "stages_us": parts}


def _peer(module: str, load: list[Item], folder: Path) -> float:
    with filled(load, folder) as broker:
        topic = Settings(kafka_url=broker.url).topic(TELEMETRY.name)
        environment = os.environ | {"PEER_BROKER": broker.url, "PEER_EVENTS": str(len(load)), "PEER_TOPIC": topic,
                                    "PYTHONPATH": str(ROOT)}
        peer = subprocess.Popen([sys.executable, "-m", module, "worker", "-l", "warn"], cwd=folder, env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        pin(peer.pid, WORKER_CORE)
        try:
            out, errors = peer.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            peer.kill()
            raise
        found = [line for line in out.splitlines() if line.startswith('{"events"')]
        if not found:
            raise RuntimeError(f"{module} gave no figure (exit {peer.returncode}): {errors[-2000:]}")
        answer = json.loads(found[0])
        return float(answer["events"]) / float(answer["seconds"])


def _print(load: list[Item], ours: dict[str, Any], peers: dict[str, float]) -> None:
    console = Console(stderr=False)
    table = Table(title=f"Throughput: {len(load):,} events of {len(load[0][1])} bytes; {machine()}")
    for column in ("way", "events/s", "ratio"):
        table.add_column(column, justify="left" if column == "way" else "right")
    best = ours["events_per_s"]
    table.add_row("Streamgauge, one worker on one core", f"{best:,.0f}", "1")
    for name, found in peers.items():
        table.add_row(PEERS[name][1], f"{found:,.0f}", f"1/{best / found:.1f}")
    console.print(table)
    parts = sorted(ours["stages_us"].items(), key=lambda part: -part[1])
    console.print("µs an event: " + ", ".join(f"{name} {cost}" for name, cost in parts)
                  + "  (rest: Faust, aiokafka, the event loop, fetching)")
