"""Exponential smoothing with a daily season, robust and compiled. `holt_winters` says what is computed.

Arrays of one detector over k columns:

    smooth   (k, SMOOTH) float64    LEVEL, TREND and SCALE; ROWS that were not missing; SUM and PART of the slot under
                                    way
    season   (k, SLOTS) float64     what each quarter of an hour of the day adds to the level; NaN: never seen
    counts   (COUNTS,) int64        FIRST and NEWEST time in ms (NO_TIME: none yet), the SLOT under way since the epoch,
                                    1 if a whole day is KNOWN
"""

from __future__ import annotations

import numpy as np

from agents.scoring.detectors.kernels import DAY_MS, NO_TIME, CountArray, FloatArray, score_of
from streams.compiled import bare

LEVEL, TREND, SCALE, ROWS, SUM, PART, SMOOTH = range(7)
FIRST, NEWEST, SLOT, KNOWN, COUNTS = range(5)
SLOTS = 96
SLOT_MS = DAY_MS // SLOTS
#: Shares by which level and trend follow a row, the season a day, and the scale a row.
LEVEL_RATE, TREND_RATE, SEASON_RATE, SCALE_RATE = 0.1, 0.01, 0.3, 0.05
#: Scales from the forecast beyond which a value teaches no more, and the biweight's factor that makes it consistent.
BOUND, BIWEIGHT = 2.0, 2.52
#: Rows of which the first scale is made: of absolute residuals, their mean times sqrt(pi / 2).
START, FROM_MEAN = 48, 1.2533141373155003
#: A scale is at least this share of the level's size.
LEAST_SHARE, LEAST_SCALE = 1e-6, 1e-12


@bare
def forecast(smooth: FloatArray, season: FloatArray, slot: int) -> float:
    """Level, trend and season of a column; without a season where none is known. slot: of the day, or -1."""
    found = smooth[LEVEL] + smooth[TREND]
    if slot >= 0 and season[slot] == season[slot]:
        found += season[slot]
    return float(found)


@bare
def scale_of(smooth: FloatArray) -> float:
    """The usual size of a residual."""
    return float(max(smooth[SCALE], LEAST_SHARE * abs(smooth[LEVEL]), LEAST_SCALE))


@bare
def teach(value: float, smooth: FloatArray, season: FloatArray, slot: int) -> None:
    """Level, trend and scale follow a value, the season's sum takes it in. slot: of the day, -1 without a known day."""
    if smooth[ROWS] == 0.0:
        smooth[LEVEL] = value
    expected = forecast(smooth, season, slot)
    residual = value - expected
    if smooth[ROWS] < START:
        smooth[SCALE] += (FROM_MEAN * abs(residual) - smooth[SCALE]) / (smooth[ROWS] + 1.0)
    else:
        scale = scale_of(smooth)
        z = min(abs(residual) / scale, BOUND)
        rho = BIWEIGHT * (1.0 - (1.0 - (z / BOUND) ** 2) ** 3)
        smooth[SCALE] = scale * np.sqrt(1.0 + SCALE_RATE * (rho - 1.0))
        residual = min(max(residual, -BOUND * scale), BOUND * scale)
    before = smooth[LEVEL]
    smooth[LEVEL] = before + smooth[TREND] + LEVEL_RATE * residual
    smooth[TREND] += TREND_RATE * (smooth[LEVEL] - before - smooth[TREND])
    smooth[SUM] += expected + residual - (smooth[LEVEL] if slot >= 0 else 0.0)
    smooth[PART] += 1.0
    smooth[ROWS] += 1.0


@bare
def close_slot(smooth: FloatArray, season: FloatArray, slot: int, known: bool) -> None:
    """A slot of the day has ended: the season follows the mean of its rows; on the first day it is that mean."""
    if smooth[PART] > 0.0:
        mean = smooth[SUM] / smooth[PART]
        if known and season[slot] == season[slot]:
            season[slot] += SEASON_RATE * (mean - season[slot])
        else:
            season[slot] = mean
    smooth[SUM] = smooth[PART] = 0.0


@bare
def begin_season(smooth: FloatArray, season: FloatArray) -> None:
    """The first day has ended: the mean of its slots is the level, what they differ from it the season."""
    total, found = 0.0, 0
    for slot in range(SLOTS):
        if season[slot] == season[slot]:
            total += season[slot]
            found += 1
    if found:
        smooth[LEVEL], smooth[TREND] = total / found, 0.0
        smooth[SUM] = smooth[PART] = 0.0                    # of the slot under way: values, not what they differ
        for slot in range(SLOTS):
            season[slot] -= smooth[LEVEL]


@bare
def turn(time: float, smooth: FloatArray, season: FloatArray, counts: CountArray) -> None:
    """Bring the clock to a time (ms): close the slot that it has left, and the first day."""
    slot = int(time // SLOT_MS)
    if counts[FIRST] == NO_TIME:
        counts[FIRST], counts[SLOT] = int(time), slot
    if slot != counts[SLOT]:
        for f in range(len(smooth)):
            close_slot(smooth[f], season[f], counts[SLOT] % SLOTS, counts[KNOWN] == 1)
        counts[SLOT] = slot
    if counts[KNOWN] == 0 and time - counts[FIRST] >= DAY_MS:
        for f in range(len(smooth)):
            begin_season(smooth[f], season[f])
        counts[KNOWN] = 1
    counts[NEWEST] = int(time)


@bare
def slot_at(time: float, counts: CountArray) -> int:
    """The slot of the day at a time (ms); -1 without a clock, or while no day is known."""
    return int(time // SLOT_MS) % SLOTS if time == time and counts[KNOWN] == 1 else -1


@bare
def run(rows: FloatArray, times: FloatArray, smooth: FloatArray, season: FloatArray, counts: CountArray, learning: bool,
        by_column: FloatArray, scores: FloatArray) -> None:
    """Score each row, then learn it if `learning`.

    rows (n, k); times (n,) ms, NaN: no clock. Fills by_column (n, k): residuals in scales, NaN where missing and
    before there were START rows, and scores (n,).
    """
    for i in range(len(rows)):
        time = max(times[i], float(counts[NEWEST])) if times[i] == times[i] else np.nan
        slot = slot_at(time, counts)
        for f in range(rows.shape[1]):
            value = rows[i, f]
            by_column[i, f] = np.nan
            if value == value and smooth[f, ROWS] >= START:
                by_column[i, f] = abs(value - forecast(smooth[f], season[f], slot)) / scale_of(smooth[f])
        scores[i] = score_of(by_column[i])
        if learning:
            if time == time:
                turn(time, smooth, season, counts)
            slot = slot_at(time, counts)
            for f in range(rows.shape[1]):
                if rows[i, f] == rows[i, f]:
                    teach(rows[i, f], smooth[f], season[f], slot)
