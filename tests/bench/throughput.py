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
GRANULARITIES_MS = (1_000, 10_000, 60_000, 600_000, 3_600_000)
TUTORIAL = "tutorial"
PEERS = {"quixstreams": "quix", "bytewax": "waxed"}
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SAID = {TUTORIAL: "Faust tutorial", "quixstreams": "Quix Streams", "bytewax": "Bytewax"}
WORK = "pydantic, River HST 25 × 8 a model, windows of 1, 10, 60 s: count and sum of latency"
OURS = "the contract, HST 25 × 8, windows of 1 s to 1 h of 14 fields with sketches, drift, alerts, snapshots, outputs"


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    total, for_peer, runs = SIZES[quick]
    load = events(total)
    with tempfile.TemporaryDirectory() as folder:
        ours = sorted((_ours(load, Path(folder)) for _ in range(runs)), key=lambda run: run["events_per_s"])
        peers = {name: _median(name, load[:for_peer], Path(folder), runs) for name in SAID}
    middle = ours[len(ours) // 2]
    best = middle["events_per_s"]
    _print(load, middle, peers)
    return {"bench": "throughput", "quick": quick, "events": total, "events_per_s": round(best),
            "peers": {name: found and round(found) for name, found in peers.items()},
            "ratio": {name: found and round(best / found, 1) for name, found in peers.items()},
            "stages_us": middle["stages_us"],
            "runs": [round(run["events_per_s"]) for run in ours], "machine": machine()}


def _ours(load: list[Item], folder: Path) -> dict[str, Any]:
    sizes = ",".join(map(str, GRANULARITIES_MS))
    with filled(load, folder) as broker, running(broker, folder, granularities_ms=sizes) as worker:
        found = rate([worker], len(load)).events_per_s
        parts = stages(worker, len(load))
    parts["rest"] = round(1e6 / found - sum(parts.values()), 3)
    return {"events_per_s": found, "stages_us": parts}


def _median(name: str, load: list[Item], folder: Path, runs: int) -> float | None:
    """A peer's rate; None where it is not installed."""
    if name in PEERS and not PEERS_PYTHON.exists():
        return None
    return statistics.median(_peer(name, load, folder) for _ in range(runs))


def _command(name: str) -> list[str]:
    if name == TUTORIAL:
        return [sys.executable, "-m", "tests.bench.peers.tutorial", "worker", "-l", "warn"]
    return [str(PEERS_PYTHON), "-m", f"tests.bench.peers.{PEERS[name]}"]


def _peer(name: str, load: list[Item], folder: Path) -> float:
    with filled(load, folder) as broker, tempfile.TemporaryDirectory(dir=folder) as place:
        topic = Settings(kafka_url=broker.url).topic(TELEMETRY.name)
        environment = os.environ | {"PEER_BROKER": broker.url, "PEER_EVENTS": str(len(load)), "PEER_TOPIC": topic,
                                    "PYTHONPATH": str(ROOT)}
        peer = subprocess.Popen(_command(name), cwd=place, env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        pin(peer.pid, WORKER_CORE)
        try:
            out, errors = peer.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            peer.kill()
            raise
        found = [line for line in out.splitlines() if line.startswith('{"events"')]
        if not found:
            raise RuntimeError(f"{name} gave no figure (exit {peer.returncode}): {errors[-2000:]}")
        answer = json.loads(found[0])
        return float(answer["events"]) / float(answer["seconds"])


def _print(load: list[Item], ours: dict[str, Any], peers: dict[str, float]) -> None:
    console = Console(stderr=False)
    table = Table(title=f"Throughput: {len(load):,} events of {len(load[0][1])} bytes; {machine()}")
    for column in ("way", "events/s", "ratio", "work"):
        table.add_column(column, justify="right" if column in ("events/s", "ratio") else "left")
    best = ours["events_per_s"]
    table.add_row("Streamgauge", f"{best:,.0f}", "1", OURS)
    for name, found in peers.items():
        if found is None:
            table.add_row(SAID[name], "-", "-", "not installed: make bench")
        else:
            table.add_row(SAID[name], f"{found:,.0f}", f"1/{best / found:.1f}", WORK)
    console.print(table)
    parts = sorted(ours["stages_us"].items(), key=lambda part: -part[1])
    console.print("µs an event: " + ", ".join(f"{name} {cost}" for name, cost in parts)
                  + "  (rest: Faust, aiokafka, the event loop, fetching)")
