"""A row of a time series against its context, compiled. `time_series` says what is computed.

Arrays of one detector over k columns:

    recent   (RECENT, k) float64             the last rows, a ring; NaN where missing
    context  (CONTEXT, TRAITS, k) float64    traits of the rows at the times `at`, a ring
    at       (CONTEXT,) int64                times of the context, ms, never going back
    maxima   (k, VIEWS, MAXIMA) float64      the largest value of each view in each of the last blocks, a ring
    ordered  (k, VIEWS, MAXIMA) float64      the same, ascending; follows from `maxima`
    parts    (k, VIEWS, BEGINNINGS) float64  the largest value of each view in each part of the current block, a ring
    peak     (k, VIEWS) float64              the same of the current part; NaN: none yet
    tail     (k, VIEWS, 3) float64           LEVEL, SCALE and EXCEEDING of the maxima
    blocks   (k, VIEWS) int64                maxima so far
    last     (k,) float64                    the last value that was not missing
    counts   (COUNTS,) int64                 ROWS and SAMPLES so far, NEWEST time in ms (NO_TIME: none yet)
    step     (1,) float64                    usual ms between samples, 0: unknown
"""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors.kernels import DAY_MS, NO_TIME, CountArray, FloatArray, score_of
from streams.compiled import bare

#: Traits of a value, each the view of how far it is outside the same trait's context: the value itself, the means of
#: 3 and of 8 rows, and the shift: of the mean of 24 rows from that of the 24 before. Three views more: the value
#: outside a week's context, the step from the last value, and the spread of 24 rows.
VALUE, MEAN_3, MEAN_8, SHIFT, TRAITS = range(5)
WEEK, STEP, SPREAD, VIEWS = range(TRAITS, TRAITS + 4)
#: A value is looked at twice, against some days and against a week, so its first surprise counts less.
VALUE_WEIGHT = 0.65
SPAN = 24
RECENT = 2 * SPAN
CONTEXT = 2_048
#: Of the time of day on each of the last days: samples to either side. The fewest samples that are a context.
REACH = 6
LEAST_CONTEXT = 2 * REACH + 1
DAYS, WEEK_DAYS = 3, 7
#: Without a clock the context is the last samples.
RUN, WEEK_RUN = 288, 2_016
#: At most one row in this time is kept as context.
SPACING_MS = 150_000
#: The usual step follows by this share; a step that many times longer is a gap.
STEP_RATE, GAP = 0.02, 3.0
#: Rows a block, blocks that follow on one another, and the fewest that are a tail.
BLOCK, BLOCKS, LEAST_BLOCKS = 24, 200, 8
#: A block begins every so many rows, so that it is not chance where blocks are cut; how many overlap; maxima kept.
PART = 3
BEGINNINGS = BLOCK // PART
MAXIMA = BLOCKS * BEGINNINGS
#: The tail is what lies above this quantile of the blocks; its scale is at least this share of the quantile.
TAIL, LEAST_SCALE = 0.8, 0.12
MOST_SURPRISE = 20.0
LEVEL, SCALE, EXCEEDING = range(3)
ROWS, SAMPLES, NEWEST, COUNTS = range(4)


@bare
def first_at(at: CountArray, low: int, high: int, time: float) -> int:
    """The first sample in [low, high) that is not before a time; samples are numbered from the first ever."""
    while low < high:
        middle = (low + high) // 2
        if at[middle % CONTEXT] < time:
            low = middle + 1
        else:
            high = middle
    return low


@bare
def find_context(time: float, at: CountArray, counts: CountArray, step: FloatArray, ranges: CountArray) -> None:
    """Fill ranges (WEEK_DAYS, 2): the samples of each day that a row at a time (ms, NaN: no clock) compares with."""
    n = counts[SAMPLES]
    oldest = max(0, n - CONTEXT)
    if time != time:
        ranges[:, :] = 0
        ranges[0, 0], ranges[0, 1] = max(oldest, n - RUN), n
        ranges[DAYS, 0], ranges[DAYS, 1] = max(oldest, n - WEEK_RUN), max(oldest, n - RUN)
        return
    reach = 1.05 * REACH * step[0]
    end = n
    for day in range(WEEK_DAYS):
        middle = time - (day + 1) * DAY_MS
        end = first_at(at, oldest, n, middle + reach + 1.0)
        ranges[day, 0], ranges[day, 1] = first_at(at, oldest, end, middle - reach), end


