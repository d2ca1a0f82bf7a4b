"""The idle clock of a worker that stands still for a while."""

from aggregation_support import World, event, spans

from agents.aggregation.idling import IdleClock


def looks(world: World, clock: IdleClock, first_ms: int, last_ms: int) -> list[tuple[int, int, int, int]]:
    """What the clock closes in looks every 500 ms."""
    return [span for at in range(first_ms, last_ms, 500)
            for span in spans(world.engine.idle(world.states, clock.looked(at)))]


def test_a_worker_that_stood_still_closes_nothing_before_it_has_fetched_what_came_meanwhile() -> None:
    world, clock = World(), IdleClock(500)
    assert looks(world, clock, 0, 2_000) == []
    world.run(event(5_100), now_ms=clock.now_ms)
    assert looks(world, clock, 2_000, 3_000) == []
    assert looks(world, clock, 33_000, 33_500) == [], "halted for half a minute"
    closed = world.run(event(5_900), event(6_100), event(7_100), now_ms=clock.now_ms).windows
    assert spans(closed) == [(1, 5, 2, 0)], "whole when it closed"


def test_it_goes_on_from_there_when_nothing_comes() -> None:
    world, clock = World(), IdleClock(500)
    clock.looked(0)
    world.run(event(5_100), now_ms=clock.now_ms)
    assert looks(world, clock, 60_000, 61_000) == []
    assert looks(world, clock, 61_000, 63_000) == [(1, 5, 1, 0)]


def test_looks_that_are_a_little_late_lose_no_time() -> None:
    clock = IdleClock(500)
    began = clock.looked(0)
    assert [clock.looked(at) - began for at in (700, 1_700, 2_200)] == [700, 1_700, 2_200]
