"""The scoring rules of the Numenta Anomaly Benchmark, after its paper and its code, written anew.

Source: Lavin, Ahmad: Evaluating Real-time Anomaly Detection Algorithms (ICMLA 2015); github:numenta/NAB, sweeper.py,
optimizer.py and runner.py. Each labelled window is worth +tp for its earliest alarm, by a sigmoid of where in the
window that is, or -fn without one. Each alarm outside costs fp, the less the nearer it follows a window. The first 15%
of a file, 750 rows at most, do not count. One threshold a profile, the best over the whole corpus. Scores are linear
from 0 (no alarm at all) to 100 (an alarm in the first row of each window, and no other).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.data import Unfit, none_of

Array = NDArray[np.float64]
PROBATION_SHARE, PROBATION_ROWS = 0.15, 5_000
#: What stands for a missing value.
MISSING = {"", "nan", "null", "none", "na", "n/a"}
#: Outside any window, and before the first.
NONE = -1


@dataclass(frozen=True, slots=True)
class Profile:
    """What right and wrong alarms are worth."""

    tp: float
    fp: float
    fn: float


#: Those of the paper.
PROFILES = {"standard": Profile(1.0, 0.11, 1.0), "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
            "reward_low_FN_rate": Profile(1.0, 0.11, 2.0)}


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


def read(folder: Path) -> tuple[dict[str, Profile], list[Series], dict[str, str]]:
    """Profiles and series of a folder with data/, labels/ and perhaps config/ as in NAB; and why files are left out.

    Exits with a sentence if it is not of that form, or no file can be used.
    """
    try:
        named = json.loads((folder / "labels" / "combined_windows.json").read_text())
        profiles = _profiles(folder / "config" / "profiles.json")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"{folder} is not of NAB's form: {error.__class__.__name__}: {error}") from None
    if not isinstance(named, dict):
        raise SystemExit(f"{folder} is not of NAB's form: labels/combined_windows.json has no files by name")
    series, left_out = [], {}
    for name, windows in sorted(named.items()):
        try:
            series.append(_read_series(folder / "data" / name, name, windows))
        except Unfit as error:
            left_out[name] = str(error)
    if not series:
        raise SystemExit(none_of(folder / "data", "no labelled series", left_out))
    return profiles, series, left_out


def _profiles(path: Path) -> dict[str, Profile]:
    """Those of the file; without one those of the paper."""
    if not path.is_file():
        return PROFILES
    costs = {name: profile["CostMatrix"] for name, profile in json.loads(path.read_text()).items()}
    return {name: Profile(float(each["tpWeight"]), float(each["fpWeight"]), float(each["fnWeight"]))
            for name, each in costs.items()} or PROFILES


def _read_series(path: Path, name: str, windows: Any) -> Series:
    """A file with a time and a value in each row, by the columns' names or the first two; NaN: missing.

    Raises:
        Unfit: why it cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise Unfit(f"it cannot be read ({error.__class__.__name__})") from None
    if len(rows) < 2:
        raise Unfit("it has no rows")
    heads = [head.strip() for head in rows[0]]
    at = tuple(heads.index(head) if head in heads else place for place, head in enumerate(("timestamp", "value")))
    times, values = np.empty(len(rows) - 1), np.empty(len(rows) - 1)
    for i, row in enumerate(rows[1:]):
        try:
            times[i], values[i] = _ms(row[at[0]]), _value(row[at[1]].strip())
        except (ValueError, IndexError):
            raise Unfit(f"row {i + 2} is no time and value: {','.join(row)[:60]!r}") from None
    values[np.isinf(values)] = np.nan
    return Series(name, times, values, tuple(sorted(_limits(times, pair) for pair in _pairs(windows))))


def _value(text: str) -> float:
    return math.nan if text.lower() in MISSING else float(text)


def _pairs(windows: Any) -> list[tuple[float, float]]:
    try:
        return [(_ms(first), _ms(last)) for first, last in windows]
    except (TypeError, ValueError, AttributeError):
        raise Unfit("its windows are no pairs of times") from None


def _limits(times: Array, pair: tuple[float, float]) -> tuple[int, int]:
    """The first and the last row of a window."""
    inside = np.flatnonzero((times >= pair[0]) & (times <= pair[1]))
    if not inside.size:
        raise Unfit("it has a window without rows")
    return int(inside[0]), int(inside[-1])


def _ms(time: str) -> float:
    """Epoch ms of ISO 8601, UTC unless it says otherwise."""
    found = datetime.fromisoformat(time.strip())
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000.0)


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
