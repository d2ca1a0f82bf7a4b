"""The trees of `OnlineIsolationForest` as loops over arrays, compiled.

Nodes of a tree are numbered as in a heap: node i has the children 2i + 1 and 2i + 2.

    feature  (T, N) int32     column that a node splits; -1: a leaf
    split    (T, N)           left if value < split
    count    (T, N) int64     rows of the window, as far as the node knows (a split shares them out by volume)
    box      (T, N, 2, k)     least and largest value of each column; inf, -inf where there is none
    state    (1,) uint64      of the random numbers
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors.kernels import CountArray, FloatArray, IntArray, draw
from streams.compiled import bare, compiled

LOW, HIGH = 0, 1


@bare
def path_length(rows: float, leaf_rows: int) -> float:
    """Depth that so many rows would have further down: log4(rows / leaf rows), 0 for less than a leaf's."""
    return float(np.log(rows / leaf_rows) / np.log(4.0)) if rows >= leaf_rows else 0.0


@bare
def depth_of(node: int) -> int:
    depth, first = 0, 1
    while node >= 2 * first - 1:
        first, depth = 2 * first, depth + 1
    return depth


@bare
def stretch(box: FloatArray, t: int, node: int, x: FloatArray) -> None:
    """Let a node's box hold a row."""
    for f in range(x.size):
        if x[f] < box[t, node, LOW, f]:
            box[t, node, LOW, f] = x[f]
        if x[f] > box[t, node, HIGH, f]:
            box[t, node, HIGH, f] = x[f]


@bare
def child_of(x: FloatArray, t: int, node: int, feature: IntArray, split: FloatArray, count: CountArray) -> int:
    """Where a row goes; the heavier child where its value is missing."""
    value, left = x[feature[t, node]], 2 * node + 1
    if value != value:
        return left if count[t, left] >= count[t, left + 1] else left + 1
    return left if value < split[t, node] else left + 1


@compiled
def grow(t: int, node: int, leaf_rows: int, limit: float, feature: IntArray, split: FloatArray, count: CountArray,
         box: FloatArray, state: NDArray[np.uint64]) -> None:
    """Split a leaf, and its children while they have rows enough: by as many uniform points of its box."""
    n, width = int(count[t, node]), box.shape[3]
    points = np.empty((n, width))
    for i in range(n):
        for f in range(width):
            low, high = box[t, node, LOW, f], box[t, node, HIGH, f]
            points[i, f] = low + draw(state) * (high - low) if low <= high else np.nan
    place = np.full(n, node)
    stack = [node]
    while len(stack):
        at = stack.pop()
        depth = depth_of(at)
        mine = np.flatnonzero(place == at)
        count[t, at], feature[t, at] = mine.size, -1
        box[t, at, LOW], box[t, at, HIGH] = np.inf, -np.inf
        for i in mine:
            stretch(box, t, at, points[i])
        if mine.size < leaf_rows * 2.0 ** depth or depth >= limit or 2 * at + 2 >= feature.shape[1]:
            continue
        wide = np.flatnonzero(box[t, at, HIGH] > box[t, at, LOW])
        if wide.size == 0:
            continue
        f = wide[int(draw(state) * wide.size)]
        cut = box[t, at, LOW, f] + draw(state) * (box[t, at, HIGH, f] - box[t, at, LOW, f])
        feature[t, at], split[t, at] = f, cut
        for i in mine:
            place[i] = 2 * at + 1 if points[i, f] < cut else 2 * at + 2
        stack.append(2 * at + 2)
        stack.append(2 * at + 1)


@bare
def insert(x: FloatArray, t: int, rows: int, leaf_rows: int, feature: IntArray, split: FloatArray, count: CountArray,
           box: FloatArray) -> int:
    """Count a row in one tree; `rows` of the window with it. Returns the leaf if it must be split, else -1."""
    node, depth = 0, 0
    while True:
        count[t, node] += 1
        stretch(box, t, node, x)
        if feature[t, node] < 0:
            break
        node, depth = child_of(x, t, node, feature, split, count), depth + 1
    full = count[t, node] >= leaf_rows * 2.0 ** depth and depth < path_length(rows, leaf_rows)
    return node if full and 2 * node + 2 < feature.shape[1] else -1


@bare
def forget(x: FloatArray, t: int, leaf_rows: int, feature: IntArray, split: FloatArray, count: CountArray,
           box: FloatArray) -> None:
    """Take a row out of one tree; nodes with too few rows left become leaves."""
    node, depth = 0, 0
    while True:
        count[t, node] -= 1
        if feature[t, node] < 0:
            break
        if count[t, node] < leaf_rows * 2.0 ** depth:
            unite(t, node, feature, box)
            feature[t, node] = -1
            break
        node, depth = child_of(x, t, node, feature, split, count), depth + 1
    while node > 0:
        node = (node - 1) // 2
        join(t, node, box)


@bare
def join(t: int, node: int, box: FloatArray) -> None:
    """A node's box is that of its children."""
    left = 2 * node + 1
    for f in range(box.shape[3]):
        box[t, node, LOW, f] = min(box[t, left, LOW, f], box[t, left + 1, LOW, f])
        box[t, node, HIGH, f] = max(box[t, left, HIGH, f], box[t, left + 1, HIGH, f])


@bare
def unite(t: int, node: int, feature: IntArray, box: FloatArray) -> None:
    """Join the boxes of all below a node, and make those nodes leaves."""
    first, last = node, node
    while 2 * first + 1 < feature.shape[1]:
        first, last = 2 * first + 1, 2 * last + 2
    while first > node:
        first, last = (first - 1) // 2, (last - 2) // 2
        for at in range(first, last + 1):
            if feature[t, at] >= 0:
                join(t, at, box)
                if at != node:
                    feature[t, at] = -1


@compiled
def learn(rows: FloatArray, window: FloatArray, counted: int, leaf_rows: int, feature: IntArray, split: FloatArray,
          count: CountArray, box: FloatArray, state: NDArray[np.uint64]) -> int:
    """Insert rows (n, k) in order, each into the window (W, k) too, in the place of the oldest, which is forgotten.

    `counted` rows were learnt before; returns how many with these.
    """
    size = window.shape[0]
    for i in range(rows.shape[0]):
        held = min(counted, size) + 1
        for t in range(feature.shape[0]):
            leaf = insert(rows[i], t, held, leaf_rows, feature, split, count, box)
            if leaf >= 0:
                grow(t, leaf, leaf_rows, path_length(held, leaf_rows), feature, split, count, box, state)
        place = counted % size
        if counted >= size:
            for t in range(feature.shape[0]):
                forget(window[place], t, leaf_rows, feature, split, count, box)
        window[place] = rows[i]
        counted += 1
    return counted


@bare
def scores(rows: FloatArray, held: int, leaf_rows: int, feature: IntArray, split: FloatArray, count: CountArray,
           out: FloatArray) -> None:
    """Fill out (n,): 2 ** -(mean depth of the row / usual depth)."""
    usual = path_length(held, leaf_rows) + 2.0 ** -52
    for i in range(rows.shape[0]):
        total = 0.0
        for t in range(feature.shape[0]):
            node, depth = 0, 0
            while feature[t, node] >= 0:
                node, depth = child_of(rows[i], t, node, feature, split, count), depth + 1
            total += depth + path_length(count[t, node], leaf_rows)
        out[i] = 2.0 ** (-total / feature.shape[0] / usual)
