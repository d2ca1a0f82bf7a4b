"""The scoring rules of the Numenta Anomaly Benchmark, after its paper and its code, written anew.

Source: Lavin, Ahmad: Evaluating Real-time Anomaly Detection Algorithms (ICMLA 2015); github:numenta/NAB, sweeper.py,
optimizer.py and runner.py. Each labelled window is worth +tp for its earliest alarm, by a sigmoid of where in the
window that is, or -fn without one. Each alarm outside costs fp, the less the nearer it follows a window. The first 15%
of a file, 750 rows at most, do not count. One threshold a profile, the best over the whole corpus. Scores are linear
from 0 (no alarm at all) to 100 (an alarm in the first row of each window, and no other).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PROBATION_SHARE, PROBATION_ROWS = 0.15, 5_000
#: Outside any window, and before the first.
NONE = -1


@dataclass(frozen=True, slots=True)
class Profile:
    """What right and wrong alarms are worth."""

    tp: float
    fp: float
    fn: float


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One file: times in epoch ms (n,), values (n,), windows as pairs of rows, both included."""

    name: str
    ts_ms: Array
    values: Array
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """A score from 0 to 100, its threshold (an alarm is a score at or above it), windows found and false alarms."""

    score: float
    threshold: float
    found: int
    false_alarms: int


def read(folder: Path) -> tuple[dict[str, Profile], list[Series]]:
    """Profiles and series of a folder with config/, data/ and labels/ as in NAB.

    Exits with a sentence if a file is not there or a label's time is not in its file.
    """
    try:
        labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
        profiles = json.loads((folder / "config" / "profiles.json").read_text())
        series = [_read_series(folder / "data" / name, name, windows) for name, windows in sorted(labels.items())]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"{folder} is not of NAB's form: {error}") from None
    return {name: _profile(profile["CostMatrix"]) for name, profile in profiles.items()}, series


def _profile(costs: dict[str, float]) -> Profile:
    return Profile(costs["tpWeight"], costs["fpWeight"], costs["fnWeight"])


def _read_series(path: Path, name: str, windows: Sequence[Sequence[str]]) -> Series:
    rows = [line.split(",") for line in path.read_text().splitlines()[1:] if line]
    times = np.array([row[0] for row in rows], "datetime64[ms]").astype(np.int64)
    places = times.tolist()
    limits = tuple((places.index(_ms(first)), places.index(_ms(last))) for first, last in sorted(windows))
    return Series(name, times.astype(np.float64), np.array([row[1] for row in rows], np.float64), limits)


def _ms(time: str) -> int:
    return int(np.datetime64(time[:23].replace(" ", "T"), "ms").astype(np.int64))


def probation(rows: int) -> float:
    """Rows before this one do not count."""
    return min(math.floor(PROBATION_SHARE * rows), PROBATION_SHARE * PROBATION_ROWS)


def sigmoid(position: float) -> float:
    """The worth of an alarm: -1 is a window's beginning, 0 its end, 3 and more far behind it."""
    return -1.0 if position >= 3.0 else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def worth(rows: int, windows: Sequence[tuple[int, int]]) -> tuple[Array, NDArray[np.int64]]:
    """Of an alarm in each row: its worth (1 at most in a window, -1 to 0 outside), and its window, or NONE."""
    value, window = np.full(rows, -1.0), np.full(rows, NONE, np.int64)
    best = sigmoid(-1.0)
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        following = windows[number + 1][0] if number + 1 < len(windows) else rows
        for row in range(first, last + 1):
            value[row], window[row] = sigmoid(-(last - row + 1) / width) / best, number
        for row in range(last + 1, following):
            value[row] = sigmoid((row - last) / (width - 1)) if width > 1 else -1.0
    return value, window


class Corpus:
    """The series of the benchmark, ready to score any detector."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = list(series)
        self.windows = sum(len(each.windows) for each in series)
        values, windows, counts, seen = [], [], [], 0
        for each in series:
            rows = len(each.values)
            value, window = worth(rows, each.windows)
            values.append(value)
            windows.append(np.where(window == NONE, NONE, window + seen))
            counts.append(np.arange(rows) >= probation(rows))
            seen += len(each.windows)
        self._value, self._window = np.concatenate(values), np.concatenate(windows)
        self._counts = np.concatenate(counts)

    def best(self, scores: Sequence[Array], profile: Profile) -> Result:
        """The result at the threshold that is best over all series. scores: (n,) for each series."""
        joined = np.concatenate(scores)
        rows = np.flatnonzero(self._counts)
        rows = rows[np.argsort(-joined[rows], kind="stable")]
        window, value = self._window[rows], self._value[rows]
        gain = np.where(window == NONE, profile.fp * value, 0.0)
        inside = np.full(self.windows, -profile.fn)
        for place in np.flatnonzero(window != NONE).tolist():
            earned = profile.tp * value[place]
            if earned > inside[window[place]]:
                gain[place] = earned - inside[window[place]]
                inside[window[place]] = earned
        total = np.cumsum(gain)
        last = np.flatnonzero(np.append(np.diff(joined[rows]) != 0.0, True))       # rows of one score go together
        at = last[np.argmax(total[last])]
        if not total[at] > 0.0:                                                     # no alarm is best
            return Result(0.0, math.inf, 0, 0)
        return self.at(scores, profile, float(joined[rows[at]]))

    def at(self, scores: Sequence[Array], profile: Profile, threshold: float) -> Result:
        """The result of the alarms at a threshold."""
        alarms = np.flatnonzero((np.concatenate(scores) >= threshold) & self._counts)
        window, value = self._window[alarms], self._value[alarms]
        earned = np.full(self.windows, -profile.fn)
        np.maximum.at(earned, window[window != NONE], profile.tp * value[window != NONE])
        total = float(earned.sum() + profile.fp * value[window == NONE].sum())
        nothing, perfect = -profile.fn * self.windows, profile.tp * self.windows
        score = 100.0 * (total - nothing) / (perfect - nothing) if self.windows else 0.0
        return Result(score, threshold, len(np.unique(window[window != NONE])), int((window == NONE).sum()))


def rounded(result: Result) -> dict[str, Any]:
    """For people and for JSON."""
    return {"score": round(result.score, 2), "threshold": result.threshold, "found": result.found,
            "false_alarms": result.false_alarms}
