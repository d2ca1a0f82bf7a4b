"""What joint drift rests on (`joint`): the block under way, the reference, the watch; and how they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.drift.budget import DAY_MS, height
from agents.drift.copula import FEATURES, FloatArray, IntArray, features_of, grades, means
from agents.drift.level import Change, WatchState
from agents.drift.options import Effect
from agents.drift.reference import Point
from agents.drift.watch import Watch
from schemas.drift import Moved

BLOCK, LEARN = 256, 24
MOST_VERSIONS = 8
EFFECT = Effect("sd", 1.0, 2.5, worse=True)
#: More of a feature that misses than in the reference.
MORE_MISSING = 0.25
#: Least spread of a mean over blocks, for features of which none is joint.
LEAST_SPREAD = 1e-3
#: Weight of the newest block in the correlations after; the least change of one that is told, and how many.
NEWEST, LEAST_MOVED, MOST_PAIRS = 0.25, 0.15, 8


class Kept(msgspec.Struct, array_like=True):
    """A component as written. Arrays are float64 but for `rows`: those of the block under way, as float32."""

    columns: list[str] = []
    rows: bytes = b""
    start_ms: int = 0
    end_ms: int = 0
    versions: list[str] = []
    since_ms: int = 0
    seen: int = 0
    learnt: int = 0
    sums: bytes = b""
    watch: WatchState = msgspec.field(default_factory=WatchState)
    version: str = ""


@dataclass(slots=True, eq=False)
class Joint:
    """A component that is live. `version`: of which the last drift was told. `seen`: blocks since `since_ms`.

    Sums over the `learnt` blocks of the reference: means and their squares (2, means); of each column, missing shares
    and blocks in which it varied; and the correlations, with those of late (columns, columns).
    """

    delta: float
    columns: list[str] = field(default_factory=list)
    rows: NDArray[np.float32] = field(default_factory=lambda: np.zeros((BLOCK, 0), np.float32))
    filled: int = 0
    start_ms: int = 0
    end_ms: int = 0
    versions: list[str] = field(default_factory=list)
    version: str = ""
    since_ms: int = 0
    seen: int = 0
    learnt: int = 0
    means: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    whole: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    together: FloatArray = field(default_factory=lambda: np.zeros((2, 0, 0)))
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(EFFECT, self.delta)

    def begin(self, columns: list[str]) -> None:
        """Know nothing but which columns there are. A drift under way ends untold, as one that is taken for good."""
        width = len(columns)
        self.columns, self.rows = columns, np.zeros((BLOCK, width), np.float32)
        self.filled = self.seen = self.learnt = 0
        self.means, self.whole, self.together = (
            np.zeros((2, _means(width))), np.zeros((2, width)), np.zeros((2, width, width)))
        self.watch = Watch(EFFECT, self.delta)

    def take(self, rows: FloatArray, ts_ms: IntArray, versions: Iterable[str]) -> bool:
        """Take in as many rows as there is room for; True if the block is whole."""
        low, high = int(ts_ms.min()), int(ts_ms.max())
        if not self.filled:
            self.start_ms, self.end_ms, self.versions = low, high, []
        self.start_ms, self.end_ms = min(self.start_ms, low), max(self.end_ms, high)
        for version in versions:
            if version not in self.versions and len(self.versions) < MOST_VERSIONS:
                self.versions.append(version)
        self.rows[self.filled:self.filled + len(rows)] = rows
        self.filled += len(rows)
        return self.filled == BLOCK

    def close(self, allowed_per_day: float) -> Change | None:
        """End the block; a change, if it makes one certain."""
        rows, self.filled = self.rows.astype(np.float64), 0
        if not self.seen:
            self.since_ms = self.start_ms
        self.seen += 1
        z = grades(rows)
        missing, varied = np.isnan(rows).mean(axis=0), (z != 0.0).any(axis=0)
        together, pairs = z.T @ z / BLOCK, np.triu_indices(len(self.columns), 1)
        found = np.concatenate([means(z, *features_of(len(self.columns))), together[pairs]])
        if self.learnt < LEARN:
            self._learn(found, missing, varied, together)
            return None
        usual, often = self.whole / LEARN
        if (missing > usual + MORE_MISSING).any() or (~varied & (often > 0.5)).any():
            return None
        self.together[1] += NEWEST * (together - self.together[1])
        self.watch.height = height(self.seen * DAY_MS / max(1_000, self.end_ms - self.since_ms), allowed_per_day)
        x, lens = self._distance(found), self.watch.lens
        change = self.watch.add(Point(self.start_ms, max(self.end_ms, self.start_ms + 1), 1, 1, x, 0.0, watched=math.nan
                                      if lens is None else max(lens.low, min(lens.high, x))))
        if lens is not None and self.watch.lens is None:        # the change is taken for good
            self.begin(self.columns)
        return change

    def _learn(self, found: FloatArray, missing: FloatArray, varied: FloatArray, together: FloatArray) -> None:
        self.learnt += 1
        self.means += found, found * found
        self.whole += missing, varied
        self.together[0] += (together - self.together[0]) / self.learnt
        self.together[1] = self.together[0]

    def _distance(self, found: FloatArray) -> float:
        mean, square = self.means / LEARN
        spread = np.sqrt(np.maximum((square - mean * mean) * LEARN / (LEARN - 1), LEAST_SPREAD * LEAST_SPREAD))
        return float((((found - mean) / spread) ** 4).mean() ** 0.25)

    def ranked(self) -> list[Moved]:
        """The pairs of features whose correlation moved most."""
        before, after = self.together
        moved = np.abs(np.triu(after - before, 1))
        pairs = [divmod(int(at), len(self.columns)) for at in np.argsort(-moved, axis=None, kind="stable")[:MOST_PAIRS]]
        total = float((moved ** 2).sum()) or 1.0
        return [Moved(field=f"{self.columns[i]} ~ {self.columns[j]}"[:128], statistic="mean",
                      before=float(before[i, j]), after=float(after[i, j]), share=float(moved[i, j] ** 2 / total))
                for i, j in pairs if moved[i, j] >= LEAST_MOVED]


class Codec:
    """Components as msgpack."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def new(self, key: str) -> Joint:
        return Joint(self.delta)

    def encode(self, key: str, state: Joint) -> bytes:
        sums = np.concatenate([part.ravel() for part in (state.means, state.whole, state.together)])
        return msgspec.msgpack.encode(Kept(
            state.columns, state.rows[:state.filled].tobytes(), state.start_ms, state.end_ms, state.versions,
            state.since_ms, state.seen, state.learnt, sums.astype("<f8").tobytes(), state.watch.snapshot(),
            state.version))

    def decode(self, key: str, data: bytes) -> Joint:
        """Raises ValueError if the bytes are damaged."""
        try:
            kept = msgspec.msgpack.decode(data, type=Kept)
        except msgspec.MsgspecError as error:
            raise ValueError(f"state of joint drift is damaged: {error}") from None
        width, sums = len(kept.columns), np.frombuffer(kept.sums, "<f8").astype(np.float64)
        sizes = (2 * _means(width), 2 * width, 2 * width * width)
        if len(sums) != sum(sizes) or len(kept.rows) % max(4, 4 * width) or len(kept.rows) >= BLOCK * max(4, 4 * width):
            raise ValueError("state of joint drift is damaged: its sums or rows are not those of its columns")
        rows = np.frombuffer(kept.rows, "<f4").reshape(-1, max(1, width))
        found = Joint(self.delta)
        found.begin(kept.columns)
        found.filled, found.rows[:len(rows)] = len(rows), rows
        found.start_ms, found.end_ms, found.versions = kept.start_ms, kept.end_ms, kept.versions
        found.since_ms, found.seen, found.learnt, found.version = kept.since_ms, kept.seen, kept.learnt, kept.version
        first, second, third = np.split(sums, np.cumsum(sizes)[:2])
        found.means, found.whole, found.together = (
            first.reshape(2, -1), second.reshape(2, width), third.reshape(2, width, width))
        found.watch = Watch(EFFECT, self.delta, kept.watch)
        return found


def _means(width: int) -> int:
    return FEATURES + width * (width - 1) // 2 if width else 0
