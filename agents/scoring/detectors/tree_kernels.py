"""Half-space trees as loops over arrays, compiled. `half_space_trees` says what they compute.

Arrays of one detector with T trees of height h over k columns:

    feature    (T, 2**h - 1) uint8          column that an inner node splits; node i has children 2i + 1, 2i + 2
    split      (T, 2**h - 1) float64        left if value < split
    reference  (T, 2**(h + 1) - 1) uint16   rows of the last full window in each node; uint32 where a window has more
    latest     (T, 2**h) the same           rows of the current window in each leaf
    paths      (T, 2**h) int32              what a search that ends in a leaf sums up: r * 2**depth, down to the depth
                                            at which it stops
    guards     (GUARDS, k) float64          a column each; the rows are named below
    counts     (COUNTS,) int64              named below

Types are as narrow as what they count, as ten thousand of them shall be in memory, and one near the processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors.kernels import ColumnArray, CountArray, FloatArray, IntArray, MassArray, draw
from agents.scoring.detectors.threshold_kernels import observe_into, threshold_of
from streams.compiled import bare

#: Rows of `guards`. TREE_*: what the trees split. GUARD_*: beyond it a value is outside. EXCESS: how many
#: widths outside is usual. OPTIONAL: missing is no news. USABLE: has a range. Of the current epoch: LEAST/MOST,
#: MISSING/PRESENT, OUT/FURTHEST (values outside, the largest e).
(TREE_LOW, TREE_HIGH, GUARD_LOW, GUARD_HIGH, WIDTH, MISSING_SHARE, TYPICAL, LEAST, MOST, MISSING, PRESENT, USABLE,
 OPTIONAL, EXCESS, OUT, FURTHEST, GUARDS) = range(17)
#: LEARNT: rows of the current window. EPOCH_ROWS, STRAINED (left the trees' ranges), STRANGERS (not learnt),
#: EXPLAINED: of the current epoch.
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
#: Epochs in a row, of whose rows most left the trees' ranges or a tenth was not learnt, until ranges are learnt anew.
PATIENCE = 20
#: Share of an epoch's rows that is no longer rare: of values outside or missing, of a feature the trees do not know.
COMMON = 0.1
#: A guard follows by at most this many widths an epoch.
GUARD_STEP = 0.5
#: The usual share of missing values follows with this rate an epoch, while no more than a tenth, or than this many
#: times the usual, are missing.
MISSING_RATE, MISSING_STEP = 0.02, 2.0
#: Rows of an epoch whose contributions come from masking; the rest get those of their guards.
EXPLAINED_ROWS = 32
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@bare
def grow(feature: ColumnArray, split: FloatArray, low: FloatArray, high: FloatArray, usable: CountArray, padding: float,
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
def below(x: FloatArray, node: np.uint64, feature: ColumnArray, split: FloatArray, mass: MassArray) -> np.uint64:
    """The child that a row goes to in one tree (of which these are the arrays). Where its value is missing: the heavier
    child. Added, not chosen: a processor cannot guess a choice between halves. Nodes are unsigned, as numba then leaves
    out its look at negative indices."""
    left = (node << _ONE) + _ONE
    value = x[np.uint64(feature[node])]
    if value == value:
        return left + np.uint64(value >= split[node])
    return left + np.uint64(mass[left] < mass[left + _ONE])


@bare
def search(x: FloatArray, feature: ColumnArray, split: FloatArray, reference: MassArray, paths: IntArray) -> int:
    """Sum of r * 2**depth along each path."""
    trees, leaves = paths.shape
    total = np.int64(0)
    for t in range(trees):
        node = _ZERO
        while node < leaves - 1:
            node = below(x, node, feature[t], split[t], reference[t])
        total += paths[t, node - np.uint64(leaves - 1)]
    return int(total)


@bare
def search_and_teach(rows: FloatArray, learn: IntArray, feature: ColumnArray, split: FloatArray, reference: MassArray,
                     latest: MassArray, paths: IntArray, totals: CountArray) -> None:
    """`search` of rows (n, k) into totals (n,), and `learn` (n,) times each of them counted in every leaf it reaches.

    No row's own count decides where it or a later one goes, nor what is summed up, so trees may come one after the
    other: one fits the nearest cache. Four rows go side by side, as each step of one waits for the step before.
    """
    for t in range(paths.shape[0]):
        tree(rows, learn, feature[t], split[t], reference[t], latest[t], paths[t], totals)


@bare
def tree(rows: FloatArray, learn: IntArray, feature: ColumnArray, split: FloatArray, mass: MassArray, latest: MassArray,
         paths: IntArray, totals: CountArray) -> None:
    """`search_and_teach` in one tree."""
    first = np.uint64(len(paths) - 1)
    fours = len(rows) - len(rows) % 4
    for i in range(0, fours, 4):
        a = b = c = d = _ZERO
        while a < first:
            a, b = below(rows[i], a, feature, split, mass), below(rows[i + 1], b, feature, split, mass)
            c, d = below(rows[i + 2], c, feature, split, mass), below(rows[i + 3], d, feature, split, mass)
        reach(i, a - first, learn, latest, paths, totals)
        reach(i + 1, b - first, learn, latest, paths, totals)
        reach(i + 2, c - first, learn, latest, paths, totals)
        reach(i + 3, d - first, learn, latest, paths, totals)
    for i in range(fours, len(rows)):
        a = _ZERO
        while a < first:
            a = below(rows[i], a, feature, split, mass)
        reach(i, a - first, learn, latest, paths, totals)


@bare
def reach(i: int, leaf: np.uint64, learn: IntArray, latest: MassArray, paths: IntArray, totals: CountArray) -> None:
    """Row i is in a leaf, counted from the left."""
    totals[i] += paths[leaf]
    latest[leaf] += learn[i]


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
def factors(rows: FloatArray, guards: FloatArray, lefts: FloatArray, learn: IntArray) -> None:
    """`factor` of each row, column by column, and whether the row is learnt."""
    for i in range(len(rows)):
        lefts[i] = 1.0
    for f in range(guards.shape[1]):
        low, high = guards[GUARD_LOW, f], guards[GUARD_HIGH, f]
        for i in range(len(rows)):
            if not low <= rows[i, f] <= high:       # inside, a guard leaves all of it
                lefts[i] *= guard(rows[i, f], guards, f)
    for i in range(len(rows)):
        lefts[i] = max(lefts[i], LEAST_FACTOR)
        learn[i] = lefts[i] >= OUTSIDE


@bare
def score_row(x: FloatArray, feature: ColumnArray, split: FloatArray, reference: MassArray, paths: IntArray,
              guards: FloatArray, height: int, window: int) -> float:
    """The anomaly score of one clamped row, in [0, 1)."""
    found = normality(search(x, feature, split, reference, paths), len(paths), height, window)
    return float(1.0 - found * factor(x, guards))


@bare
def score_rows(rows: FloatArray, feature: ColumnArray, split: FloatArray, reference: MassArray, paths: IntArray,
               guards: FloatArray, height: int, window: int, out: FloatArray) -> None:
    """Fill out (n,): the scores of clamped rows (n, k)."""
    for i in range(rows.shape[0]):
        out[i] = score_row(rows[i], feature, split, reference, paths, guards, height, window)


@bare
def pivot(reference: MassArray, latest: MassArray, paths: IntArray, counts: CountArray, window: int) -> None:
    """The current window becomes the reference."""
    trees, leaves = latest.shape
    for t in range(trees):
        for leaf in range(leaves):
            reference[t, leaves - 1 + leaf] = latest[t, leaf]
            latest[t, leaf] = 0
    sum_up(reference, paths, window)
    counts[LEARNT] = 0
    counts[READY] = 1


@bare
def sum_up(reference: MassArray, paths: IntArray, window: int) -> None:
    """Fill the inner nodes of `reference`, and `paths`. A search stops below a node with less than a tenth of the rows.

    Sums go down from level to level in `paths`, each level's right to left, as its children take two places for one;
    one that has stopped is kept as -1 - sum.
    """
    limit = SIZE_LIMIT * window
    trees, leaves = paths.shape
    for t in range(trees):
        for node in range(leaves - 2, -1, -1):
            reference[t, node] = reference[t, 2 * node + 1] + reference[t, 2 * node + 2]
        paths[t, 0] = reference[t, 0]
        width, depth = 1, 0
        while width < leaves:
            depth += 1
            for i in range(width - 1, -1, -1):
                above = paths[t, i]
                if above >= 0 and reference[t, width - 1 + i] < limit:
                    above = -1 - above
                for child in range(2 * i, 2 * i + 2):
                    r = np.int64(reference[t, 2 * width - 1 + child])
                    paths[t, child] = above if above < 0 else above + (r << np.int64(depth))
            width *= 2
        for leaf in range(leaves):
            if paths[t, leaf] < 0:
                paths[t, leaf] = -1 - paths[t, leaf]


@bare
def tally(rows: FloatArray, guards: FloatArray, counts: CountArray, learn: IntArray, strained: CountArray) -> None:
    """Count rows for the audit at the epoch's end, column by column. `strained` (n,) is scratch."""
    for i in range(len(rows)):
        strained[i] = 0
        counts[STRANGERS] += learn[i] == 0
    for f in range(guards.shape[1]):
        usable, low, high = guards[USABLE, f] != 0.0, guards[TREE_LOW, f], guards[TREE_HIGH, f]
        guard_low, guard_high = guards[GUARD_LOW, f], guards[GUARD_HIGH, f]
        least, most, present = guards[LEAST, f], guards[MOST, f], 0
        for i in range(len(rows)):
            value = rows[i, f]
            if value != value:
                continue
            present += 1
            if not usable:
                continue
            if value < low or value > high:
                strained[i] = 1
            if not guard_low <= value <= guard_high:
                guards[OUT, f] += 1.0
                guards[FURTHEST, f] = max(guards[FURTHEST, f], outside(value, guards, f))
            if learn[i]:
                least, most = min(least, value), max(most, value)
        guards[LEAST, f], guards[MOST, f] = least, most
        guards[PRESENT, f] += present
        guards[MISSING, f] += len(rows) - present
    for i in range(len(rows)):
        counts[STRAINED] += strained[i]
    counts[EPOCH_ROWS] += len(rows)


