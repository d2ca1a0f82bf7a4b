r"""A budget of false alarms, spent evenly: over the series of a component, and over time.

A CUSUM of independent normal points with allowance k raises a false alarm once in about exp(2 k h) / (2 k^2) points
(Siegmund, Sequential Analysis, 1985). So a series that gets p points a day and may give b false alarms in it needs

    h = (log(p / b) + SAFETY) / 2                 for k = 1, and less for a larger k, which is not made use of

b is the budget of the component divided by its series: what the union bound allows, whatever they have in common.
`SAFETY` is for what is not as in the book: a reference learnt from 20 points, skewed values, points that are alike. Its
size was found by simulation (`python -m tests.bench budget`).
"""

from __future__ import annotations

import math

DAY_MS = 86_400_000
SAFETY = 8.0
LOWEST, HIGHEST = 8.0, 20.0


def height(points_per_day: float, allowed_per_day: float) -> float:
    """The evidence from which on a series' CUSUM alarms."""
    return min(HIGHEST, max(LOWEST, (math.log(max(1.0, points_per_day / allowed_per_day)) + SAFETY) / 2))
