"""Half-space trees and their threshold as loops over arrays, compiled. `half_space_trees` and `threshold` say what
they compute.

Arrays of one detector with T trees of height h over k columns:

    feature   (T, 2**h - 1) int32        column that an inner node splits; node i has children 2i + 1, 2i + 2
    split     (T, 2**h - 1) float64      left if value < split
    mass      (2, T, 2**(h + 1) - 1) int32   REFERENCE: rows of the last full window; LATEST: of the current one
    guards    (GUARDS, k) float64        a column each; the rows are named below
    counts    (COUNTS,) int64            named below

Arrays of one threshold: histogram (BUCKETS,) and scalars (6,) float64, named below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
CountArray = NDArray[np.int64]

REFERENCE, LATEST = 0, 1
#: Rows of `guards`. TREE_*: what the trees split. GUARD_*: beyond it a value is outside. EXCESS: how many
#: widths outside is usual. OPTIONAL: missing is no news. USABLE: has a range. Of the current epoch: LEAST/MOST,
#: MISSING/PRESENT, OUT/FURTHEST (values outside, the largest e).
(TREE_LOW, TREE_HIGH, GUARD_LOW, GUARD_HIGH, WIDTH, MISSING_SHARE, TYPICAL, LEAST, MOST, MISSING, PRESENT, USABLE,
 OPTIONAL, EXCESS, OUT, FURTHEST, GUARDS) = range(17)
#: LEARNT: rows in LATEST. EPOCH_ROWS, STRAINED (left the trees' ranges), STRANGERS (not learnt), EXPLAINED: of the
#: current epoch.
(READY, LEARNT, EPOCH_ROWS, STRAINED, STRANGERS, EXPLAINED, STRAINED_EPOCHS, GENERATION, RELEARNING,
 COUNTS) = range(10)

#: Share of the window's rows below which a node is not searched further (Tan et al., section 4).
SIZE_LIMIT = 0.1
#: A row whose guards leave less than this of its normality does not teach the trees.
OUTSIDE = 0.1
#: The least that all guards together leave.
LEAST_FACTOR = 1e-9
#: Missing values are no news from this share on, and this is added to the share of what was never missing.
USUAL_MISSING = 0.1
NEVER_MISSING = 1e-6
#: Rows of an epoch whose contributions come from masking; the rest get those of their guards.
EXPLAINED_ROWS = 32
LARGEST = 1e100

#: Buckets an octave of 1 - score, and octaves: scores nearer to 1 than 2**-40 share the last bucket.
RESOLUTION = 8
OCTAVES = 40
BUCKETS = RESOLUTION * OCTAVES
#: Scores before the first alarm can be.
LEAST_SCORES = 100
#: Buckets added to the largest score seen, while fewer than 1 / (1 - quantile) scores are known (a factor of 2).
EARLY_MARGIN = RESOLUTION
#: Buckets above the quantile that an alarm's score counts at most (a factor of 2 ** 0.125).
WINSOR = 1
#: Scores that may raise the threshold: this many times the expected rate, and this many at once.
CREDIT_RATE = 5.0
MOST_CREDIT = 2.0
#: The past is halved when it weighs this many times 1 / (1 - quantile).
MEMORY = 20.0
#: Of `scalars`. INDEX: the quantile's bucket; ABOVE: what weighs above it.
QUANTILE, TOTAL, ABOVE, INDEX, CREDIT, SEEN = range(6)


@bare
def clamp(rows: FloatArray) -> None:
    """Bring values to +-1e100, in place, so that no difference of two overflows."""
    flat = rows.reshape(-1)
    for i in range(flat.size):
        if flat[i] > LARGEST:
            flat[i] = LARGEST
        elif flat[i] < -LARGEST:
            flat[i] = -LARGEST


@bare
def draw(state: NDArray[np.uint64]) -> float:
    """A uniform number in [0, 1): splitmix64 (Steele, Lea, Flood, OOPSLA 2014), the same on every platform."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 2.0 ** -53