@bare
def follow(guards: FloatArray, counts: CountArray) -> None:
    """Let guards follow the epoch's rows, and decide whether new trees shall grow from the next epoch's."""
    rows = counts[EPOCH_ROWS]
    unknown = False
    for f in range(guards.shape[1]):
        if guards[USABLE, f] == 0.0:
            unknown = unknown or guards[PRESENT, f] >= COMMON * rows
        elif guards[MOST, f] >= guards[LEAST, f]:
            step = GUARD_STEP * guards[WIDTH, f]
            guards[GUARD_HIGH, f] = max(guards[GUARD_HIGH, f], min(guards[MOST, f], guards[GUARD_HIGH, f] + step))
            guards[GUARD_LOW, f] = min(guards[GUARD_LOW, f], max(guards[LEAST, f], guards[GUARD_LOW, f] - step))
        if 0.0 < guards[OUT, f] <= COMMON * rows:
            before = guards[EXCESS, f]
            guards[EXCESS, f] = min(max(before, guards[FURTHEST, f]), 2.0 * before + 1.0)
        usual, share = guards[MISSING_SHARE, f], guards[MISSING, f] / rows
        if share <= COMMON or share <= MISSING_STEP * usual:
            guards[MISSING_SHARE, f] = usual + MISSING_RATE * (share - usual)
    strained = counts[STRAINED] > 0.5 * rows or counts[STRANGERS] > COMMON * rows
    counts[STRAINED_EPOCHS] = counts[STRAINED_EPOCHS] + 1 if strained else 0
    counts[RELEARNING] = counts[STRAINED_EPOCHS] >= PATIENCE or unknown


