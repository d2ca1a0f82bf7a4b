"""A field's summary over a window, added up through a lens: plain moments, logarithms, winsorised sums."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from agents.drift.reference import Lens
from streams.windows.record import NO_BUCKETS, SummaryRecord, joined
from streams.windows.sketch import BIAS, GAMMA, LOG_GAMMA, bucket_value

#: Values are held within this, so that their squares and sums stay finite.
LARGEST = 1e100
#: Logarithms of what is not positive (a latency of 0 ms).
LOG_FLOOR = math.log(1e-3)
#: Of a field's values, to know their logarithms.
LEAST_KNOWN = 0.9
_LOG_SHIFT = math.log(2 / (GAMMA + 1)) - BIAS * LOG_GAMMA


def add_buckets(sketch: dict[int, int], more: Iterable[tuple[int, int]]) -> None:
    """Add (code, count) of a sketch to another; of the first, all at once."""
    if not sketch:
        sketch.update(more)
        return
    known = sketch.get
    for code, count in more:
        sketch[code] = known(code, 0) + count


class Cell(msgspec.Struct, array_like=True):
    """A field over the windows of a group. `log_n` and `watched_n` count the values that have a logarithm, and those in
    the sum through the lens. Sums of logarithms are of `meant_n` values without a sketch, for which their mean stands.
    Sketches wait as JSON until somebody asks for `sketch`, so that a window costs no more than that.
    """

    n: int = 0
    missing: int = 0
    mean: float = 0.0
    m2: float = 0.0
    log_n: int = 0
    meant_n: int = 0
    log_sum: float = 0.0
    log_squares: float = 0.0
    watched_n: int = 0
    watched: float = 0.0
    waiting: list[bytes] = []

    def add(self, summary: SummaryRecord, lens: Lens | None, floor: bool, keep: bool = False) -> None:
        """Take in a window (Chan's merge). `floor`: zeros have a logarithm, that of the least value.

        `keep`: its sketch as well.
        """
        self.missing += summary.missing
        n = summary.count
        if not n:
            return
        mean, m2 = summary.mean or 0.0, summary.m2
        if not (abs(mean) <= LARGEST and m2 <= LARGEST * LARGEST):
            mean, m2 = max(-LARGEST, min(LARGEST, mean)), min(m2, LARGEST * LARGEST)
        total = self.n + n
        delta = mean - self.mean
        self.m2 += m2 + delta * delta * self.n * n / total
        self.mean += delta * n / total
        self.n = total
        if lens is not None:
            self.watched_n += n
            self.watched += logs_through(summary, mean, lens) if lens.log else sum_through(summary, mean, lens)
        learns = (lens is None or lens.learning) and (floor or (summary.min is not None and summary.min > 0.0))
        self.log_n += n * learns
        if summary.buckets == NO_BUCKETS:
            if learns:
                log = math.log(mean) if mean > 0 else LOG_FLOOR
                self.meant_n += n
                self.log_sum += n * log
                self.log_squares += n * log * log
        elif keep or learns:
            self.waiting.append(bytes(summary.buckets))

    def sketch(self) -> dict[int, int]:
        """What was kept of sketches, as code -> count."""
        pairs = joined(self.waiting)
        if len(self.waiting) == 1:
            return dict(pairs)
        found: dict[int, int] = {}
        for code, count in pairs:
            found[code] = found.get(code, 0) + count
        return found

    def log_moments(self, sketch: Mapping[int, int]) -> tuple[float, float]:
        """Mean and variance of the logarithms, with those in the sketch; NaN if some are unknown.

        A sketch that is a sample may have a few values less than there are; one that could not be read has none.
        """
        known = self.meant_n + sum(sketch.values())
        if self.log_n < self.n or known < LEAST_KNOWN * self.n:
            return math.nan, math.nan
        logs = [(count, log_value(code)) for code, count in sketch.items()]
        mean = math.fsum((self.log_sum, *(count * log for count, log in logs))) / known
        squares = math.fsum((self.log_squares, *(count * log * log for count, log in logs)))
        return mean, max(0.0, squares / known - mean * mean)

    def watched_mean(self) -> float:
        """The mean through the lens; NaN if some values came before there was one."""
        return self.watched / self.n if self.watched_n == self.n else math.nan


def log_value(code: int) -> float:
    """The logarithm of the value that a sketch's bucket stands for."""
    return code * LOG_GAMMA + _LOG_SHIFT if code > 0 else LOG_FLOOR


def logs_through(summary: SummaryRecord, mean: float, lens: Lens) -> float:
    """Sum of the logarithms, each held within the lens."""
    if not summary.sketch:
        log = math.log(mean) if mean > 0 else LOG_FLOOR
        return summary.count * max(lens.low, min(lens.high, log))
    return math.fsum(count * max(lens.low, min(lens.high, log_value(code))) for code, count in summary.sketch)


def sum_through(summary: SummaryRecord, mean: float, lens: Lens) -> float:
    """Sum of the values, each held within the lens; exact unless some of them are outside.

    Then those outside are known by their buckets only, within 1%. What is left within is the sum less theirs, or the
    sum of its own buckets, whichever is off by less; a single value outside on either side is known exactly.
    """
    n, low, high = summary.count, lens.low, lens.high
    least, most = summary.min, summary.max
    if least is None or most is None or not summary.sketch:
        return n * max(low, min(high, mean))
    if least >= low and most <= high:
        return n * mean
    above, below, outside, outside_size, inside, inside_size = 0, 0, 0.0, 0.0, 0.0, 0.0
    for code, count in summary.sketch:
        value = max(least, min(most, bucket_value(code)))
        if value > high:
            above += count
        elif value < low:
            below += count
        else:
            inside += count * value
            inside_size += count * abs(value)
            continue
        outside += count * value
        outside_size += count * abs(value)
    if above <= 1 and below <= 1:
        outside, outside_size = above * most + below * least, 0.0
    within = n - above - below
    left = n * mean - outside if outside_size <= inside_size else inside
    return above * high + below * low + max(within * low, min(within * high, left))