@bare
def grow(feature: IntArray, split: FloatArray, low: FloatArray, high: FloatArray, usable: CountArray, padding: float,
         state: NDArray[np.uint64]) -> None:
    """Grow every tree: a random column, a random split of what is left of its range, `padding` from either end."""
    trees, inner = feature.shape
    for t in range(trees):
        for node in range(inner):
            column = usable[int(draw(state) * len(usable))]
            a, b = low[column], high[column]
            child, parent = node, (node - 1) // 2
            found_a = found_b = False
            while child > 0 and not (found_a and found_b):
                if feature[t, parent] == column:
                    if child == 2 * parent + 1 and not found_b:
                        b, found_b = split[t, parent], True
                    elif child == 2 * parent + 2 and not found_a:
                        a, found_a = split[t, parent], True
                child, parent = parent, (parent - 1) // 2
            feature[t, node] = column
            split[t, node] = a + (padding + (1.0 - 2.0 * padding) * draw(state)) * (b - a)


@bare
def below(x: FloatArray, node: int, feature: IntArray, split: FloatArray, mass: IntArray, t: int) -> int:
    """The child that a row goes to. Where its value is missing: the heavier child."""
    left = 2 * node + 1
    value = x[feature[t, node]]
    if value == value:
        return left if value < split[t, node] else left + 1
    heavier = mass[REFERENCE, t, left] - mass[REFERENCE, t, left + 1]
    if heavier == 0:
        heavier = mass[LATEST, t, left] - mass[LATEST, t, left + 1]
    return left + 1 if heavier < 0 else left


@bare
def search(x: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, height: int, window: int) -> float:
    """Normality in the trees: sum of r * 2**depth along each path, over its largest value; in (0, 1]."""
    trees = feature.shape[0]
    limit = SIZE_LIMIT * window
    total = np.int64(0)
    for t in range(trees):
        node = 0
        for depth in range(height + 1):
            r = mass[REFERENCE, t, node]
            total += np.int64(r) << np.int64(depth)
            if r < limit or depth == height:
                break
            node = below(x, node, feature, split, mass, t)
    return normality(int(total), trees, height, window)


@bare
def search_and_teach(x: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, height: int,
                     window: int) -> float:
    """`search`, then `teach`, along one path: the same numbers, as a row's own count never decides where it goes."""
    trees = feature.shape[0]
    limit = SIZE_LIMIT * window
    total = np.int64(0)
    for t in range(trees):
        node, searched = 0, True
        mass[LATEST, t, 0] += 1
        for depth in range(height + 1):
            if searched:
                r = mass[REFERENCE, t, node]
                total += np.int64(r) << np.int64(depth)
                searched = r >= limit
            if depth < height:
                node = below(x, node, feature, split, mass, t)
                mass[LATEST, t, node] += 1
    return normality(int(total), trees, height, window)


@bare
def normality(total: int, trees: int, height: int, window: int) -> float:
    """A sum of masses over the largest that it can be."""
    return float(total / (trees * window * (2.0 ** (height + 1) - 1.0)))


@bare
def outside(value: float, guards: FloatArray, f: int) -> float:
    """How far a present value is beyond column f's guard, in widths of its range; 0 inside."""
    if value < guards[GUARD_LOW, f]:
        return float((guards[GUARD_LOW, f] - value) / guards[WIDTH, f])
    if value > guards[GUARD_HIGH, f]:
        return float((value - guards[GUARD_HIGH, f]) / guards[WIDTH, f])
    return 0.0


@bare
def guard(value: float, guards: FloatArray, f: int) -> float:
    """What column f's guard leaves of a row's normality: 1 inside its range, less outside or where missing."""
    if guards[USABLE, f] == 0.0:
        return 1.0
    if value != value:
        if guards[OPTIONAL, f] != 0.0:
            return 1.0
        return float(min(1.0, (guards[MISSING_SHARE, f] + NEVER_MISSING) / USUAL_MISSING))
    return float(1.0 / (1.0 + outside(value, guards, f) / (1.0 + guards[EXCESS, f])))


@bare
def factor(x: FloatArray, guards: FloatArray) -> float:
    """What all guards leave."""
    product = 1.0
    for f in range(guards.shape[1]):
        product *= guard(x[f], guards, f)
    return float(max(product, LEAST_FACTOR))


@bare
def score_row(x: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, guards: FloatArray,
              height: int, window: int) -> float:
    """The anomaly score of one clamped row, in [0, 1)."""
    return float(1.0 - search(x, feature, split, mass, height, window) * factor(x, guards))