@bare
def begin_epoch(guards: FloatArray, counts: CountArray) -> None:
    """Nothing of the epoch has come yet."""
    counts[EPOCH_ROWS] = counts[STRAINED] = counts[STRANGERS] = counts[EXPLAINED] = 0
    for f in range(guards.shape[1]):
        guards[MISSING, f] = guards[PRESENT, f] = guards[OUT, f] = guards[FURTHEST, f] = 0.0
        guards[LEAST, f], guards[MOST, f] = np.inf, -np.inf


@bare
def explain(x: FloatArray, score: float, feature: ColumnArray, split: FloatArray, reference: MassArray, paths: IntArray,
            guards: FloatArray, counts: CountArray, height: int, window: int, out: FloatArray) -> None:
    """How much each column pushed the score: log of the normality gained with its typical value in its place.

    Puts typical values into x, and the row's own back.
    """
    masking = counts[EXPLAINED] < EXPLAINED_ROWS
    counts[EXPLAINED] += 1
    for f in range(guards.shape[1]):
        out[f] = 0.0
        if guards[USABLE, f] == 0.0:
            continue
        if not masking:
            out[f] = -np.log(guard(x[f], guards, f))
            continue
        own, x[f] = x[f], guards[TYPICAL, f]
        gained = 1.0 - score_row(x, feature, split, reference, paths, guards, height, window)
        x[f] = own
        if gained > 1.0 - score:
            out[f] = np.log(gained / (1.0 - score))


