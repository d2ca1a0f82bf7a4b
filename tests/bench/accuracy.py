"""How well detectors find labelled anomalies online, and how fast: ours, beside peers in the same run and a paper.

Each table is shuffled by a seed, and each row is scored before it is learnt (prequential); ROC-AUC and average
precision are over all rows, those of the warm-up included. One configuration for all tables; nothing looks ahead.
Peers are slow: each has a few seconds a table, and the ensemble's ROC-AUC on the same rows is printed beside theirs.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from support import ROOT

from agents.scoring.detectors import registry
from tests.bench.data import Matrix, average_precision, read, roc_auc, shuffled, tables, whole
from tests.bench.peers.detectors import PEERS
from tests.bench.world import machine

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
ENSEMBLE = "ensemble"
OURS = (ENSEMBLE, *registry.REGISTRY)
SEEDS = {True: (1,), False: (1, 2, 3)}
#: Rows of a table; rows of the rate at 25 x 8; seconds of a peer on a table.
MOST, RATE_ROWS, PEER_S = {True: 2_000, False: None}, {True: 4_000, False: 200_000}, {True: 0.3, False: 2.5}
#: A peer that takes so many times its seconds, and a start, hangs.
PATIENCE, PATIENCE_S = 3.0, 45.0
#: Of our detectors all but the ensemble and half-space trees run on the first rows only, to save time.
MOST_SINGLE = 100_000
RATE = " rate"
#: Our detectors that River has too.
RIVERS = {"half_space_trees": "river.HalfSpaceTrees", "loda": "river.LODA"}
#: The paper's name of each table that it has, and its detectors' columns in `baselines/`.
PAPER_FILE = Path("baselines") / "online_iforest_icml2024.csv"
PAPER_SETS = {"cover": "forestcover"} | {name: name for name in (
    "annthyroid", "donors", "http", "mammography", "satellite", "shuttle", "smtp")}


def main(quick: bool, data: Path) -> dict[str, Any]:
    """Run, print tables, return the figures."""
    found, left_out = tables(data)
    sets: dict[str, dict[str, float | None]] = {}
    precision: dict[str, dict[str, float | None]] = {}
    spent = {name: [0, 0.0] for name in OURS}
    for name, path in track(found.items(), "tables", console=Console(stderr=True)):
        sets[name], precision[name] = _ours(path, quick, spent)
    beside, theirs, missing = _peers(found, quick)
    rates = _rates(quick) | theirs
    paper = _paper(data)
    figures = {
        "bench": "accuracy", "quick": quick, "seeds": list(SEEDS[quick]), "rows": {
            name: len(read(path)[1]) for name, path in found.items()}, "left_out": left_out,
        "mean_roc_auc": _mean(sets, list(sets)),
        "mean_roc_auc_paper8": _mean(sets, [name for name in sets if name in PAPER_SETS]),
        "mean_average_precision": _mean(precision, list(sets)),
        "sets": sets, "average_precision": precision, "peers": beside, "peers_missing": missing,
        "paper": paper,
        "rows_per_s": rates | {f"{name} on the tables": round(n / s) for name, (n, s) in spent.items() if s},
        "us_per_row": {name: round(1e6 / rate, 2) for name, rate in rates.items() if rate},
        "ratio_to_river": {name: round(ours / theirs, 1) for name, river in RIVERS.items()
                           if (ours := rates[name]) and (theirs := rates[river])},
        "machine": machine()}
    _print(figures)
    return figures


def _ours(path: Path, quick: bool, spent: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Mean ROC-AUC and average precision over the seeds, by detector."""
    areas: dict[str, list[float]] = {name: [] for name in OURS}
    precisions: dict[str, list[float]] = {name: [] for name in OURS}
    for seed in SEEDS[quick]:
        x, y = shuffled(path, seed, MOST[quick])
        for name in OURS:
            whole = name in (ENSEMBLE, registry.HALF_SPACE_TREES)
            if seed > 1 and not whole:
                continue
            rows, labels = (x, y) if whole else (x[:MOST_SINGLE], y[:MOST_SINGLE])
            started = time.perf_counter()
            scores = _scores(name, rows)
            spent[name][0] += len(rows)
            spent[name][1] += time.perf_counter() - started
            area, precision = roc_auc(labels, scores), average_precision(labels, scores)
            areas[name] += [area] if area is not None else []
            precisions[name] += [precision] if precision is not None else []
    return tuple({name: round(float(np.mean(each)), 4) if each else None                    # type: ignore[return-value]
                  for name, each in by.items()} for by in (areas, precisions))


