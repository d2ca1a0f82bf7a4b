"""Error streams with known changes, made of the streams of a data folder.

A model is trained on the first rows of a concept and then left as it is, as models in production are. What it gets
wrong on the rest of the concept is the calm part, on the concept that follows the changed part. Both are drawn anew for
each run, with replacement; where a change is gradual, in blocks of 250 rows, so that it stays so.

The time-ordered sets say nothing of when they drift. There, an early and a late stretch of the same set are put one
after the other; that is a real change at a known row. A stretch of calm rows alone, drawn without order, is the
stationary stream on which alarms are false.

A stream is a file NAME.npz with X (rows, columns) and y (rows,). Digits in its name after an underscore, as in
sea_abrupt_0123, say that it is synthetic, with four concepts, which begin where those of the known streams do, in
proportion. Any other is time-ordered: trained on its first fifth, calm up to the half, changed in the last
three tenths.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Errors = NDArray[np.float64]
TRAIN, CALM, BLOCK = 3_000, 6_000, 250
#: Labels after a change in which it has to be found.
HORIZON = 5_000
#: Rows of the known synthetic streams, abrupt and gradual, and of the shortest one that is taken.
ROWS, GRADUAL_ROWS, LEAST_ROWS = 40_000, 41_000, 2_000
#: Where concepts begin; a gradual one takes a while, centred 1,000 rows later.
ABRUPT, GRADUAL, TRANSITION = (0, 10_000, 20_000, 30_000), (0, 9_000, 19_500, 30_000), 2_000


@dataclass(frozen=True)
class Episode:
    """One change: errors (0 or 1) before it and from it on. `ordered`: their order tells something."""

    stream: str
    calm: Errors
    changed: Errors
    ordered: bool


class StreamError(ValueError):
    """A file that is no stream; the text says why."""


def names(folder: Path) -> list[str]:
    """The streams that are there."""
    return sorted(path.stem for path in folder.glob("*.npz"))


def episodes(folder: Path, name: str) -> Iterator[Episode]:
    """Every known change of a stream.

    Raises:
        StreamError: the file cannot be read, or is no stream, or a short one.
    """
    x, y = _read(folder / f"{name}.npz")
    rows = len(y)
    if name in REAL and rows >= REAL[name][3][1]:
        columns, train, calm, changed = REAL[name]
        yield _episode(name, x[:, columns:], y, train, calm, changed)
        return
    if not re.search(r"_\d", name):
        yield _episode(name, x, y, (0, rows // 5), (rows // 5, rows // 2), (rows * 7 // 10, rows))
        return
    gradual = "gradual" in name
    scale = rows / (GRADUAL_ROWS if gradual else ROWS)
    for at, (start, end) in enumerate(itertools.pairwise(GRADUAL if gradual else ABRUPT)):
        begin = start + (TRANSITION if gradual and at else 0)
        begin, trained, until, horizon = (round(row * scale) for row in (begin, begin + TRAIN, end, end + HORIZON))
        yield _episode(name, x, y, (begin, trained), (trained, until), (until, horizon))


def _read(path: Path) -> tuple[Any, Any]:
    try:
        with np.load(path, allow_pickle=False) as data:
            x, y = data["X"], data["y"]
        x = x.astype(np.float64)
    except KeyError as error:
        raise StreamError(f"{path.name} has no array {error.args[0].split()[0]}: a stream has X and y") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StreamError(f"{path.name} cannot be read: {error}"[:200]) from None
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise StreamError(f"{path.name}: X is {x.shape} and y {y.shape}; a stream has (rows, columns) and (rows,)")
    if len(y) < LEAST_ROWS:
        raise StreamError(f"{path.name} has {len(y)} rows; a change needs {LEAST_ROWS} at least")
    if not np.isfinite(x).all():
        raise StreamError(f"{path.name} has values that are not finite")
    return x, y


#: First column that is no time, then rows: to train, early, late.
REAL: dict[str, tuple[int, tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "electricity": (1, (0, 5_000), (5_000, 17_000), (24_000, 36_000)),
    "insects_gradual_balanced": (0, (0, 5_000), (5_000, 9_500), (14_028, 19_028)),
    "noaa_weather": (0, (0, 3_000), (3_000, 9_000), (13_000, 18_159)),
    "nycflights13": (1, (0, 20_000), (20_000, 80_000), (295_000, 327_346)),
}


def _episode(name: str, x: Any, y: Any, train: tuple[int, int], calm: tuple[int, int],
             changed: tuple[int, int]) -> Episode:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(30, min_samples_leaf=5, max_depth=10, random_state=0).fit(
        x[slice(*train)], y[slice(*train)])
    before, after = ((model.predict(x[slice(*part)]) != y[slice(*part)]).astype(np.float64)
                     for part in (calm, changed))
    return Episode(name, before, after, "gradual" in name and name not in REAL)


def drawn(episode: Episode, rng: np.random.Generator) -> tuple[Errors, Errors]:
    """(calm, changed) of one run."""
    if not episode.ordered:
        return rng.choice(episode.calm, CALM), rng.choice(episode.changed, HORIZON)
    return _by_blocks(episode.calm[-CALM:], rng), _by_blocks(episode.changed[:HORIZON], rng)


def stationary(episode: Episode, rng: np.random.Generator, n: int) -> Errors:
    """n errors at the rate of the calm part."""
    return rng.choice(episode.calm, n)


def _by_blocks(errors: Errors, rng: np.random.Generator) -> Errors:
    return np.concatenate([rng.choice(errors[at:at + BLOCK], len(errors[at:at + BLOCK]))
                           for at in range(0, len(errors), BLOCK)])