@bare
def outside(value: float, context: FloatArray, trait: int, column: int, ranges: CountArray, days: int) -> float:
    """How far a value lies outside the context without its highest and lowest sample; NaN: too few samples."""
    high = second_high = -np.inf
    low = second_low = np.inf
    found = 0
    for day in range(days):
        for sample in range(ranges[day, 0], ranges[day, 1]):
            seen = context[sample % CONTEXT, trait, column]
            if seen != seen:
                continue
            found += 1
            if seen > second_high:
                high, second_high = max(seen, high), min(seen, high)
            if seen < second_low:
                low, second_low = min(seen, low), max(seen, low)
    if found < LEAST_CONTEXT or value != value:
        return np.nan
    return max(value - second_high, second_low - value, 0.0)


@bare
def mean_of(value: float, recent: FloatArray, column: int, rows: int, span: int) -> float:
    """The mean of a value and the rows before it, `span` in all, without those missing."""
    total, found = value, 1
    for back in range(1, min(span, rows + 1)):
        seen = recent[(rows - back) % RECENT, column]
        if seen == seen:
            total += seen
            found += 1
    return total / found


@bare
def spread_of(value: float, recent: FloatArray, column: int, rows: int) -> float:
    """The standard deviation of a value and the rows before it."""
    mean = mean_of(value, recent, column, rows, SPAN)
    total, found = (value - mean) ** 2, 1
    for back in range(1, min(SPAN, rows + 1)):
        seen = recent[(rows - back) % RECENT, column]
        if seen == seen:
            total += (seen - mean) ** 2
            found += 1
    return float(np.sqrt(total / found))


@bare
def shift_of(value: float, recent: FloatArray, column: int, rows: int) -> float:
    """How far the mean of a value and the rows before it is from that of as many rows before those; NaN: too few."""
    total, found = 0.0, 0
    for back in range(SPAN, min(RECENT, rows + 1)):
        seen = recent[(rows - back) % RECENT, column]
        if seen == seen:
            total += seen
            found += 1
    if rows + 1 < RECENT or not found:
        return np.nan
    return abs(mean_of(value, recent, column, rows, SPAN) - total / found)


@bare
def look(value: float, column: int, recent: FloatArray, context: FloatArray, last: FloatArray, rows: int,
         ranges: CountArray, views: FloatArray, traits: FloatArray) -> None:
    """Fill views (VIEWS,) and traits (TRAITS,) of a value; all NaN where it is missing."""
    if value != value:
        views[:] = np.nan
        traits[:] = np.nan
        return
    traits[VALUE] = value
    traits[MEAN_3] = mean_of(value, recent, column, rows, 3)
    traits[MEAN_8] = mean_of(value, recent, column, rows, 8)
    traits[SHIFT] = shift_of(value, recent, column, rows)
    for trait in range(TRAITS):
        views[trait] = outside(traits[trait], context, trait, column, ranges, DAYS)
    views[WEEK] = outside(value, context, VALUE, column, ranges, WEEK_DAYS)
    views[STEP] = abs(value - last[column])
    views[SPREAD] = spread_of(value, recent, column, rows)


@bare
def surprise(view: float, tail: FloatArray) -> float:
    """-ln of the chance that a block of the past exceeds the tail's level by so much; 0 within the level."""
    if not tail[EXCEEDING] > 0.0 or not view > tail[LEVEL]:
        return 0.0
    n = tail[EXCEEDING]
    return float(min((n + 1.0) * np.log1p((view - tail[LEVEL]) / (tail[SCALE] * n)), MOST_SURPRISE))


@bare
def column_score(views: FloatArray, tail: FloatArray) -> float:
    """The length of the vector of a column's surprises."""
    total = 0.0
    for view in range(VIEWS):
        total += ((VALUE_WEIGHT if view == VALUE else 1.0) * surprise(views[view], tail[view])) ** 2
    return float(np.sqrt(total))


@bare
def place_of(value: float, ordered: FloatArray, n: int) -> int:
    """The first of n ascending values that is not below a value."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@bare
def keep(value: float, maxima: FloatArray, ordered: FloatArray, seen: int) -> None:
    """Put a block's maximum in the place of the oldest, after `seen` others."""
    n = min(seen, MAXIMA)
    place = place_of(value, ordered, n)
    if seen < MAXIMA:
        for i in range(n, place, -1):
            ordered[i] = ordered[i - 1]
    else:
        gone = place_of(maxima[seen % MAXIMA], ordered, n)
        for i in range(gone, place - 1):
            ordered[i] = ordered[i + 1]
        for i in range(gone, place, -1):
            ordered[i] = ordered[i - 1]
        if gone < place:
            place -= 1
    ordered[place] = value
    maxima[seen % MAXIMA] = value