def _scores(name: str, x: Matrix) -> Matrix:
    detector = registry.make([name]) if name in (ENSEMBLE, registry.HALF_SPACE_TREES) else registry.member(name)
    return detector.score_learn_many(x)


def _peers(found: dict[str, Path], quick: bool
           ) -> tuple[dict[str, dict[str, Any]], dict[str, float | None], dict[str, str]]:
    """Each peer on the first seed's rows of every table, with the ensemble on as many; rates at 8 features; who stopped
    short, and why."""
    beside: dict[str, dict[str, Any]] = {}
    rates: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        labels, ours = {}, {}
        for name, path in found.items():
            x, labels[name] = shuffled(path, SEEDS[quick][0], MOST[quick] or MOST_SINGLE)
            ours[name] = _scores(ENSEMBLE, x)
            np.savez(Path(folder) / f"{name}.npz", X=whole(x))
        np.savez(Path(folder) / f"{RATE}.npz", X=_uniform(quick))
        for peer in track(PEERS, "peers", console=Console(stderr=True)):
            beside[peer], rates[peer] = {}, None
            said, why = _peer(peer, PEER_S[quick], [Path(folder) / f"{name}.npz" for name in (*found, RATE)])
            if why:
                missing[peer] = why
            for name, answer in said.items():
                if "failed" in answer:
                    beside[peer][name] = {"rows": 0, "roc_auc": None, "failed": answer["failed"]}
                    continue
                if name == RATE:
                    rates[peer] = round(answer["rows"] / answer["seconds"])
                    continue
                n, scores = answer["rows"], np.load(Path(folder) / f"{name}.{peer}.npy")
                beside[peer][name] = {"rows": n, "roc_auc": roc_auc(labels[name][:n], scores),
                                      "ensemble_same_rows": roc_auc(labels[name][:n], ours[name][:n])}
    return beside, rates, missing


def _peer(name: str, seconds: float, files: list[Path]) -> tuple[dict[str, dict[str, Any]], str]:
    """What a peer said of each file, and why it stopped, if it did."""
    python = sys.executable if name.startswith("river.") else str(PEERS_PYTHON)
    if not Path(python).exists():
        return {}, "not installed: make bench"
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        words = [python, "-m", "tests.bench.peers.detectors", name, str(seconds), *map(str, files)]
        try:
            code = subprocess.run(words, cwd=ROOT, stdout=said, stderr=errors, check=False,
                                  timeout=PATIENCE_S + PATIENCE * seconds * len(files)).returncode
            why = ""
        except subprocess.TimeoutExpired:
            code, why = 0, "it did not come back from a table"
        said.seek(0)
        errors.seek(0)
        answers = [json.loads(line) for line in said if line.startswith('{"file"')]
        if code:
            why = (errors.read().strip().splitlines() or ["it failed without a word"])[-1][:200]
    return {Path(answer["file"]).stem: answer for answer in answers}, why


def _rates(quick: bool) -> dict[str, float | None]:
    """Our rows a second on 8 uniform features, compiled before; half-space trees of 25 x 8, as River's default."""
    x, rates = _uniform(quick), {}
    for name in OURS:
        _scores(name, x[:2_000])
        started = time.perf_counter()
        _scores(name, x)
        rates[name] = round(len(x) / (time.perf_counter() - started))
    return rates


