"""The budget of false alarms: how it is spent, and that it is kept (`python -m tests.bench budget` for the whole)."""

from __future__ import annotations

import numpy as np
import pytest

from agents.drift import budget
from tests.bench.budget import KINDS, alarms, upper_bound


def test_more_series_more_points_and_a_smaller_budget_ask_for_more_evidence() -> None:
    usual = budget.height(43_200, 0.01 / 15)
    assert usual == pytest.approx(13, abs=0.1)
    assert budget.height(43_200, 0.01 / 500) > usual > budget.height(2_880, 0.01 / 15)
    assert budget.height(43_200, 1.0) < usual


def test_it_stays_within_bounds() -> None:
    assert budget.height(1, 1e9) == budget.LOWEST and budget.height(1e12, 1e-12) == budget.HIGHEST


@pytest.mark.parametrize("name", KINDS)
def test_a_day_in_which_nothing_happens_is_calm(name: str) -> None:
    assert alarms(KINDS[name], np.random.default_rng(11), 1) == 0


def test_the_simulation_would_see_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly any evidence asked for, and least effects of next to nothing, a wandering level alarms."""
    monkeypatch.setattr("tests.bench.budget.height", lambda points, allowed: 1.0)
    kind = KINDS["a level that wanders"]
    small = kind._replace(effect=kind.effect._replace(least=0.02))
    assert alarms(small, np.random.default_rng(12), 1) > 0


def test_the_bound_is_the_exact_one() -> None:
    assert upper_bound(0) == pytest.approx(2.9957, abs=1e-3)
    assert upper_bound(4) == pytest.approx(9.1535, abs=1e-3)
