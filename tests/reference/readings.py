"""What `agents.drift.cells` compiles, in plain Python: a field's windows added up through a lens, one at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agents.drift.cells import LARGEST, LEAST_KNOWN, LOG_FLOOR
from agents.drift.reference import Lens
from streams.windows.record import SummaryRecord
from streams.windows.sketch import BIAS, GAMMA, LOG_GAMMA, bucket_value

_LOG_SHIFT = math.log(2 / (GAMMA + 1)) - BIAS * LOG_GAMMA


@dataclass
class Field:
    """Sums over windows; see `agents.drift.reading.Cell`."""

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
    sketch: dict[int, int] = field(default_factory=dict)

    def sums(self) -> list[float]:
        return [self.n, self.missing, self.mean, self.m2, self.log_n, self.meant_n, self.log_sum, self.log_squares,
                self.watched_n, self.watched]

    def add(self, summary: SummaryRecord, lens: Lens | None, floor: bool, keep: bool) -> None:
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
        if not summary.sketch:
            if learns:
                log = math.log(mean) if mean > 0 else LOG_FLOOR
                self.meant_n += n
                self.log_sum += n * log
                self.log_squares += n * log * log
        elif keep or learns:
            for code, count in summary.sketch:
                self.sketch[code] = self.sketch.get(code, 0) + count

    def moments(self) -> list[float]:
        """Mean, variance, those of the logarithms, and the mean through the lens; NaN is unknown."""
        log_mean = log_variance = math.nan
        known = self.meant_n + sum(self.sketch.values())
        if self.log_n >= self.n and known >= LEAST_KNOWN * self.n:
            logs = [(count, log_value(code)) for code, count in self.sketch.items()]
            log_mean = math.fsum((self.log_sum, *(count * log for count, log in logs))) / known
            squares = math.fsum((self.log_squares, *(count * log * log for count, log in logs)))
            log_variance = max(0.0, squares / known - log_mean * log_mean)
        return [self.mean, self.m2 / self.n, log_mean, log_variance,
                self.watched / self.n if self.watched_n == self.n else math.nan]


def log_value(code: int) -> float:
    return code * LOG_GAMMA + _LOG_SHIFT if code > 0 else LOG_FLOOR


def logs_through(summary: SummaryRecord, mean: float, lens: Lens) -> float:
    if not summary.sketch:
        log = math.log(mean) if mean > 0 else LOG_FLOOR
        return summary.count * max(lens.low, min(lens.high, log))
    return math.fsum(count * max(lens.low, min(lens.high, log_value(code))) for code, count in summary.sketch)


def sum_through(summary: SummaryRecord, mean: float, lens: Lens) -> float:
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
