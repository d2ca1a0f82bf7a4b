"""Changes of a model's errors: how many are found, how late, and how often falsely; beside River's detectors.

Ours is the whole core over late labels (`agents.drift.performance`), with an allowance of false alarms; River's are
the detectors with their own parameters. KSWIN is left out: it takes 160 us a value. A change that is not found within
the horizon counts as found at its end. False alarms are those on stationary streams of the same error rates. Each peer
is also put beside our detector alone at an allowance that gives no more false alarms than it does: one for all streams
(`worse_on`), or one for each (`worse_on_at_its_rate`, with the delay of ours, of the peer, and the `floor`: that of a
detector that knows both shares of errors).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.drift.budget import DAY_MS
from agents.drift.detectors import DETECTORS
from agents.drift.detectors.likelihood import Likelihood
from agents.drift.options import DriftOptions
from agents.drift.performance import PerformanceEngine
from streams.state.keyed import KeyedStates
from tests.bench.drift_floor import HEIGHTS, Informed, delay_at
from tests.bench.drift_streams import HORIZON, Episode, Errors, StreamError, drawn, episodes, names, stationary

SIZES = {True: (1, 2_000), False: (5, 10_000)}      # quick: (runs, stationary labels a run)
#: False alarms allowed a label; and the allowances among which the one for a peer is looked for.
ALLOWED = 1e-6
ALLOWANCES = tuple(10.0 ** (-6 + step / 8) for step in range(27))
STANDARD = "adwin"
PEERS = ("adwin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w", "fhddm")
#: Takes errors, gives the indices of alarms.
Finder = Callable[[Iterable[Errors]], list[list[int]]]


@dataclass
class Tally:
    """Of one detector on one stream."""

    changes: int = 0
    found: int = 0
    delays: list[int] = field(default_factory=list)
    false: int = 0
    stationary: int = 0


def main(quick: bool, data: Path) -> dict[str, Any]:
    """Run on the streams in `drift/` of a folder, or in the folder itself; print a table, return the figures."""
    folder = data / "drift" if (data / "drift").is_dir() else data
    known, left_out = taken(folder, quick)
    runs, calm = SIZES[quick]
    ours = summary(measured(lambda _: core(ALLOWED), known, runs, calm))
    rivers = {name: summary(measured(lambda _, make=DETECTORS[name]: alone(make), known, runs, calm)) for name in PEERS}
    levels = [summary(measured(lambda _, rate=rate: alone(lambda: Likelihood(rate)), known, runs, calm))
              for rate in ALLOWANCES]
    floors = [summary(measured(lambda one, height=height: alone(lambda: Informed(one, height)), known, runs, calm))
              for height in HEIGHTS]
    matched = {name: _at_most(levels, river["false_per_10k"]) for name, river in rivers.items()}
    _print(ours, rivers, matched)
    return {"bench": "drift", "quick": quick, "left_out": left_out, "ours": ours, "river": rivers[STANDARD],
            "worse_on": worse_on(ours, rivers[STANDARD]),
            "peers": {name: {"river": _total(river), "ours": _total(matched[name]),
                             "worse_on": worse_on(matched[name], river),
                             "worse_on_at_its_rate": _beside_the_floor(levels, floors, river)}
                      for name, river in rivers.items()}}


def taken(folder: Path, quick: bool) -> tuple[list[Episode], dict[str, str]]:
    """(the changes of the streams of a folder; name -> why, of files that are none). Exits with a sentence if all are.
    """
    known: list[Episode] = []
    left_out: dict[str, str] = {}
    streams = names(folder)
    for name in streams[-2:] if quick else streams:
        try:
            known += list(episodes(folder, name))
        except StreamError as error:
            left_out[name] = str(error)
            print(f"left out: {error}", file=sys.stderr)
    if not known:
        raise SystemExit(f"no drift streams in {folder}: name a folder of NAME.npz, each with X and y, with --data")
    return known, left_out


def measured(finder_of: Callable[[Episode], Finder], known: list[Episode], runs: int, calm: int) -> dict[str, Tally]:
    """stream -> tally."""
    found: dict[str, Tally] = {}
    for number, episode in enumerate(known):
        tally, finder = found.setdefault(episode.stream, Tally()), finder_of(episode)
        for run in range(runs):
            rng = np.random.default_rng([number, run])
            before, after = drawn(episode, rng)
            alarms = finder((before, after))[1]
            tally.changes += 1
            tally.found += bool(alarms)
            tally.delays.append(alarms[0] if alarms else HORIZON)
            tally.false += len(finder((stationary(episode, rng, calm),))[0])
            tally.stationary += calm
    return found


def alone(make: Callable[[], Any]) -> Finder:
    """A detector of single values."""
    def find(parts: Iterable[Errors]) -> list[list[int]]:
        detector = make()
        return [detector.update_many(part).tolist() for part in parts]
    return find


def core(allowed: float, gap_ms: int = 1_000) -> Finder:
    """The core over late labels, given a label a second; and a budget that allows so many false alarms a label."""
    engine = PerformanceEngine(DriftOptions(budget_per_day=allowed * DAY_MS / gap_ms))

    def find(parts: Iterable[Errors]) -> list[list[int]]:
        states: KeyedStates[Any] = KeyedStates("performance", 0, engine.codec, {})
        found, offset = [], 0
        for part in parts:
            labels: list[Any] = [(offset + at, _label(error, (offset + at) * gap_ms)) for at, error in enumerate(part)]
            events = engine.run(labels, states, "feedback", 0)
            found.append([event.detected_ms // gap_ms - offset for event in events if event.state == "drifted"])
            offset += len(part)
        return found
    return find


def _label(error: float, ts: int) -> Any:
    """What the core reads of a late label; a contract's object would take longer than the core itself."""
    return SimpleNamespace(environment="prod", model="m", version="1", component="model", ts=ts, predicted_at=None,
                           prediction="yes", label="no" if error else "yes", segment={}, confidence=None)


