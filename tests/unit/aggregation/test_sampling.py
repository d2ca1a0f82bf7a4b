"""Sketches of hot features are samples: what is taken, what it tells, what it costs to say so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from aggregation_support import World, event
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from agents.aggregation.options import AggregationOptions
from reference.windows import sample_weight
from streams.windows.record import SummaryRecord
from streams.windows.sampling import NEVER, weight
from streams.windows.sketch import quantile


@given(st.integers(0, 10**9), st.sampled_from([1, 2, 3, 64, 4_096, NEVER]))
@settings(deadline=None, max_examples=500)
def test_the_compiled_rule_is_the_plain_one(place: int, most: int) -> None:
    assert weight(place, most) == sample_weight(place, most)


@pytest.mark.parametrize("most", [2, 64, 4_096])
def test_weights_add_up_to_the_values_and_half_as_many_are_taken_of_each_doubling(most: int) -> None:
    many = most << 5
    weights = np.array([weight(place, most) for place in range(many)])
    assert weights.sum() == many
    for bits in range(1, 6):
        part = weights[most << bits - 1:most << bits]
        assert set(part.tolist()) == {0, 1 << bits}
        assert np.count_nonzero(part) == most // 2
    reached = np.cumsum(weights)
    assert np.abs(reached - np.arange(1, many + 1)).max() < 2 * many / most


def test_what_is_periodic_in_the_traffic_is_not_taken_for_all_of_it() -> None:
    places = np.flatnonzero([weight(place, 256) for place in range(256 << 6)])[256:]
    for period in (2, 4, 8, 16, 64):
        share = np.bincount(places % period, minlength=period) / len(places)
        assert share.max() < 1 / period + 4 * math.sqrt(1 / period / len(places))


def hot(values: np.ndarray, most: int) -> tuple[SummaryRecord, SummaryRecord, World]:
    """The summaries of a feature with these values (NaN: null) and of a latency, of one window."""
    world = World(AggregationOptions((1_000, 10_000), sketch_values=most))
    events = [event(at * 1_000 // len(values), latency_ms=1.0 + at,
                    features={"x": None if math.isnan(value) else value})
              for at, value in enumerate(values.tolist())]
    for first in range(0, len(events), 1_777):
        world.run(*events[first:first + 1_777])
    window = world.run(event(5_000)).windows[0]
    return window.fields["feature.x"], window.fields["latency_ms"], world


@pytest.mark.parametrize("seed", range(3))
def test_counts_sums_and_missing_stay_exact_and_quantiles_keep_to_their_bound(seed: int) -> None:
    rng, most = np.random.default_rng(seed), 512
    values = rng.lognormal(1.0, 1.0, 40_000)
    values[rng.random(len(values)) < 0.1] = math.nan
    present = np.sort(values[~np.isnan(values)])
    found, latency, world = hot(values, most)
    assert (found.count, found.missing) == (len(present), 40_000 - len(present))
    assert (found.min, found.max) == (present[0], present[-1])
    assert found.sum == pytest.approx(present.sum())
    assert found.mean == pytest.approx(present.mean())
    assert found.m2 == pytest.approx(present.var() * len(present))
    assert latency.sketched is UNSET
    assert sum(count for _, count in latency.sketch) == 40_000
    taken = sum(weight(place, most) > 0 for place in range(found.count))
    assert found.sketched == taken < most * (1 + math.log2(found.count / most) / 2) + 1
    assert world.engine.intake.unsketched_values == found.count - taken
    assert sum(count for _, count in found.sketch) == pytest.approx(found.count, rel=2 / most)
    for q in (0.05, 0.5, 0.95):
        said = quantile(found.sketch, q)
        assert said is not None
        low, high = np.searchsorted(present, [said / 1.011, said * 1.011]) / len(present)
        off = 4 * math.sqrt(q * (1 - q) / most)
        assert low - off <= q <= high + off


def test_a_window_says_what_its_parts_left_out_and_nothing_where_all_is_in() -> None:
    world, windows = World(AggregationOptions((1_000, 10_000), sketch_values=8)), []
    seconds = {0: 5, 1: 40, 2: 10, 3: 100}
    for second, many in seconds.items():
        windows += world.run(*[event(second * 1_000 + at, features={"x": float(at)}) for at in range(many)]).windows
        world = world.restarted()
    windows += world.run(event(60_000)).windows
    *parts, whole = [window.fields["feature.x"] for window in windows]
    taken = [sum(weight(place, 8) > 0 for place in range(many)) for many in seconds.values()]
    assert [part.sketched for part in parts] == [UNSET, *taken[1:]]
    assert (whole.count, whole.sketched) == (sum(seconds.values()), sum(taken))
    assert sum(count for _, count in whole.sketch) == sum(
        weight(place, 8) for many in seconds.values() for place in range(many))