@bare
def ahead(learn: IntArray, first: int, room: int) -> int:
    """Where the row after the one that fills the window is, at most."""
    for i in range(first, len(learn)):
        room -= learn[i]
        if room == 0:
            return i + 1
    return len(learn)


@bare
def run(rows: FloatArray, feature: ColumnArray, split: FloatArray, reference: MassArray, latest: MassArray,
        paths: IntArray, guards: FloatArray, counts: CountArray, height: int, window: int, histogram: FloatArray,
        scalars: FloatArray, lefts: FloatArray, learn: IntArray, totals: CountArray,
        scores: FloatArray, thresholds: FloatArray, contributions: FloatArray) -> None:
    """Rows of one epoch in order: score, compare, explain, then learn. Without a histogram only score and learn.

    rows (n, k), clamped. Fills scores (n,), thresholds (n,) and, where a score is above its threshold, the row of
    contributions (n, k). lefts, learn (n,) are scratch; totals (n,) too, of zeros.

    Within an epoch guards stand still, and until a window is full so does what is searched: so many rows at once.
    """
    judged = histogram.size > 0
    factors(rows, guards, lefts, learn)
    first = 0
    while first < len(rows):
        stop = ahead(learn, first, window - counts[LEARNT])
        search_and_teach(rows[first:stop], learn[first:stop], feature, split, reference, latest, paths,
                         totals[first:stop])
        for i in range(first, stop):
            counts[LEARNT] += learn[i]
            scores[i], thresholds[i] = 0.0, 1.0
            if counts[READY]:
                scores[i] = 1.0 - normality(totals[i], len(paths), height, window) * lefts[i]
                if judged:
                    thresholds[i] = threshold_of(scalars)
                    if scores[i] > thresholds[i]:
                        explain(rows[i], scores[i], feature, split, reference, paths, guards, counts, height, window,
                                contributions[i])
                    observe_into(histogram, scalars, scores[i])
        if counts[LEARNT] == window:
            pivot(reference, latest, paths, counts, window)
        first = stop
    tally(rows, guards, counts, learn, totals)
