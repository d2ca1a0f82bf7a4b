"""The Numenta Anomaly Benchmark: one configuration for all series, nothing looks ahead, the rules of `nab_rules`.

Our detector (`TimeSeries`) is made anew for each series and sees each row once, in order. Its scores in the rest after
an alarm are 0 (`RestingAlarms`); that rule's threshold is fixed. `fixed_threshold` is the result of exactly these
alarms; the others take the threshold that is best over the whole corpus, as the benchmark's own optimizer does.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agents.scoring.detectors.time_series import LEAST_THRESHOLD, TIME, TimeSeries
from agents.scoring.resting import RestingAlarms
from tests.bench.nab_rules import Array, Corpus, Series, read
from tests.bench.world import machine

LEADERS = Path("baselines") / "nab_leaderboard.csv"
#: The scoreboard's columns by profile.
COLUMNS = {"standard": "standard", "reward_low_FP_rate": "reward_low_FP", "reward_low_FN_rate": "reward_low_FN"}


def main(quick: bool, data: Path) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    profiles, series, left_out = read(data / "nab" if (data / "nab").is_dir() else data)
    if quick:
        series = _first_of_folders(series)
    detect(series[0])                                               # compiles
    began = time.perf_counter()
    scores = [detect(each) for each in track(series, "series", console=Console(stderr=True))]
    took = time.perf_counter() - began
    corpus = Corpus(series)
    best = {name: corpus.best(scores, profile) for name, profile in profiles.items()}
    fixed = {name: corpus.at(scores, profile, float(np.nextafter(LEAST_THRESHOLD, 2.0)))
             for name, profile in profiles.items()}
    rows = sum(len(each.values) for each in series)
    figures = {
        "bench": "nab", "quick": quick, "series": len(series), "rows": rows, "windows": corpus.windows,
        "left_out": left_out,
        **{name: round(result.score, 2) for name, result in best.items()},
        "threshold": {name: result.threshold for name, result in best.items()},
        "fixed_threshold": {name: round(result.score, 2) for name, result in fixed.items()} | {
            "threshold": LEAST_THRESHOLD},
        "found": {name: result.found for name, result in best.items()},
        "false_alarms": {name: result.false_alarms for name, result in best.items()},
        "scoreboard": _scoreboard(data), "rows_per_s": round(rows / took), "machine": machine()}
    _print(figures, list(profiles))
    return figures


def detect(series: Series) -> Array:
    """The scores (n,) of a series, those of rests 0."""
    detector = TimeSeries()
    for name in (TIME, "value"):
        detector.column(name)
    return RestingAlarms().heard(detector.score_learn_many(np.column_stack((series.ts_ms, series.values))))


def _first_of_folders(series: list[Series]) -> list[Series]:
    seen: dict[str, Series] = {}
    for each in series:
        seen.setdefault(each.name.split("/")[0], each)
    return list(seen.values())


def _scoreboard(data: Path) -> dict[str, dict[str, float]]:
    """What NAB's README lists, where it is at hand."""
    if not (data / LEADERS).is_file():
        return {}
    with (data / LEADERS).open(newline="") as file:
        return {row["detector"]: {name: float(row[column]) for name, column in COLUMNS.items()}
                for row in csv.DictReader(file)}


def _print(figures: dict[str, Any], profiles: list[str]) -> None:
    table = Table(title=f"NAB, {figures['series']} series, {figures['rows']:,} rows, {figures['windows']} windows; "
                        f"{figures['machine']}", title_justify="left")
    table.add_column("detector", no_wrap=True)
    for name in profiles:
        table.add_column(name, justify="right")
    lines = {"time_series, threshold by NAB's rules": figures,
             "time_series, fixed threshold": figures["fixed_threshold"]}
    for title, line in lines.items():
        table.add_row(title, *(f"[bold]{line[name]:.1f}[/bold]" for name in profiles))
    table.add_section()
    for title, line in figures["scoreboard"].items():
        table.add_row(title, *(f"{line[name]:.1f}" if name in line else "" for name in profiles))
    console = Console(width=110)
    console.print(table)
    if figures["quick"]:
        console.print("--quick: the first series of each folder; the scoreboard is of all")
    for name, why in figures["left_out"].items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
    if not figures["windows"]:
        console.print("no series has a labelled window: there is nothing to find, and all scores are 0")
    found, false = figures["found"], figures["false_alarms"]
    console.print(f"standard: {found.get('standard', 0)} of {figures['windows']} windows found, "
                  f"{false.get('standard', 0)} false alarms; {figures['rows_per_s']:,} rows/s", highlight=False)
