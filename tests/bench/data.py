"""Where the labelled data of benchmarks is, and the online evaluation that they share."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
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


class Unfit(ValueError):
    """Why a file of labelled data cannot be used."""


def tables(data: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """name -> file of every labelled table (X, y) in `adbench/` of the folder, or in the folder itself; and why not.

    Exits with a sentence if none can be used.
    """
    place = data / "adbench" if (data / "adbench").is_dir() else data
    named: dict[str, Path] = {}
    for path in sorted(place.glob("*.npz")):
        number, _, rest = path.stem.partition("_")
        named[rest if number.isdigit() and rest and rest not in named else path.stem] = path
    left_out = {name: why for name, path in named.items() if (why := _why_not(path))}
    found = {name: path for name, path in named.items() if name not in left_out}
    if not found:
        raise SystemExit(none_of(place, "no .npz with X and y", left_out))
    return found, left_out


def none_of(place: Path, what: str, left_out: Mapping[str, str]) -> str:
    """A sentence that nothing in a folder can be used, and why."""
    return f"{what} in {place}" + "".join(f"; {name}: {why}" for name, why in left_out.items())


def _why_not(path: Path) -> str:
    try:
        read(path)
    except Unfit as error:
        return str(error)
    return ""


def arrays(path: Path, *names: str) -> list[Matrix]:
    """Arrays of a file as float64, infinite values as the largest and least.

    Raises:
        Unfit: no such file, not an npz, an array is not there, or is not of numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            lacking = [name for name in names if name not in held.files]
            if lacking:
                raise Unfit(f"it has no {', '.join(lacking)}")
            found = [np.asarray(held[name], np.float64) for name in names]
    except Unfit:
        raise
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise Unfit(f"it is no npz of numbers ({error.__class__.__name__})") from None
    return [np.nan_to_num(each, nan=np.nan) for each in found]


def matrix(x: Matrix, name: str) -> Matrix:
    """Rows (n, k); a vector is one column.

    Raises:
        Unfit: of another shape, or empty.
    """
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size:
        raise Unfit(f"{name} has the shape {x.shape}, not rows and columns")
    return x


def labels(y: Matrix, rows: int, name: str) -> NDArray[np.int64]:
    """Labels (n,), 1 an anomaly.

    Raises:
        Unfit: not as many as rows, or others than 0 and 1.
    """
    if y.size != rows:
        raise Unfit(f"{name} has {y.size} labels for {rows} rows")
    if not np.isin(y, (0.0, 1.0)).all():
        raise Unfit(f"{name} has other labels than 0 and 1")
    return y.reshape(-1).astype(np.int64)


def read(path: Path) -> tuple[Matrix, NDArray[np.int64]]:
    """X (n, k), NaN where missing, and y (n,) of a file.

    Raises:
        Unfit: why it cannot be used.
    """
    x, y = arrays(path, "X", "y")
    x = matrix(x, "X")
    return x, labels(y, len(x), "y")


def shuffled(path: Path, seed: int, most: int | None = None) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows (n, k) and labels (n,), 1 an anomaly, in a seeded order: several sets are sorted by label."""
    x, y = read(path)
    order = np.random.default_rng(seed).permutation(len(y))[:most]
    return np.ascontiguousarray(x[order]), y[order]


def whole(x: Matrix) -> Matrix:
    """Without missing values, for peers that take none: the column's mean, 0 where there is none."""
    gaps = np.isnan(x)
    if not gaps.any():
        return x
    found = (~gaps).sum(axis=0)
    means = np.where(gaps, 0.0, x / np.maximum(found, 1)).sum(axis=0)
    return np.where(gaps, means, x)


def roc_auc(truth: NDArray[np.int64], scores: Matrix) -> float | None:
    """None where only one class is there."""
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else None


def average_precision(truth: NDArray[np.int64], scores: Matrix) -> float | None:
    return float(average_precision_score(truth, scores)) if truth.any() else None
