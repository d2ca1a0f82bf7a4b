"""Summaries of a field as they are read, merged and shown. Sketches stay text until somebody needs them: they are most
of it, and a list of small lists for each would keep Python's collector busier than everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled
from streams.windows import packed
from streams.windows.sketch import bucket_value

#: (k, 2): codes, ascending, and counts.
Sketch = NDArray[np.int64]


class Summary(msgspec.Struct, frozen=True, gc=False):
    """See `schemas.windows.Summary`. `sketch` is JSON: an array, or a text as `streams.windows.packed` has it."""

    count: int
    missing: int = 0
    sum: float = 0.0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    m2: float = 0.0
    sketched: int | None = None
    sketch: msgspec.Raw = msgspec.Raw(b"[]")

    @property
    def std(self) -> float | None:
        """Of the values as a sample; None of fewer than two."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.mean is not None and self.count > 1 else None

    @property
    def sampling_rate(self) -> float | None:
        """The share of the values that the sketch was made of; None: all of them."""
        return None if self.sketched is None else self.sketched / self.count


def merged(found: Sequence[Summary]) -> Summary:
    """All but their sketches as one, in this order; see `merged_sketch`.

    Source: Chan, Golub, LeVeque, Stanford STAN-CS-79-773 (1979), for mean and m2. Deviations: none.
    """
    return reduce(_merge, found)


def _merge(a: Summary, b: Summary) -> Summary:
    count, missing, total = a.count + b.count, a.missing + b.missing, a.sum + b.sum
    sketched = None if a.sketched is b.sketched is None else sum(
        one.count if one.sketched is None else one.sketched for one in (a, b))
    if a.mean is None or b.mean is None:
        one = b if a.mean is None else a
        return Summary(count, missing, total, one.min, one.max, one.mean, one.m2, sketched)
    assert a.min is not None and a.max is not None and b.min is not None and b.max is not None
    step = b.mean - a.mean
    return Summary(count, missing, total, min(a.min, b.min), max(a.max, b.max), a.mean + step * b.count / count,
                   a.m2 + b.m2 + step * step * a.count * b.count / count, sketched)


def sketch_of(found: Summary) -> Sketch:
    """Its sketch as numbers."""
    text = np.frombuffer(bytes(found.sketch), np.uint8)
    return packed.pairs(text[1:-1]) if text[0] == packed.QUOTE else _pairs(text)


@compiled
def _pairs(text: NDArray[np.uint8]) -> Sketch:
    """The whole numbers in `[[code, count], ...]`, two by two."""
    found, many = np.empty(len(text), np.int64), 0
    inside, sign = False, 1
    for letter in text:
        if 48 <= letter <= 57:                          # 0 to 9
            if not inside:
                found[many], many, inside = 0, many + 1, True
            found[many - 1] = 10 * found[many - 1] + sign * (letter - 48)
        else:
            sign, inside = -1 if letter == 45 else 1, False
    return found[:many // 2 * 2].copy().reshape(-1, 2)


def merged_sketch(found: Iterable[Summary]) -> Sketch:
    """Sketches as one: counts of the same code add up."""
    sketches = [sketch_of(one) for one in found]
    if len(sketches) == 1:
        return sketches[0]
    both = np.concatenate(sketches)
    codes, where = np.unique(both[:, 0], return_inverse=True)
    counts = np.zeros(len(codes), np.int64)
    np.add.at(counts, where, both[:, 1])
    return np.stack((codes, counts), axis=1)


def quantiles(sketch: Sketch, qs: Sequence[float]) -> list[float | None]:
    """Values at ranks floor(q * (n - 1)), each within 1%; the same as `streams.windows.sketch.quantile`."""
    codes = _codes(sketch, np.array(qs, np.float64))
    return [_value(code) for code in codes.tolist()] if len(codes) else [None] * len(qs)


_value = lru_cache(maxsize=65_536)(bucket_value)


@compiled
def _codes(sketch: Sketch, qs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The code at each quantile (ascending or not); none of an empty sketch."""
    seen = np.cumsum(sketch[:, 1])
    if len(seen) == 0 or seen[-1] == 0:
        return np.empty(0, np.int64)
    ranks = np.floor(qs * (seen[-1] - 1)).astype(np.int64)
    codes: NDArray[np.int64] = sketch[np.searchsorted(seen, ranks, side="right"), 0].copy()
    return codes


def warm() -> None:
    """Compile, or load from the cache."""
    for sketch in (b"[[0,1]]", b'"A"'):
        quantiles(sketch_of(Summary(1, sketch=msgspec.Raw(sketch))), (0.5,))
    packed.warm()


def distance(one: Sketch, two: Sketch) -> float:
    """The Kolmogorov-Smirnov distance (0 to 1): sup |F - G| over the buckets' upper ends.

    Exact but for values that share a bucket (within 1%). Both have values.
    """
    codes = np.union1d(one[:, 0], two[:, 0])
    reached = [np.concatenate(([0], np.cumsum(sketch[:, 1]) / sketch[:, 1].sum()))[
        np.searchsorted(sketch[:, 0], codes, side="right")] for sketch in (one, two)]
    return float(np.abs(reached[0] - reached[1]).max())
