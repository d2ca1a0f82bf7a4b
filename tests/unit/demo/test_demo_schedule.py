"""When incidents come: warm-up, calm, one at a time per model, the same for the same seed."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.demo.schedule import (
    CALM_MS,
    FIRST_MS,
    KINDS,
    LAST_START_MS,
    LONGEST_MS,
    SHORTEST_MS,
    WARM_EVENTS,
    WARM_MS,
    Slot,
    Target,
    plan,
    spacing_ms,
)

TARGETS = [Target(environment, f"m{i}", rate, ("model",)) for i in range(7)
           for environment, rate in (("prod", 10.0), ("staging", 3.0))]


@given(seed=st.integers(0, 10_000), minutes=st.integers(1, 300))
def test_incidents_leave_room_for_warming_up_calm_and_being_seen(seed: int, minutes: int) -> None:
    length = minutes * 60_000
    slots = list(plan(TARGETS, seed, length))
    for slot in slots:
        assert slot.start_ms >= WARM_MS and slot.target.events_per_s * slot.start_ms / 1000 >= WARM_EVENTS
        assert slot.start_ms <= length - LAST_START_MS and slot.end_ms <= length
        assert min(SHORTEST_MS, LAST_START_MS) <= slot.end_ms - slot.start_ms <= LONGEST_MS
        assert slot.start_ms % 1000 == slot.end_ms % 1000 == 0
    for model in {slot.target.model for slot in slots}:
        mine = [slot for slot in slots if slot.target.model == model]
        assert all(after.start_ms - before.end_ms >= CALM_MS for before, after in pairwise(mine))


def test_the_first_incident_is_an_error_burst_at_fifty_seconds() -> None:
    first = next(plan(TARGETS, 42, None))
    assert (first.kind, first.start_ms) == ("error_burst", FIRST_MS)


def test_a_quiet_fleet_is_first_disturbed_when_it_has_shown_four_hundred_events() -> None:
    slow = [Target("prod", "m", 2.0, ("model",))]
    assert next(plan(slow, 42, None)).start_ms == 200_000


def test_ten_minutes_hold_every_kind_twice() -> None:
    kinds = [slot.kind for slot in plan(TARGETS, 42, 600_000)]
    assert all(kinds.count(kind) >= 2 for kind in KINDS)


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    def some(seed: int) -> list[Slot]:
        return list(islice(plan(TARGETS, seed, None), 50))

    assert some(1) == some(1)
    assert some(1) != some(2)


@pytest.mark.parametrize(("length_ms", "spacing"), [
    (600_000, 30_000), (60_000, 30_000), (1_200_000, 60_000), (86_400_000, 120_000), (None, 60_000)])
def test_incidents_come_further_apart_in_longer_runs(length_ms: int | None, spacing: int) -> None:
    assert spacing_ms(length_ms) == spacing


def test_a_run_that_is_too_short_has_no_incident() -> None:
    assert list(plan(TARGETS, 42, 100_000)) == []
