"""Late events of closed windows: gathered for a while, and never behind what a checkpoint or a coarser window says."""

from dataclasses import replace

import pytest
from aggregation_support import OPTIONS, World, event, spans

from agents.aggregation import calendar

GATHERED = replace(OPTIONS, amend_ms=1_000)


def closed_late() -> World:
    """Windows of seconds 50 and 51, of 10 s and a minute have closed; the clock is at 4,600 ms."""
    world = World(GATHERED)
    world.run(event(500), event(70_000), now_ms=4_500)
    world.run(event(50_600), event(51_600), now_ms=4_500)
    assert spans(world.run(event(72_000), now_ms=4_600).windows) == [
        (60, 0, 3, 1), (1, 50, 1, 0), (1, 51, 1, 0), (10, 50, 2, 0), (1, 70, 1, 0)]
    return world


def test_amendments_are_gathered_for_a_while() -> None:
    world = closed_late()
    assert world.run(event(50_700), now_ms=5_000).windows == []
    assert world.run(event(50_800), event(50_900), now_ms=5_999).windows == []
    assert world.engine.idle(world.states, 5_999) == []
    assert spans(world.engine.idle(world.states, 6_000)) == [(1, 50, 4, 1), (10, 50, 5, 1), (60, 0, 6, 2)]
    assert world.engine.idle(world.states, 7_000) == [], "once"


def test_a_batch_amends_what_has_waited_as_the_clock_does() -> None:
    world = closed_late()
    world.run(event(50_700), now_ms=5_000)
    assert spans(world.run(event(51_800), now_ms=6_000).windows) == [
        (1, 50, 2, 1), (1, 51, 2, 1), (10, 50, 4, 1), (60, 0, 5, 2)]


def test_what_waits_goes_out_before_a_checkpoint() -> None:
    world = closed_late()
    assert world.run(event(50_700), now_ms=5_000).windows == []
    assert spans(world.engine.amend(world.states)) == [(1, 50, 2, 1), (10, 50, 3, 1), (60, 0, 4, 2)]
    assert world.engine.amend(world.states) == world.engine.idle(world.states, 6_999) == [], "once"
    world = world.restarted()
    assert world.engine.amend(world.states) == world.engine.idle(world.states, 1_999) == []


def test_a_window_that_closes_has_what_waits_in_its_panes() -> None:
    for now_ms in (1, 900):
        world, windows = World(GATHERED), []
        for ts in (45_100, 52_000, 60_500, 45_200, 61_500):
            windows += world.run(event(ts), now_ms=1 if ts == 45_100 else now_ms).windows
        assert [span for span in spans(windows) if span[0] == 60] == [(60, 0, 3, 0)]


def test_a_window_that_closes_has_its_late_panes_too() -> None:
    events = [event(52_000), event(60_500), event(45_200), event(61_200, "n"), event(70_000)]
    for size in (1, len(events)):
        world, windows = World(), []
        for at in range(0, len(events), size):
            windows += world.run(*events[at:at + size]).windows
        assert next(span for span in spans(windows) if span[0] == 60) == (60, 0, 2, 0)


def test_amendments_go_out_before_their_panes_are_dropped() -> None:
    world = closed_late()
    world.run(event(50_700), now_ms=5_000)
    gone = spans(world.run(event(150_000), now_ms=5_001).windows)
    assert {(1, 50, 2, 1), (10, 50, 3, 1), (60, 0, 4, 2)} <= set(gone)


def test_very_many_amendments_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "MOST_AMENDED", 2)
    world = closed_late()
    assert world.run(event(50_700), now_ms=5_000).windows == []
    assert spans(world.run(event(51_800), now_ms=5_001).windows) == [
        (1, 50, 2, 1), (1, 51, 2, 1), (10, 50, 4, 1), (60, 0, 5, 2)]