def summary(found: dict[str, Tally]) -> dict[str, Any]:
    """In total (each stream counts the same), and by stream."""
    streams = {name: {"detected": round(tally.found / tally.changes, 3), "delay_mean": round(np.mean(tally.delays), 1),
                      "false_per_10k": round(1e4 * tally.false / tally.stationary, 3)} for name, tally in found.items()}
    return {key: round(float(np.mean([stream[key] for stream in streams.values()])), 3)
            for key in ("detected", "delay_mean", "false_per_10k")} | {"streams": streams}


def worse_on(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Streams on which ours finds fewer changes, or finds them later."""
    return [name for name, own in ours["streams"].items()
            if own["detected"] < theirs["streams"][name]["detected"]
            or own["delay_mean"] > theirs["streams"][name]["delay_mean"]]


def _at_most(levels: list[dict[str, Any]], false_per_10k: float) -> dict[str, Any]:
    fitting = [level for level in levels if level["false_per_10k"] <= false_per_10k]
    return min(fitting or levels[:1], key=lambda level: level["delay_mean"])


def _stream_by_stream(levels: list[dict[str, Any]], river: dict[str, Any]) -> dict[str, Any]:
    """On each stream the allowance that gives no more false alarms than the peer does there."""
    return {"streams": {
        name: min((level["streams"][name] for level in levels
                   if level["streams"][name]["false_per_10k"] <= theirs["false_per_10k"]),
                  key=lambda own: (-own["detected"], own["delay_mean"]), default=levels[0]["streams"][name])
        for name, theirs in river["streams"].items()}}


def _beside_the_floor(levels: list[dict[str, Any]], floors: list[dict[str, Any]],
                      river: dict[str, Any]) -> dict[str, dict[str, float]]:
    own = _stream_by_stream(levels, river)
    return {name: {"ours": own["streams"][name]["delay_mean"], "river": river["streams"][name]["delay_mean"],
                   "floor": delay_at(floors, name, river["streams"][name]["false_per_10k"])}
            for name in worse_on(own, river)}


def _total(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != "streams"}


def _print(ours: dict[str, Any], rivers: dict[str, Any], matched: dict[str, Any]) -> None:
    console = Console(width=150)
    table = Table(title="Changes of a model's errors: found, labels until then (found or not), false alarms per 10,000",
                  title_justify="left")
    for name in ("stream", "ours", *rivers):
        table.add_column(name, justify="left" if name == "stream" else "right")
    for stream in ours["streams"]:
        table.add_row(stream, *(_cell(found["streams"][stream]) for found in (ours, *rivers.values())))
    table.add_row("all", *(_cell(found) for found in (ours, *rivers.values())))
    table.add_row("our detector alone, as many false", "", *(_cell(matched[name]) for name in rivers))
    console.print(table)


def _cell(found: dict[str, Any]) -> str:
    return f"{found['detected']:.0%} {found['delay_mean']:.0f} {found['false_per_10k']:.2g}"