@bare
def score_rows(rows: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, guards: FloatArray, height: int,
               window: int, out: FloatArray) -> None:
    """Fill out (n,): the scores of clamped rows (n, k)."""
    for i in range(rows.shape[0]):
        out[i] = score_row(rows[i], feature, split, mass, guards, height, window)


@bare
def teach(x: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, height: int) -> None:
    """Count one row in every tree."""
    for t in range(feature.shape[0]):
        node = 0
        mass[LATEST, t, 0] += 1
        for _ in range(height):
            node = below(x, node, feature, split, mass, t)
            mass[LATEST, t, node] += 1


@bare
def teach_all(rows: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, height: int) -> None:
    """Count rows (n, k) in every tree."""
    for i in range(rows.shape[0]):
        teach(rows[i], feature, split, mass, height)


@bare
def pivot(mass: IntArray, counts: CountArray) -> None:
    """The current window becomes the reference."""
    for t in range(mass.shape[1]):
        for node in range(mass.shape[2]):
            mass[REFERENCE, t, node] = mass[LATEST, t, node]
            mass[LATEST, t, node] = 0
    counts[LEARNT] = 0
    counts[READY] = 1


@bare
def tally(x: FloatArray, guards: FloatArray, counts: CountArray, inside: bool) -> None:
    """Count one row for the audit at the epoch's end."""
    strained = False
    for f in range(guards.shape[1]):
        value = x[f]
        if value != value:
            guards[MISSING, f] += 1.0
            continue
        guards[PRESENT, f] += 1.0
        if guards[USABLE, f] != 0.0:
            strained = strained or value < guards[TREE_LOW, f] or value > guards[TREE_HIGH, f]
            away = outside(value, guards, f)
            if away > 0.0:
                guards[OUT, f] += 1.0
                guards[FURTHEST, f] = max(guards[FURTHEST, f], away)
            if inside:
                guards[LEAST, f] = min(guards[LEAST, f], value)
                guards[MOST, f] = max(guards[MOST, f], value)
    counts[EPOCH_ROWS] += 1
    counts[STRAINED] += strained
    counts[STRANGERS] += not inside


@bare
def bucket_of(score: float) -> int:
    """The bucket of a score: equal steps of -log2(1 - score)."""
    rest = 1.0 - score
    if not rest > 2.0 ** -OCTAVES:
        return BUCKETS - 1
    return max(0, min(BUCKETS - 1, int(-np.log2(rest) * RESOLUTION)))


@bare
def alarm_bucket(scalars: FloatArray) -> int:
    """The last bucket that is still normal."""
    if scalars[SEEN] < LEAST_SCORES:
        return BUCKETS
    margin = EARLY_MARGIN if scalars[SEEN] * (1.0 - scalars[QUANTILE]) < 1.0 else 0
    return min(int(scalars[INDEX]) + margin, BUCKETS - 2)


@bare
def threshold_of(scalars: FloatArray) -> float:
    """Scores above it are alarms; 1 (which no score exceeds) before there are enough scores."""
    bucket = alarm_bucket(scalars)
    return 1.0 if bucket >= BUCKETS else 1.0 - 2.0 ** (-(bucket + 1) / RESOLUTION)


@bare
def observe_into(histogram: FloatArray, scalars: FloatArray, score: float) -> None:
    """Take one score in. Changes both arrays."""
    rate = 1.0 - scalars[QUANTILE]
    bucket = bucket_of(score)
    alarm = alarm_bucket(scalars)
    scalars[SEEN] += 1.0
    scalars[CREDIT] = min(MOST_CREDIT, scalars[CREDIT] + CREDIT_RATE * rate)
    index, above = int(scalars[INDEX]), scalars[ABOVE]
    if bucket > index and alarm < BUCKETS:
        if scalars[CREDIT] < 1.0:
            return
        scalars[CREDIT] -= 1.0
        if bucket > alarm:
            bucket = min(index + WINSOR, BUCKETS - 1)
    histogram[bucket] += 1.0
    scalars[TOTAL] += 1.0
    if bucket > index:
        above += 1.0
    if scalars[TOTAL] * rate >= MEMORY:
        for i in range(BUCKETS):
            histogram[i] = 0.5 * histogram[i] if histogram[i] > 2.0 ** -8 else 0.0
        scalars[TOTAL], above = 0.0, 0.0
        for i in range(BUCKETS):
            scalars[TOTAL] += histogram[i]
            above += histogram[i] if i > index else 0.0
    allowed = rate * scalars[TOTAL]
    while above > allowed:
        index += 1
        above -= histogram[index]
    while index >= 0 and above + histogram[index] <= allowed:
        above += histogram[index]
        index -= 1
    scalars[INDEX], scalars[ABOVE] = float(index), above


