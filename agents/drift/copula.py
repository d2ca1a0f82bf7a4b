r"""How the columns of a block go together, whatever becomes of each by itself (its copula), as a few means.

Each column of a block is replaced by the grades of its values, z = sqrt(12) ((rank - 1/2) / n - 1/2), ties at their
mean rank, missing values at 0. So every column looks the same in every block, and only what is joint is left. A block
then stands for some means over its rows: of z_i z_j, for all pairs of columns (their rank correlation, Spearman's), and
of random features, cos(w . z + b), w of random signs and sizes in two or three columns and 0 elsewhere, b uniform in
[0, 2 pi). The distance of two blocks' means estimates the maximum mean discrepancy under a kernel that is a sum over
pairs and triples of columns.

Sources: Gretton et al., A kernel two-sample test, JMLR 13 (2012); Rahimi, Recht, Random features, NIPS 2007; Póczos,
Ghahramani, Schneider, Copula-based kernel dependency measures, ICML 2012. Deviations: w is sparse, as in all columns at
once a change of two of them drowns; and bounded away from 0, as one weight near it makes of a triple a pair.
Cost: a sort a column and `FEATURES` cosines a row. Invariant: any increasing function of a column changes nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FEATURES, ARITY = 64, 3
#: Sizes of weights.
LEAST, MOST = 0.75, 1.75
#: What a field's column is, if it has none: not wanted, or wanted and new.
UNWANTED, NEW = -1, -2
_ROOT_12 = math.sqrt(12.0)


class Features(NamedTuple):
    """Random features: their columns (FEATURES, ARITY), weights (FEATURES, ARITY) and phases (FEATURES,)."""

    columns: IntArray
    weights: FloatArray
    phases: FloatArray


@lru_cache(maxsize=64)
def features_of(width: int) -> Features:
    """Those of so many columns, at least two; always the same ones: numpy never changes what RandomState draws."""
    random = np.random.RandomState(width)
    columns = np.zeros((FEATURES, ARITY), np.int64)
    weights = np.zeros((FEATURES, ARITY))
    for feature in range(FEATURES):
        of = min(width, 2 + feature % 2)
        columns[feature, :of] = random.permutation(width)[:of]
        weights[feature, :of] = random.uniform(LEAST, MOST, of) * random.choice([-1.0, 1.0], of)
    return Features(columns, weights, random.uniform(0.0, 2.0 * math.pi, FEATURES))


@compiled
def gather(rows: IntArray, start: IntArray, field: NDArray[np.int32], value: FloatArray, column: IntArray,
           width: int) -> tuple[FloatArray, int]:
    """The matrix (rows, width) of some rows, NaN where one has no value; and the first with a new field, or -1."""
    matrix, new = np.full((len(rows), width), np.nan), -1
    for i, row in enumerate(rows):
        for place in range(start[row], start[row + 1]):
            at = column[field[place]]
            if at >= 0:
                matrix[i, at] = value[place]
            elif at == NEW and new < 0:
                new = i
    return matrix, new


@compiled
def grades(rows: FloatArray) -> FloatArray:
    """The grades of a block (n, columns); 0 where it has NaN."""
    n, width = rows.shape
    found = np.zeros((n, width))
    for j in range(width):
        column = rows[:, j].copy()
        present = n
        for i in range(n):
            if math.isnan(column[i]):
                column[i] = np.inf
                present -= 1
        order, first = np.argsort(column), 0
        while first < present:
            last = first
            while last + 1 < present and column[order[last + 1]] == column[order[first]]:
                last += 1
            grade = _ROOT_12 * (((first + last) / 2.0 + 0.5) / present - 0.5)
            for i in range(first, last + 1):
                found[order[i], j] = grade
            first = last + 1
    return found


@compiled
def means(z: FloatArray, columns: IntArray, weights: FloatArray, phases: FloatArray) -> FloatArray:
    """The mean of each random feature over the rows of z."""
    found = np.zeros(len(phases))
    for i in range(len(z)):
        for k in range(len(phases)):
            angle = phases[k]
            for part in range(weights.shape[1]):
                angle += weights[k, part] * z[i, columns[k, part]]
            found[k] += math.cos(angle)
    return found / len(z)
