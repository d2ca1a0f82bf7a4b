"""When what goes wrong: a seeded list of incidents, one at a time per model, with calm before and after.

Times are event milliseconds since the run's start, whole seconds. A deployment (one model in one environment) is
disturbed only after it has had time to show what normal is: 40 s and 400 events of its main version's component.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["error_burst", "unit_change", "null_column", "covariate_shift", "concept_shift", "latency_regression",
               "broken_version"]
KINDS: tuple[Kind, ...] = ("error_burst", "unit_change", "null_column", "covariate_shift", "concept_shift",
                           "latency_regression", "broken_version")
FIRST_MS = 50_000
WARM_MS = 40_000
WARM_EVENTS = 400
#: Between two incidents of one model. Longer than the default cooldown of alerts plus their tolerance in scoring.
CALM_MS = 130_000
#: Between two starts anywhere in the fleet.
LEAST_SPACING_MS, MOST_SPACING_MS, ENDLESS_SPACING_MS = 30_000, 120_000, 60_000
SHORTEST_MS, LONGEST_MS = 45_000, 240_000
#: An incident that starts later than this before the end could not show itself.
LAST_START_MS = 60_000


@dataclass(frozen=True, slots=True)
class Target:
    """A deployment as the schedule sees it. `events_per_s` is the rate of one component of its main version."""

    environment: str
    model: str
    events_per_s: float
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """An incident to be: what, where, from when to when. `number` counts from 0; `draw` in [0, 1) picks details."""

    number: int
    kind: Kind
    target: Target
    start_ms: int
    end_ms: int
    draw: float


def spacing_ms(length_ms: int | None) -> int:
    """Between two starts: about twenty incidents a run, never closer than 30 s nor wider than 2 min."""
    if length_ms is None:
        return ENDLESS_SPACING_MS
    return int(np.clip(length_ms // 20, LEAST_SPACING_MS, MOST_SPACING_MS)) // 1000 * 1000


def plan(targets: Sequence[Target], seed: int, length_ms: int | None) -> Iterator[Slot]:
    """Incidents in order of their start; endless if `length_ms` is None."""
    rng = np.random.default_rng([seed, 7])
    spacing = spacing_ms(length_ms)
    free_ms = {target.model: 0 for target in targets}
    kinds: list[Kind] = list(KINDS)
    number, now = 0, FIRST_MS
    while length_ms is None or now <= length_ms - LAST_START_MS:
        target = _choose(targets, free_ms, now, rng)
        if target is None:
            now += 5_000
            continue
        if not kinds:
            kinds = [KINDS[i] for i in rng.permutation(len(KINDS))]
        lasts = int(np.clip(spacing * rng.uniform(1.6, 2.4), SHORTEST_MS, LONGEST_MS)) // 1000 * 1000
        end = now + lasts if length_ms is None else min(now + lasts, length_ms)
        yield Slot(number, kinds.pop(0), target, now, end, float(rng.random()))
        free_ms[target.model] = end + CALM_MS
        number, now = number + 1, now + spacing


def _choose(targets: Sequence[Target], free_ms: dict[str, int], now_ms: int, rng: np.random.Generator) -> Target | None:
    """A warm target of the model that has been calm longest; prod three times out of four."""
    warm = [t for t in targets if free_ms[t.model] <= now_ms and t.events_per_s * now_ms >= WARM_EVENTS * 1000]
    if not warm or now_ms < WARM_MS:
        return None
    model = min(warm, key=lambda t: free_ms[t.model]).model
    mine = [t for t in warm if t.model == model]
    odds = np.array([3.0 if t.environment == "prod" else 1.0 for t in mine])
    return mine[int(rng.choice(len(mine), p=odds / odds.sum()))]