@bare
def judge(scores: FloatArray, thresholds: FloatArray, histogram: FloatArray, scalars: FloatArray) -> None:
    """Scores (n,) in order: fill thresholds (n,), then observe."""
    for i in range(scores.size):
        thresholds[i] = threshold_of(scalars)
        observe_into(histogram, scalars, scores[i])


@bare
def surprise(scores: FloatArray, past: FloatArray, tail: float, out: FloatArray) -> None:
    """-log p of scores (n,) against past ones (m,), ascending; see `Calibration`."""
    m = past.size
    for i in range(scores.size):
        low, high = 0, m
        while low < high:
            middle = (low + high) // 2
            if past[middle] < scores[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = np.log((m + 1.0) / (m - low + 1.0))
        if low == m:
            out[i] += np.log1p((scores[i] - past[m - 1]) / tail)


@bare
def spend(strange: NDArray[np.bool_], counts: NDArray[np.bool_], credit: float, income: float, most: float) -> float:
    """Which rows (n,) count: the usual ones, and strange ones while there is credit. Returns the credit left."""
    for i in range(strange.size):
        if not strange[i]:
            credit = min(most, credit + income)
            continue
        counts[i] = credit >= 1.0
        if counts[i]:
            credit -= 1.0
    return credit


@bare
def explain(x: FloatArray, score: float, feature: IntArray, split: FloatArray, mass: IntArray, guards: FloatArray,
            counts: CountArray, height: int, window: int, out: FloatArray) -> None:
    """How much each column pushed the score: log of the normality gained with its typical value in its place.

    Puts typical values into x, and the row's own back.
    """
    masking = counts[EXPLAINED] < EXPLAINED_ROWS
    counts[EXPLAINED] += 1
    left = 1.0 - score
    for f in range(guards.shape[1]):
        out[f] = 0.0
        if guards[USABLE, f] == 0.0:
            continue
        if not masking:
            out[f] = -np.log(guard(x[f], guards, f))
            continue
        own, x[f] = x[f], guards[TYPICAL, f]
        gained = search(x, feature, split, mass, height, window) * factor(x, guards)
        x[f] = own
        if gained > left:
            out[f] = np.log(gained / left)


@bare
def run(rows: FloatArray, feature: IntArray, split: FloatArray, mass: IntArray, guards: FloatArray,
        counts: CountArray, height: int, window: int, histogram: FloatArray, scalars: FloatArray,
        scores: FloatArray, thresholds: FloatArray, contributions: FloatArray) -> None:
    """Rows of one epoch in order: score, compare, explain, then learn. Without a histogram only score and learn.

    rows (n, k), clamped. Fills scores (n,), thresholds (n,) and, where a score is above its threshold, the row of
    contributions (n, k).
    """
    judged = histogram.size > 0
    for i in range(rows.shape[0]):
        x = rows[i]
        left = factor(x, guards)
        inside = left >= OUTSIDE
        scores[i], thresholds[i] = 0.0, 1.0
        if counts[READY]:
            found = search_and_teach(x, feature, split, mass, height, window) if inside else search(
                x, feature, split, mass, height, window)
            scores[i] = 1.0 - found * left
            if judged:
                thresholds[i] = threshold_of(scalars)
                if scores[i] > thresholds[i]:
                    explain(x, scores[i], feature, split, mass, guards, counts, height, window, contributions[i])
                observe_into(histogram, scalars, scores[i])
        elif inside:
            teach(x, feature, split, mass, height)
        tally(x, guards, counts, inside)
        if inside:
            counts[LEARNT] += 1
            if counts[LEARNT] == window:
                pivot(mass, counts)
