"""What is fitted to a sample of rows, as loops over arrays, compiled. `sample`, `covariance`, `tails`, `neighbours` and
`histogram` say what they compute.

    scales   (SCALES, k)   of each column; the rows are named below
    z        (n, k)        rows in units of their columns' scales; 0 where missing or not usable
"""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors.kernels import FloatArray
from streams.compiled import bare, compiled

TYPICAL, SCALE, MISSING, USABLE, LEAST, MOST, SCALES = range(7)
#: Values of a column that its scale takes at least.
LEAST_PRESENT = 8
#: Scales from the median beyond which a value counts by its logarithm.
BEND = 10.0
#: Missing values are no news from this share on, and this is added to the share of what was never missing.
USUAL_MISSING, NEVER_MISSING = 0.1, 1e-6
#: Of a fit by concentration: steps, share of the rows kept, share of the mean variance added to each.
STEPS, KEPT, RIDGE = 4, 0.8, 0.05


@compiled
def scales_of(rows: FloatArray) -> FloatArray:
    """Of each column of rows (m, k): median, robust scale, share missing, if there are enough values, least, most."""
    m, width = rows.shape
    found = np.zeros((SCALES, width))
    for f in range(width):
        found[TYPICAL, f], found[SCALE, f] = np.nan, 1.0
        column = rows[:, f]
        present = np.sort(column[~np.isnan(column)])
        n = present.size
        found[MISSING, f] = (m - n) / m
        if n < LEAST_PRESENT:
            continue
        last = n - 1
        typical = present[last // 2]
        found[LEAST, f], found[MOST, f] = present[0], present[last]
        scale = (present[(3 * last) // 4] - present[last // 4]) / 1.349
        if not scale > 1e-12 * abs(typical):
            scale = (present[(19 * last) // 20] - present[last // 20]) / 3.29
        if not scale > 1e-12 * abs(typical):
            scale = np.sqrt(np.mean((np.minimum(np.maximum(present, -1e50), 1e50) - typical) ** 2))
        if not scale > 1e-9 * abs(typical):
            scale = 0.1 * abs(typical)
        found[TYPICAL, f], found[SCALE, f], found[USABLE, f] = typical, scale if scale > 1e-100 else 0.1, 1.0
    return found


@bare
def scaled(rows: FloatArray, scales: FloatArray, z: FloatArray) -> None:
    """Fill z (n, k): (value - median) / scale, by its logarithm beyond 10."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            value = rows[i, f]
            if value != value or scales[USABLE, f] == 0.0:
                z[i, f] = 0.0
                continue
            away = (value - scales[TYPICAL, f]) / scales[SCALE, f]
            if away > BEND:
                away = BEND + np.log1p(away - BEND)
            elif away < -BEND:
                away = -BEND - np.log1p(-BEND - away)
            z[i, f] = away


@bare
def news(value: float, scales: FloatArray, optional: FloatArray, f: int) -> float:
    """How new a column's value is: missing, or outside all of the sample; 0 if it is not."""
    if scales[USABLE, f] == 0.0:
        return 0.0
    if value != value:
        usual = (scales[MISSING, f] + NEVER_MISSING) / USUAL_MISSING
        return 0.0 if optional[f] != 0.0 else float(-np.log(min(1.0, usual)))
    outside = max(scales[LEAST, f] - value, value - scales[MOST, f])
    if outside <= 0.0:
        return 0.0
    return float(np.log1p(outside / (scales[MOST, f] - scales[LEAST, f] + scales[SCALE, f])))


@bare
def add_news(rows: FloatArray, scales: FloatArray, optional: FloatArray, out: FloatArray) -> None:
    """Add what is new in each row to out (n,)."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            out[i] += news(rows[i, f], scales, optional, f)


@bare
def news_of(rows: FloatArray, scales: FloatArray, optional: FloatArray, out: FloatArray) -> None:
    """Add what is new in each value to out (n, k)."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            out[i, f] += news(rows[i, f], scales, optional, f)


@compiled
def concentrate(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (k,) and Cholesky factor (k, k) of the covariance of the 80% of rows z (m, k) nearest to the mean."""
    m, width = z.shape
    keep = np.ones(m, np.bool_)
    mean, factor = np.zeros(width), np.eye(width)
    for _ in range(STEPS):
        n = max(1, keep.sum())
        mean[:] = 0.0
        for i in range(m):
            if keep[i]:
                mean += z[i]
        mean /= n
        covariance = np.zeros((width, width))
        for i in range(m):
            if keep[i]:
                for a in range(width):
                    d = z[i, a] - mean[a]
                    for b in range(a + 1):
                        covariance[a, b] += d * (z[i, b] - mean[b])
        covariance /= max(1, n - 1)
        total = 0.0
        for a in range(width):
            total += covariance[a, a]
        for a in range(width):
            covariance[a, a] += RIDGE * total / width + 1e-9
        factor = cholesky(covariance)
        distance = np.zeros(m)
        mahalanobis(z, mean, factor, distance)
        limit = np.sort(distance)[int(KEPT * (m - 1))]
        keep = distance <= limit
    return mean, factor


@compiled
def cholesky(matrix: FloatArray) -> FloatArray:
    """L with L L' = matrix (k, k), of which the lower half is read; it must be positive definite."""
    n = matrix.shape[0]
    found = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1):
            left = matrix[a, b]
            for c in range(b):
                left -= found[a, c] * found[b, c]
            found[a, b] = np.sqrt(max(left, 1e-12)) if a == b else left / found[b, b]
    return found


@compiled
def mahalanobis(z: FloatArray, mean: FloatArray, factor: FloatArray, out: FloatArray) -> None:
    """Fill out (n,): the distances of rows z (n, k) from the mean."""
    width = mean.size
    solved = np.zeros(width)
    for i in range(z.shape[0]):
        total = 0.0
        for a in range(width):
            left = z[i, a] - mean[a]
            for b in range(a):
                left -= factor[a, b] * solved[b]
            solved[a] = left / factor[a, a]
            total += solved[a] * solved[a]
        out[i] = np.sqrt(total)


@compiled
def neighbour_distance(z: FloatArray, others: FloatArray, nearest: int, out: FloatArray) -> None:
    """Fill out (n,): the distance of each row of z (n, k) to its nearest-th neighbour among others (m, k)."""
    best = np.empty(nearest)
    for i in range(z.shape[0]):
        best[:] = np.inf
        for r in range(others.shape[0]):
            total = 0.0
            for f in range(z.shape[1]):
                step = z[i, f] - others[r, f]
                total += step * step
            if total < best[nearest - 1]:
                place = nearest - 1
                while place > 0 and best[place - 1] > total:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = total
        out[i] = np.sqrt(best[nearest - 1])


@compiled
def columns_sorted(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each column's values, ascending (k, m), and how many are present (k,)."""
    found, counts = np.full((rows.shape[1], rows.shape[0]), np.inf), np.zeros(rows.shape[1])
    for f in range(rows.shape[1]):
        column = rows[:, f]
        present = np.sort(column[~np.isnan(column)])
        found[f, :present.size] = present
        counts[f] = present.size
    return found, counts


@bare
def below(values: FloatArray, n: int, value: float, equal: bool) -> int:
    """How many of the first n values, ascending, are less than a value (or equal)."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value or (equal and values[middle] == value):
            low = middle + 1
        else:
            high = middle
    return low


@bare
def tails(rows: FloatArray, values: FloatArray, counts: FloatArray, out: FloatArray) -> None:
    """Fill out (n,): sum over columns of -log of the smaller of both tails at the row's value."""
    for i in range(rows.shape[0]):
        total = 0.0
        for f in range(rows.shape[1]):
            value, n = rows[i, f], int(counts[f])
            if value != value or n < LEAST_PRESENT:
                continue
            left = below(values[f], n, value, True)
            right = n - below(values[f], n, value, False)
            total -= np.log((min(left, right) + 1.0) / (n + 1.0))
        out[i] = total


@compiled
def histograms(z: FloatArray, bins: int) -> tuple[FloatArray, FloatArray]:
    """Equal-width histograms of the columns of z (m, k): edges (2, k) low and width; -log shares (k, bins + 2)."""
    m, width = z.shape
    edges, surprise = np.zeros((2, width)), np.zeros((width, bins + 2))
    for f in range(width):
        low, high = np.min(z[:, f]), np.max(z[:, f])
        edges[0, f], edges[1, f] = low, max((high - low) / bins * 1.0001, 1e-9)
        for i in range(m):
            surprise[f, 1 + int((z[i, f] - low) / edges[1, f])] += 1.0
        for b in range(bins + 2):
            surprise[f, b] = -np.log((surprise[f, b] + 0.1) / (m + 0.1))
    return edges, surprise


@compiled
def projected(z: FloatArray, weights: FloatArray) -> FloatArray:
    """Rows z (n, k) on weights (p, k): (n, p), by plain loops, so that the bits do not depend on n."""
    found = np.zeros((z.shape[0], weights.shape[0]))
    for i in range(z.shape[0]):
        for p in range(weights.shape[0]):
            total = 0.0
            for f in range(z.shape[1]):
                total += z[i, f] * weights[p, f]
            found[i, p] = total
    return found


@bare
def rarity(z: FloatArray, edges: FloatArray, surprise: FloatArray, out: FloatArray) -> None:
    """Fill out (n,): sum over columns of -log share of the bin that the value is in; the first and last are outside."""
    last = surprise.shape[1] - 1
    for i in range(z.shape[0]):
        total = 0.0
        for f in range(z.shape[1]):
            place = np.floor((z[i, f] - edges[0, f]) / edges[1, f]) + 1.0
            total += surprise[f, int(min(max(place, 0.0), last))]
        out[i] = total
