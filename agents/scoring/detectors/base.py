"""What detectors share: columns by name, learning by block, calibration, what teaches and what does not, snapshots.

A detector writes `score_rows`, `learn_rows`, `pack`, `unpack`; the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from agents.scoring.detectors import arrays
from agents.scoring.detectors import threshold_kernels as k
from agents.scoring.detectors.by_name import ByName
from agents.scoring.detectors.calibration import Calibration
from agents.scoring.detectors.kernels import FloatArray, clamp

#: What the names of River's own detectors begin with.
RIVERS = "river."
#: (rows seen, rows a block until then); later blocks are of LONGEST rows.
RAMP = ((16, 4), (128, 16), (1024, 64))
LONGEST = 256
#: After so many rows the scores of those up to the second are forgotten: a handful of rows had taught by then.
SETTLED, GREEN = 32, 16
#: A row with a p-value below it is strange.
STRANGE = 0.002
#: Strange rows that count all the same: this many times their expected number among usual ones, this many at once.
CREDIT_RATE, MOST_CREDIT = 1.5, 4.0
#: Blocks in a row, of which most rows were strange, after which these are the new normal.
PATIENCE = 20
#: Alarms of a block that are explained by masking; the rest by distance alone.
EXPLAINED = 32
(SEEN, STRAINED, EXPLANATIONS, COUNTS) = range(4)


class OtherSettings(ValueError):
    """A snapshot is whole, but of a detector with other parameters."""


class Detector(ByName):
    """Rows in blocks: the rows of a block are scored by the state at its start; they teach at its end.

    So `score_learn_many` equals the loop of `score_one` and `learn_one` to the last bit, for any cutting. Blocks have
    4 rows at first, so that a short file is scored almost whole, 16 from row 16, 64 from row 128 and 256 from row 1,024
    on.

    Strange rows do not teach. A row's score is compared with those of the last 512 usual rows (`Calibration`): with a
    p-value below 0.002, above all of them, it is strange; of the first 512, only if it is beyond the tail's limit.
    While there is credit, which usual rows bring back at 1.5 times that rate, it counts as usual with its score, but no
    more than the limit; within that it teaches too. So on a calm stream all rows teach, and in an incident none. When
    most rows of 20 blocks in a row were strange, the world has changed: what was learnt is left (`renew`), and these
    rows teach.

    A new column is taken in at the end of the first block in which it has a value: until then no row is scored by it,
    wherever a batch that names it begins.

    Parameters: `seed`; `optional`: features whose absence is no news. At most 256 features are kept, the first that
    appear. Scores: finite, at least 0, higher is more anomalous; 0 while not `ready`.
    """

    #: What settings and anomalies call it.
    name: ClassVar[str]
    #: Numbers that `judge_rows` gives per row beside its score, for `learn_rows`.
    extras: int = 0

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.counts = np.zeros(COUNTS, np.int64)
        #: Columns that the state has: the first `width` ones.
        self.width = 0
        self.credit = MOST_CREDIT
        self.calibration = Calibration()
        self.waiting: list[FloatArray] = []
        #: While it is a list, `advance` puts what `judge_rows` gave there.
        self.trace: list[FloatArray] | None = None

    # -- a detector writes --------------------------------------------------------------------------

    @property
    @abstractmethod
    def ready(self) -> bool:
        """True once scores mean something."""

    @abstractmethod
    def score_rows(self, rows: FloatArray) -> FloatArray:
        """Scores (n,) of rows (n, width), within +-1e100, NaN where missing. Pure; the same bits for any cutting."""

    @abstractmethod
    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        """Learn the rows of a block that teach (n, width), with their extras (n, extras)."""

    @abstractmethod
    def renew(self) -> None:
        """Leave what was learnt: rows of another world follow."""

    @abstractmethod
    def typical(self) -> FloatArray:
        """The usual value of each column (width,); NaN where there is none."""

    @abstractmethod
    def pack(self) -> dict[str, Any]:
        """The state as arrays by name, beside what this class keeps."""

    @abstractmethod
    def unpack(self, found: Mapping[str, Any]) -> None:
        """Take over what `pack` gave."""

    def parameters(self) -> dict[str, Any]:
        """What must be equal for a snapshot to be of use: numbers and texts by name."""
        return {}

    def level(self, scores: FloatArray) -> FloatArray:
        """Scores (n,) on the scale on which their tail is about exponential."""
        return scores

    def surprises(self, scores: FloatArray, extras: FloatArray) -> FloatArray:
        """How surprising rows (n,) were to each part of the detector, and to all of it: (n, extras + 1)."""
        return np.column_stack((extras, self.level(scores)))

    def judge_rows(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Scores (n,) and extras (n, extras)."""
        return self.score_rows(rows), np.zeros((len(rows), 0))

    def widen(self) -> None:
        """The state has a new column, number `width - 1`."""

    # -- River's interface ----------------------------------------------------------------------------

    def score_one(self, x: Mapping[str, Any]) -> float:
        """The score of {feature: number or None}; unknown features do not count."""
        return float(self.score_rows(self._row(x)[None, :self.width])[0]) if self.ready else 0.0

    # -- batches --------------------------------------------------------------------------------------

    def advance(self, rows: FloatArray, histogram: FloatArray, scalars: FloatArray
                ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Score, judge by a `Threshold`'s arrays, and learn.

        rows (n, k) with all k columns; brought to +-1e100 in place. Returns scores (n,), thresholds (n,) and
        contributions (n, k), of which only the rows of alarms are filled. Without a histogram nothing is judged.
        """
        n, at = len(rows), 0
        clamp(rows)
        scores, thresholds, contributions = np.zeros(n), np.full(n, np.inf), np.zeros(rows.shape)
        while at < n:
            stop = min(n, at + block_end(int(self.counts[SEEN])) - int(self.counts[SEEN]))
            part = np.ascontiguousarray(rows[at:stop, :self.width])
            found, extras = self.judge_rows(part) if self.ready else _unready(len(part), self.extras)
            scores[at:stop] = found
            if self.trace is not None:
                self.trace.append(self.surprises(found, extras))
            if histogram.size and self.ready:
                k.judge(found, thresholds[at:stop], histogram, scalars)
                self._explain(part, found > thresholds[at:stop], contributions[at:stop, :self.width])
            self._take(rows[at:stop], found, extras)
            at = stop
        return scores, thresholds, contributions

    def explain_rows(self, rows: FloatArray) -> FloatArray:
        """How much each column pushed the scores of rows (n, k), at least 0: the score lost with its usual value."""
        levels, usual = self.level(self.score_rows(rows)), self.typical()
        pushes = np.zeros(rows.shape)
        for f in np.flatnonzero(~np.isnan(usual)).tolist():
            masked = rows.copy()
            masked[:, f] = usual[f]
            pushes[:, f] = np.maximum(levels - self.level(self.score_rows(masked)), 0.0)
        return pushes

    def explain_roughly(self, rows: FloatArray) -> FloatArray:
        """The same for incidents of thousands of alarms: how far each value is from usual (n, k), missing first."""
        usual = self.typical()
        away = np.abs(rows - usual) / (np.abs(usual) + 1e-12)
        return np.where(np.isnan(usual), 0.0, np.where(np.isnan(away), 1e12, away))

    def grow(self) -> None:
        """Take the next column in."""
        self.width += 1
        self.widen()

    # -- snapshots ------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The detector as bytes."""
        waiting = arrays.stacked(self.waiting, len(self.columns), 1 + self.extras) if self.waiting else np.zeros((0, 0))
        own = {f"_{name}": value for name, value in self.calibration.pack().items()}
        return arrays.encode(self.name, {"seed": str(self.seed), "optional": sorted(self.optional),
                                         "columns": self.features, "width": self.width, "credit": self.credit,
                                         **self.parameters()},
                             {"counts": self.counts, "waiting": waiting, **own, **self.pack()})

    def restore(self, data: bytes) -> Self:
        """Continue from the bytes of a detector of the same parameters, with the same scores.

        Raises:
            OtherSettings: of another kind, seed or parameters.
            ValueError: cut short, or of another format.
        """
        name, header, found = arrays.decode(data)
        if name != self.name or header.get("seed") != str(self.seed) or any(
                header.get(key) != value for key, value in self.parameters().items()):
            raise OtherSettings(f"the snapshot is not of this {self.name}: its parameters differ")
        try:
            self.optional = frozenset(header["optional"])
            for column in header["columns"]:
                self.column(column)
            for _ in range(int(header.get("width", len(self.columns)))):
                self.grow()
            self.credit = float(header["credit"])
            self.counts[:] = found["counts"]
            self.waiting = [found["waiting"]] if len(found["waiting"]) else []
            self.calibration.unpack({name[1:]: value for name, value in found.items() if name.startswith("_")})
            self.unpack(found)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the {self.name}'s snapshot lacks something: {error!r}") from None
        return self

    # -- inside ---------------------------------------------------------------------------------------

    def _explain(self, rows: FloatArray, alarms: Any, out: FloatArray) -> None:
        """Fill the rows of alarms: the first of a block by masking, the rest by how far each value is from usual."""
        places = np.flatnonzero(alarms)
        if not len(places):
            return
        room = max(0, EXPLAINED - int(self.counts[EXPLANATIONS]))
        first, rest = places[:room], places[room:]
        self.counts[EXPLANATIONS] += len(places)
        if len(first):
            out[first] = self.explain_rows(rows[first])
        if len(rest):
            out[rest] = self.explain_roughly(rows[rest])

    def _take(self, rows: FloatArray, scores: FloatArray, extras: FloatArray) -> None:
        """Keep rows until the block's end; there, learn."""
        self.waiting.append(np.column_stack((rows, scores, extras)))
        before = int(self.counts[SEEN])
        self.counts[SEEN] += len(rows)
        if self.counts[SEEN] == block_end(before):
            self._learn()

    def _learn(self) -> None:
        width = len(self.columns)
        block = arrays.stacked(self.waiting, width, 1 + self.extras)
        self.waiting = []
        self.counts[EXPLANATIONS] = 0
        scores, extras = block[:, width].copy(), block[:, width + 1:]
        for _ in range(self.width, _used(block[:, :width])):
            self.grow()
        rows = np.ascontiguousarray(block[:, :self.width])
        if not self.ready:
            self.learn_rows(rows, extras)
            return
        levels = self.level(scores)
        full, limit = self.calibration.full, self.calibration.limit
        strange = self.calibration.p_values(levels) < STRANGE if full else levels > limit
        self.counts[STRAINED] = self.counts[STRAINED] + 1 if strange.mean() > 0.5 else 0
        if self.counts[STRAINED] >= PATIENCE:
            self.counts[STRAINED] = 0
            self.calibration = Calibration()
            self.renew()
            self.learn_rows(rows, extras)
            return
        counts = ~strange
        if full:
            self.credit = float(k.spend(strange, counts, self.credit, CREDIT_RATE * STRANGE, MOST_CREDIT))
        self.calibration.add(np.minimum(levels[counts], limit))
        teaches = counts & (levels <= limit)
        self.learn_rows(rows[teaches], extras[teaches])
        if self.counts[SEEN] == SETTLED:
            self.settle(GREEN - RAMP[0][1])

    def settle(self, first: int) -> None:
        """Forget so many of the first scores."""
        self.calibration.forget(min(first, self.calibration.count))


def block_end(seen: int) -> int:
    """The number of rows after which the block that row number `seen` is in ends."""
    for limit, length in RAMP:
        if seen < limit:
            return seen - seen % length + length
    return seen - seen % LONGEST + LONGEST


def _used(rows: FloatArray) -> int:
    """How many columns of rows (n, k) there are up to the last one that has a value."""
    found = np.flatnonzero(~np.isnan(rows).all(axis=0))
    return int(found[-1]) + 1 if len(found) else 0


def _unready(n: int, extras: int) -> tuple[FloatArray, FloatArray]:
    return np.zeros(n), np.full((n, extras), np.nan)
