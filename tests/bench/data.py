"""Where the labelled data of benchmarks is, and the online evaluation that they share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from support import ROOT

Matrix = NDArray[np.float64]


def folder(given: str | None) -> Path:
    """The folder of data sets: as given, else STREAMGAUGE_DATA, else ../shared/data beside the project.

    Exits with a sentence if it is not there.
    """
    found = Path(given or os.environ.get("STREAMGAUGE_DATA") or _beside())
    if not found.is_dir():
        raise SystemExit(f"{found} is no folder: name the data by --data DIR or STREAMGAUGE_DATA")
    return found


def _beside() -> Path:
    return next((up / "shared" / "data" for up in ROOT.parents if (up / "shared" / "data").is_dir()),
                ROOT.parent / "shared" / "data")


def tables(data: Path) -> dict[str, Path]:
    """name -> file of every labelled table (X, y) in `adbench/` of the folder, or in the folder itself."""
    place = data / "adbench" if (data / "adbench").is_dir() else data
    found = {path.stem.split("_", 1)[-1] if path.stem.split("_")[0].isdigit() else path.stem: path
             for path in sorted(place.glob("*.npz"))}
    if not found:
        raise SystemExit(f"no .npz with X and y in {place}")
    return found


def shuffled(path: Path, seed: int, most: int | None = None) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows (n, k) and labels (n,), 1 an anomaly, in a seeded order: several sets are sorted by label."""
    with np.load(path, allow_pickle=False) as found:
        order = np.random.default_rng(seed).permutation(len(found["y"]))[:most]
        return np.ascontiguousarray(found["X"][order], np.float64), found["y"][order].astype(np.int64)


def roc_auc(labels: NDArray[np.int64], scores: Matrix) -> float | None:
    """None where only one class is there."""
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else None


def average_precision(labels: NDArray[np.int64], scores: Matrix) -> float | None:
    return float(average_precision_score(labels, scores)) if labels.any() else None