def _uniform(quick: bool) -> Matrix:
    return np.random.default_rng(0).random((RATE_ROWS[quick], 8))


def _paper(data: Path) -> dict[str, dict[str, float]]:
    """The paper's ROC-AUC by table and detector, where the file is there."""
    if not (data / PAPER_FILE).is_file():
        return {}
    with (data / PAPER_FILE).open() as lines:
        rows = {row["dataset"]: row for row in csv.DictReader(lines)}
    return {ours: {key.removeprefix("auc_"): float(value) for key, value in rows[theirs].items()
                   if key.startswith("auc_")} for ours, theirs in PAPER_SETS.items() if theirs in rows}


def _mean(figures: dict[str, dict[str, float | None]], names: list[str]) -> float | None:
    known = [value for name in names if (value := figures[name][ENSEMBLE]) is not None]
    return round(float(np.mean(known)), 4) if known else None


def _print(figures: dict[str, Any]) -> None:
    console, paper = Console(width=132), figures["paper"]
    theirs = list(next(iter(paper.values()), {}))
    _areas(console, f"Prequential ROC-AUC, mean of seeds {figures['seeds']}; {figures['machine']}", figures,
           (ENSEMBLE, registry.HALF_SPACE_TREES, "online_isolation_forest", "loda"), theirs)
    _areas(console, f"Each alone, seed {figures['seeds'][0]}, the first {MOST_SINGLE:,} rows", figures,
           tuple(name for name in OURS if name not in (ENSEMBLE, registry.HALF_SPACE_TREES)), [])
    table = Table(title="Peers in this run, on as many rows as their seconds were enough for")
    for column in ("detector", "tables", "rows", "mean ROC-AUC", "ensemble, same rows", "rows/s at 8 features"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for name, by in figures["peers"].items():
        known = [each for each in by.values() if each["roc_auc"] is not None]
        if not known:
            table.add_row(name, "-", "-", "-", "-", figures["peers_missing"].get(name, "-"))
            continue
        table.add_row(name, str(len(known)), f"{sum(each['rows'] for each in known):,}",
                      *(_cell(float(np.mean([each[key] for each in known]))) for key in (
                          "roc_auc", "ensemble_same_rows")), f"{figures['rows_per_s'][name] or 0:,}")
    console.print(table)
    for name, why in figures["left_out"].items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
    if figures["mean_roc_auc"] is None:
        console.print("no table has labels of both kinds: there is no ROC-AUC")
    console.print("Ours, rows/s at 8 features: " + ", ".join(f"{name} {figures['rows_per_s'][name]:,}" for name in OURS)
                  + "; ratio to River: " + ", ".join(f"{n} {x}" for n, x in figures["ratio_to_river"].items()))


def _areas(console: Console, title: str, figures: dict[str, Any], ours: tuple[str, ...], theirs: list[str]) -> None:
    """A row a table, then the means."""
    sets, paper = figures["sets"], figures["paper"]
    table = Table(title=title)
    for column in ("table", "rows", *ours, *(f"paper: {name}" for name in theirs)):
        table.add_column(column.replace("_", " "), justify="left" if column == "table" else "right")
    for name, by in sets.items():
        table.add_row(name, f"{figures['rows'][name]:,}", *(_cell(by[each]) for each in ours),
                      *(_cell(paper.get(name, {}).get(each)) for each in theirs))
    table.add_section()
    for line, names in (("mean", list(sets)), ("mean, paper's", [name for name in sets if name in PAPER_SETS])):
        table.add_row(line, "", *(_cell(_average(sets, names, each)) for each in ours),
                      *(_cell(_average(paper, names, each)) if set(names) <= set(paper) else "-" for each in theirs))
    console.print(table)


def _average(figures: dict[str, Any], names: list[str], column: str) -> float | None:
    known = [figures[name][column] for name in names if figures[name].get(column) is not None]
    return float(np.mean(known)) if known else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