@bare
def fit(ordered: FloatArray, n: int, tail: FloatArray) -> None:
    """The tail of n ascending maxima: level, mean excess, and how many blocks exceed, overlapping ones counted once."""
    first = int(TAIL * n)
    level, excess = ordered[first], 0.0
    for i in range(first, n):
        excess += ordered[i] - level
    tail[LEVEL] = level
    tail[SCALE] = max(excess / (n - first), LEAST_SCALE * abs(level), 1e-9)
    tail[EXCEEDING] = (n - first) / BEGINNINGS


@bare
def run(rows: FloatArray, times: FloatArray, recent: FloatArray, context: FloatArray, at: CountArray,
        maxima: FloatArray, ordered: FloatArray, parts: FloatArray, peak: FloatArray, tail: FloatArray,
        blocks: CountArray, last: FloatArray, counts: CountArray, step: FloatArray, learning: bool,
        scratch: FloatArray, traits: FloatArray, ranges: CountArray, by_column: FloatArray, scores: FloatArray) -> None:
    """Score each row, then learn it if `learning`.

    rows (n, k); times (n,) ms, NaN: no clock. Fills by_column (n, k), NaN where missing and in a column's first row,
    and scores (n,). scratch (k, VIEWS), traits (k, TRAITS) and ranges (WEEK_DAYS, 2) are scratch.
    """
    for i in range(rows.shape[0]):
        time = times[i]
        if time < counts[NEWEST]:
            time = float(counts[NEWEST])
        find_context(time, at, counts, step, ranges)
        for f in range(rows.shape[1]):
            look(rows[i, f], f, recent, context, last, counts[ROWS], ranges, scratch[f], traits[f])
            known = rows[i, f] == rows[i, f] and last[f] == last[f]
            by_column[i, f] = column_score(scratch[f], tail[f]) if known else np.nan
        scores[i] = score_of(by_column[i])
        if learning:
            absorb(rows[i], time, recent, context, at, maxima, ordered, parts, peak, tail, blocks, last, counts, step,
                   scratch, traits)


@bare
def absorb(x: FloatArray, time: float, recent: FloatArray, context: FloatArray, at: CountArray, maxima: FloatArray,
           ordered: FloatArray, parts: FloatArray, peak: FloatArray, tail: FloatArray, blocks: CountArray,
           last: FloatArray, counts: CountArray, step: FloatArray, views: FloatArray, traits: FloatArray) -> None:
    """Learn a row, of which the views and traits are known."""
    for f in range(len(x)):
        recent[counts[ROWS] % RECENT, f] = x[f]
        if x[f] == x[f]:
            last[f] = x[f]
        for view in range(VIEWS):
            if views[f, view] == views[f, view]:
                peak[f, view] = max(views[f, view], peak[f, view]) if peak[f, view] == peak[f, view] else views[f, view]
    sample(time, context, at, counts, step, traits)
    counts[ROWS] += 1
    if counts[ROWS] % PART:
        return
    for f in range(len(x)):
        for view in range(VIEWS):
            parts[f, view, counts[ROWS] // PART % BEGINNINGS] = peak[f, view]
            peak[f, view] = np.nan
            if counts[ROWS] >= BLOCK:
                close_block(maxima[f, view], ordered[f, view], parts[f, view], tail[f, view], blocks[f], view)


@bare
def close_block(maxima: FloatArray, ordered: FloatArray, parts: FloatArray, tail: FloatArray, blocks: CountArray,
                view: int) -> None:
    """Keep the maximum of the last parts, unless the view is missing in all of them, and fit the tail anew."""
    most = np.nan
    for part in range(BEGINNINGS):
        if parts[part] == parts[part]:
            most = max(parts[part], most) if most == most else parts[part]
    if most != most:
        return
    keep(most, maxima, ordered, blocks[view])
    blocks[view] += 1
    if blocks[view] >= LEAST_BLOCKS * BEGINNINGS:
        fit(ordered, min(blocks[view], MAXIMA), tail)


@bare
def sample(time: float, context: FloatArray, at: CountArray, counts: CountArray, step: FloatArray,
           traits: FloatArray) -> None:
    """Keep a row as context, unless the last one that was kept is too near."""
    n = counts[SAMPLES]
    if time == time:
        gone = time - counts[NEWEST]
        if gone < SPACING_MS:
            return
        if step[0] == 0.0:
            step[0] = gone if counts[NEWEST] != NO_TIME else 0.0
        elif gone < GAP * step[0]:
            step[0] += STEP_RATE * (gone - step[0])
        counts[NEWEST] = int(time)
    at[n % CONTEXT] = counts[NEWEST]
    for f in range(traits.shape[0]):
        for trait in range(TRAITS):
            context[n % CONTEXT, trait, f] = traits[f, trait]
    counts[SAMPLES] = n + 1
