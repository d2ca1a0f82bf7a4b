"""Distances of sketches against the same of the values themselves, and what every distance must hold to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drift_world_sketch import sketch
from scipy import stats

from agents.drift import distance

Distance = Callable[[Any, Any], float]


def _ks(before: Any, after: Any) -> float:
    return distance.kolmogorov_smirnov(before, after).statistic


def bad(before: Any, after: Any) -> float:
    """Never nothing, and as large as the codes will have it."""
    return float(sum(code * count for code, count in [*before, *after]) % 7) + 0.5


DISTANCES: dict[str, Distance] = {"psi": distance.psi, "jensen_shannon": distance.jensen_shannon, "ks": _ks,
                                  "wasserstein": distance.wasserstein}


def drawn(seed: int, shift: float = 0.0, n: int = 4_000) -> Any:
    return np.random.default_rng(seed).normal(5 + shift, 2, n)


def none_to_itself(of: Distance) -> None:
    one = sketch(drawn(1))
    assert of(one, one) == pytest.approx(0.0, abs=1e-12)


def more_for_a_larger_shift(of: Distance) -> None:
    here = sketch(drawn(1))
    found = [of(here, sketch(drawn(2, shift))) for shift in (0.0, 0.5, 1.5, 4.0)]
    assert found == sorted(found) and found[-1] > 10 * found[0]


def order_and_cutting_do_not_matter(of: Distance) -> None:
    values, other = drawn(3), sketch(drawn(4, 1.0))
    parts = distance.merged(*(sketch(part) for part in np.array_split(np.random.default_rng(1).permutation(values), 9)))
    assert of(parts, other) == of(sketch(values), other)


def size_alone_is_no_distance(of: Distance) -> None:
    one = sketch(drawn(5))
    assert of(one, [(code, 3 * count) for code, count in one]) == pytest.approx(0.0, abs=1e-12)


CHECKS = [none_to_itself, more_for_a_larger_shift, order_and_cutting_do_not_matter, size_alone_is_no_distance]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_passes(name: str, check: Callable[[Distance], None]) -> None:
    check(DISTANCES[name])


@pytest.mark.parametrize("check", [check for check in CHECKS if check is not order_and_cutting_do_not_matter],
                         ids=lambda check: check.__name__)
def test_a_bad_distance_is_refused_by(check: Callable[[Distance], None]) -> None:
    with pytest.raises(AssertionError):
        check(bad)


@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0, -7.0])
def test_they_say_of_sketches_what_scipy_says_of_values(shift: float) -> None:
    a, b = drawn(6), drawn(7, shift, 1_500)
    ks = stats.ks_2samp(a, b)
    ours = distance.kolmogorov_smirnov(sketch(a), sketch(b))
    assert ours.statistic == pytest.approx(ks.statistic, abs=0.015)
    assert (ours.p_value < 1e-6) == (ks.pvalue < 1e-6)
    assert distance.wasserstein(sketch(a), sketch(b)) == pytest.approx(stats.wasserstein_distance(a, b), abs=0.06)


def test_the_stability_index_of_a_case_done_by_hand() -> None:
    """Ten equal bins before; after, one of them has given half of its values to another."""
    before = [(40_000 + 10 * i, 100) for i in range(10)]
    after = [(code, {0: 50, 9: 150}.get(i, 100)) for i, (code, _) in enumerate(before)]
    assert distance.psi(before, after) == pytest.approx(-0.05 * np.log(0.5) + 0.05 * np.log(1.5))


def test_classes_are_compared_as_scipy_does_and_rare_ones_together() -> None:
    before, after = {"a": 400, "b": 300, "c": 300}, {"a": 130, "b": 100, "c": 70}
    ours = distance.chi_squared(before, after)
    theirs = stats.chi2_contingency([[400, 300, 300], [130, 100, 70]], correction=False)
    assert ours.statistic == pytest.approx(theirs.statistic) and ours.p_value == pytest.approx(theirs.pvalue)
    assert distance.chi_squared({"a": 1_000}, {"a": 990, "odd": 1}).p_value > 0.2
    assert distance.chi_squared({"a": 1_000}, {"a": 900, "new": 100}).p_value < 1e-9
    assert distance.chi_squared({"a": 10}, {"a": 30}) == (0.0, 1.0)


def test_a_coarse_sketch_is_bounded_and_keeps_its_count_and_its_shape() -> None:
    values = np.random.default_rng(8).lognormal(3, 2, 20_000)
    fine = sketch(values)
    for most in (1, 8, 32, 64):
        kept = distance.coarse(fine, most)
        assert len(kept) <= most and sum(count for _, count in kept) == 20_000
    assert distance.kolmogorov_smirnov(fine, distance.coarse(fine, 32)).statistic < 0.05


def test_an_empty_sketch_has_no_distance() -> None:
    with pytest.raises(ValueError, match="empty"):
        distance.psi([], [(1, 1)])
