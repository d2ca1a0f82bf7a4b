"""How far two distributions are apart, from their sketches alone: (code, count) ascending, as windows carry them.

Sketches merge, so any two spans of time can be compared without an event being kept. A sketch's buckets are 1% wide;
what is said of two of them is true of the values within that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from streams.windows.sketch import bucket_value

FloatArray = NDArray[np.float64]
Sketch = Sequence[tuple[int, int]]
#: Bins of the population stability index, and the share that an empty one is taken to have.
PSI_BINS, PSI_LEAST = 10, 1e-4
#: A class that was expected less often is put together with the other rare ones (Cochran, Biometrics 10, 1954).
LEAST_EXPECTED = 5.0


class Test(NamedTuple):
    """A statistic, and how likely one as large is without a difference."""

    statistic: float
    p_value: float


def merged(*sketches: Sketch) -> list[tuple[int, int]]:
    """One sketch of all values."""
    counts: dict[int, int] = {}
    for sketch in sketches:
        for code, count in sketch:
            counts[code] = counts.get(code, 0) + count
    return sorted(counts.items())


def coarse(sketch: Sketch, most: int) -> list[tuple[int, int]]:
    """At most so many buckets, about equally full: a bucket's values go to the highest one among them."""
    found = [tuple(pair) for pair in sketch]
    if len(found) <= most:
        return [(code, count) for code, count in found]
    total, taken, gathered = sum(count for _, count in found), 0, 0
    kept: list[tuple[int, int]] = []
    for at, (code, count) in enumerate(found):
        gathered += count
        taken += count
        room = most - len(kept)
        if taken * most >= total * (len(kept) + 1) or at == len(found) - 1 or len(found) - at <= room:
            kept.append((code, gathered))
            gathered = 0
    return kept


def psi(before: Sketch, after: Sketch) -> float:
    """Population stability index over bins of the reference's deciles; 0.1 is some change, 0.25 a large one.

    Source: Siddiqi, Credit risk scorecards, 2006. A bin of none counts as `PSI_LEAST` of the values.
    """
    _, p, q = _aligned(before, after)
    bins = np.minimum(PSI_BINS - 1, ((np.cumsum(p) - p / 2) * PSI_BINS).astype(int))
    was = np.maximum(PSI_LEAST, np.bincount(bins, p, PSI_BINS))
    now = np.maximum(PSI_LEAST, np.bincount(bins, q, PSI_BINS))
    return float(np.sum((now - was) * np.log(now / was)))


def jensen_shannon(before: Sketch, after: Sketch) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1, over the buckets themselves.

    Source: Lin, IEEE Trans. Inf. Theory 37 (1991).
    """
    _, p, q = _aligned(before, after)
    middle = (p + q) / 2
    return float(min(1.0, max(0.0, (_kullback(p, middle) + _kullback(q, middle)) / 2)))


def kolmogorov_smirnov(before: Sketch, after: Sketch) -> Test:
    """The largest distance of the two distribution functions; p is asymptotic, and too large rather than too small."""
    _, p, q = _aligned(before, after)
    distance = float(np.max(np.abs(np.cumsum(p - q))))
    n, m = _size(before), _size(after)
    return Test(distance, float(kolmogorov(distance * math.sqrt(n * m / (n + m)))))


def on_edges_of(coarse_one: Sketch, other: Sketch) -> float:
    """The largest distance of two distribution functions, at the edges of the first, coarse one's buckets."""
    n, m = _size(coarse_one), _size(other)
    below, seen, at, most = 0, 0, 0, 0.0
    for code, count in coarse_one:
        seen += count
        while at < len(other) and other[at][0] <= code:
            below += other[at][1]
            at += 1
        most = max(most, abs(seen / n - below / m))
    return most


def moved_to(edges: Sketch, sketch: Sketch) -> list[tuple[int, int]]:
    """A sketch in the wider buckets of another; values above all of them stay where they are."""
    counts: dict[int, int] = {}
    at = 0
    for code, count in sketch:
        while at < len(edges) and edges[at][0] < code:
            at += 1
        place = edges[at][0] if at < len(edges) else code
        counts[place] = counts.get(place, 0) + count
    return sorted(counts.items())


def wasserstein(before: Sketch, after: Sketch) -> float:
    """The mean way that values went (first Wasserstein distance), in the field's unit."""
    values, p, q = _aligned(before, after)
    return float(np.sum(np.abs(np.cumsum(p - q))[:-1] * np.diff(values)))


def chi_squared(before: Mapping[str, float], after: Mapping[str, float]) -> Test:
    """Counts by class, two samples (Pearson's test of homogeneity); p is 1 where there is nothing to compare."""
    names = sorted(set(before) | set(after))
    table = np.array([[before.get(name, 0.0) for name in names], [after.get(name, 0.0) for name in names]])
    sums = table.sum(axis=1)
    if len(names) < 2 or not sums.all():
        return Test(0.0, 1.0)
    table = _without_rare(table)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    if table.shape[1] < 2:
        return Test(0.0, 1.0)
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return Test(statistic, float(chdtrc(table.shape[1] - 1, statistic)))


def _without_rare(table: FloatArray) -> FloatArray:
    least = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = least < LEAST_EXPECTED
    if not rare.any():
        return table
    kept = table[:, ~rare]
    return np.column_stack((kept, table[:, rare].sum(axis=1)))


def _aligned(before: Sketch, after: Sketch) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(values, share before, share after) of all buckets, ascending.

    Raises:
        ValueError: one of them is empty.
    """
    if not before or not after:
        raise ValueError("an empty sketch has no distribution to compare")
    codes = np.array(sorted({code for code, _ in before} | {code for code, _ in after}))
    place = {code: at for at, code in enumerate(codes.tolist())}
    p, q = np.zeros(len(codes)), np.zeros(len(codes))
    for shares, sketch in ((p, before), (q, after)):
        for code, count in sketch:
            shares[place[code]] += count
        shares /= shares.sum()
    return np.array([bucket_value(code) for code in codes.tolist()]), p, q


def _size(sketch: Sketch) -> int:
    return sum(count for _, count in sketch)


def _kullback(p: FloatArray, q: FloatArray) -> float:
    some = p > 0
    return float(np.sum(p[some] * np.log2(p[some] / q[some])))
