import gc
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
from aggregation_support import BASE, OPTIONS, TOPIC, World, batch, event, spans

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from schemas.windows import window_id
from streams.windows.record import read_window, write_window
from streams.settings import Settings
from streams.state.keyed import KeyedStates
from streams.windows.panes import PaneKey
from reference.windows import as_objects


def test_a_window_closes_when_the_watermark_reaches_its_end() -> None:
    world = World()
    assert spans(world.run(event(100), event(999), event(1_999)).windows) == []
    assert spans(world.run(event(2_000)).windows) == [(1, 0, 2, 0)]
    assert spans(world.run(event(11_000)).windows) == [(1, 1, 1, 0), (1, 2, 1, 0), (10, 0, 4, 0)]


def test_a_window_says_whose_it_is_and_when_it_closed() -> None:
    world = World()
    world.run(event(0, component="ranker", latency_ms=2.0, confidence=0.5, prediction=7.0, error="boom",
                    features={"x": 1.5, "colour": "red", "flag": True, "gone": None}, metrics={"tokens": 3.0}))
    (found,) = world.run(event(4_000)).windows
    assert (found.environment, found.model, found.version, found.component) == ("prod", "m", "1", "ranker")
    assert found.window_id == window_id("prod", "m", "1", "ranker", 1_000, BASE, 0)
    assert (found.start_ms, found.size_ms, found.partition, found.count, found.errors) == (BASE, 1_000, 0, 1, 1)
    assert found.closed_ms == BASE + 3_000
    assert {name: (s.count, s.missing, s.sum) for name, s in found.fields.items()} == {
        "latency_ms": (1, 0, 2.0), "confidence": (1, 0, 0.5), "prediction": (1, 0, 7.0), "feature.x": (1, 0, 1.5),
        "feature.colour=red": (1, 0, 1.0), "feature.flag": (1, 0, 1.0), "feature.gone": (0, 1, 0.0),
        "metric.tokens": (1, 0, 3.0)}
    assert read_window(write_window(found)) == found


def test_windows_that_close_together_come_in_time_order_whatever_their_series() -> None:
    world = World()
    found = world.run(event(9_000, "a"), event(1_000, "b"), event(9_500, "b"), event(30_000, "c")).windows
    assert [(window.model, (window.start_ms - BASE) // 1_000, window.size_ms // 1_000) for window in found] == [
        ("b", 1, 1), ("a", 9, 1), ("b", 9, 1), ("a", 0, 10), ("b", 0, 10)]


def test_a_window_is_published_once_a_batch_however_many_events_amend_it() -> None:
    world = World()
    world.run(event(500), event(61_000))
    found = world.run(event(30_000), event(500), event(40_000), event(45_000), event(30_001), event(62_000)).windows
    assert len({window.window_id for window in found}) == len(found)
    assert (60, 0, 5, 1) in spans(found)


def test_events_that_come_within_the_grace_amend_their_window_and_its_parents() -> None:
    world = World()
    world.run(event(500), event(61_000))
    assert spans(world.run(event(40_000), event(40_001)).windows) == []
    assert spans(world.run(event(62_000)).windows) == [
        (60, 0, 3, 1), (1, 40, 2, 0), (10, 40, 2, 0)], "a new pane in a closed minute closes a second later"
    assert spans(world.run(event(40_002)).windows) == [(1, 40, 3, 1), (10, 40, 3, 1), (60, 0, 4, 2)]


def test_a_producer_that_lags_behind_the_others_has_whole_windows() -> None:
    events = [found for at in range(0, 20_000, 250) for found in (event(at, "swift"), event(at - 5_000, "slow"))]
    for size in (1, 7, len(events)):
        world, windows = World(), []
        for at in range(0, len(events), size):
            windows += world.run(*events[at:at + size]).windows
        slow = [window for window in windows if window.model == "slow" and window.size_ms == 1_000]
        assert {window.count for window in slow} == {4}
        assert [window.revision for window in slow] == [0] * len(slow)
        assert [window.start_ms for window in slow] == sorted(window.start_ms for window in slow)
        assert len(slow) > 10


def test_events_after_the_grace_are_counted_and_handed_back() -> None:
    world = World()
    found = world.run(event(500), event(32_000), event(600), event(31_999), event(700))
    assert found.too_late.tolist() == [2, 4]
    assert world.run(event(800), event(32_100)).too_late.tolist() == [0]
    assert world.states.entry("").state.too_late == 3


def test_an_event_within_the_grace_is_taken_even_if_a_later_one_of_its_batch_ends_the_grace() -> None:
    world = World()
    found = world.run(event(500), event(31_900), event(600), event(200_000))
    assert found.too_late.tolist() == []
    assert [span for span in spans(found.windows) if span[:2] == (1, 0)] == [(1, 0, 1, 0), (1, 0, 2, 1)]


def test_what_a_window_says_when_it_closes_does_not_hang_on_the_batch() -> None:
    events = [event(500), event(1_500), event(2_600), event(700), event(15_000), event(800), event(2_700), event(900)]
    whole, single = World(), World()
    together = whole.run(*events).windows
    apart = [window for one in events for window in single.run(one).windows]
    firsts = [{window.window_id: window for window in reversed(found)} for found in (together, apart)]
    assert {key: window.count for key, window in firsts[0].items()} == {
        key: window.count for key, window in firsts[1].items()}
    assert spans(together)[:2] == [(1, 0, 1, 0), (1, 0, 2, 1)]


def test_the_idle_clock_closes_what_is_over_and_later_events_amend_it() -> None:
    world = World()
    world.run(event(5_100), now_ms=70_000)
    assert world.engine.idle(world.states, 71_900) == [], "not idle for long enough"
    assert spans(world.engine.idle(world.states, 72_000)) == [(1, 5, 1, 0)], "5.1 s + 2 s - 1 s is past 6 s"
    assert spans(world.engine.idle(world.states, 76_000)) == [(10, 0, 1, 0)]
    again = world.run(event(5_200), event(5_050), now_ms=77_000)
    assert again.too_late.tolist() == []
    assert spans(again.windows) == [(1, 5, 3, 1), (10, 0, 3, 1)]
    assert world.engine.idle(world.states, 78_000) == []
    (minute,) = world.engine.idle(world.states, 77_000 + 60_000)
    assert spans([minute]) == [(60, 0, 3, 0)]
    assert minute.closed_ms == BASE + 5_200 + 60_000 - 1_000


def test_the_idle_clock_waits_while_records_wait_but_not_for_ever() -> None:
    world = World()
    world.run(event(5_100), now_ms=70_000)
    assert world.engine.idle(world.states, 72_000, behind=True) == []
    assert world.engine.idle(world.states, 99_900, behind=True) == []
    assert spans(world.engine.idle(world.states, 100_000, behind=True)) == [(1, 5, 1, 0), (10, 0, 1, 0)]


def test_the_idle_clock_never_makes_an_event_too_late() -> None:
    world = World()
    world.run(event(5_100), now_ms=1)
    assert len(world.engine.idle(world.states, 10**9)) == 3
    late = world.run(event(5_050), event(1_000))
    assert late.too_late.tolist() == []
    assert spans(late.windows) == [(1, 5, 2, 1), (10, 0, 3, 1), (60, 0, 3, 1)]


def test_a_restored_partition_waits_for_the_idle_time_before_its_clock_moves() -> None:
    world = World()
    world.run(event(5_100), now_ms=70_000)
    again = world.restarted()
    assert again.engine.idle(again.states, 500_000) == []
    assert spans(again.engine.idle(again.states, 502_000)) == [(1, 5, 1, 0)]


def test_an_idle_partition_without_events_has_nothing_to_close() -> None:
    world = World()
    assert world.engine.idle(world.states, 1) == []
    assert world.engine.idle(world.states, 10**9) == []


def test_an_array_of_events_in_one_record_counts_each() -> None:
    world = World()
    assert spans(world.run([event(100), event(200), event(900, "other")], event(3_000)).windows) == [
        (1, 0, 2, 0), (1, 0, 1, 0)]


def test_a_batch_that_was_taken_in_before_changes_nothing() -> None:
    world = World()
    found = batch([event(100), event(200)])
    world.engine.run(found, world.states, TOPIC)
    assert world.engine.run(found, world.states, TOPIC).windows == []
    later = batch([event(5_000)], offset=2)
    assert spans(world.engine.run(later, world.states, TOPIC).windows) == [(1, 0, 2, 0)]


def test_a_batch_of_rejected_records_changes_nothing() -> None:
    world = World()
    found = batch(["not an event"])
    assert len(found) == 0
    assert world.engine.run(found, world.states, TOPIC).windows == []
    assert not world.states.dirty


def test_events_without_any_field_are_counted() -> None:
    world = World()
    (found,) = world.run(event(1), event(2), event(5_000)).windows
    assert (found.count, found.fields) == (2, {})


def test_a_pane_is_kept_until_its_parent_can_change_no_more() -> None:
    world = World()
    world.run(event(500), event(69_999))
    assert spans(world.run(event(40_000)).windows) == []

    def kept(second: int) -> list[int]:
        world.run(event(second * 1_000))
        keys = map(PaneKey.parse, world.states.keys())
        return sorted(key.size_ms // 1_000 for key in keys if key.start_ms + key.size_ms <= BASE + 60_000)

    assert kept(80) == [1, 10, 10, 60], "watermark 79 s: what began at 0 s was summed up in its 10 s long ago"
    assert kept(81) == [1, 10, 10, 60]
    assert kept(82) == [10, 10, 60], "40 s to 50 s, the grace of 30 s and what comes last in it are over"
    assert kept(91) == [10, 10, 60]
    assert kept(92) == [], "the minute and its grace are over"


def test_panes_that_only_late_events_may_want_leave_memory() -> None:
    world = World()
    world.run(*(event(at) for at in range(0, 25_000, 250)))
    for again in (world, world.restarted()):
        again.engine.amend(again.states)
        again.states.written(again.states.freeze(1))
        live = {PaneKey.parse(key)[1:] for key in again.states.live if key}
        assert {(size, (start - BASE) // 1_000) for size, start in live} == {
            (10_000, 0), (10_000, 10), *((1_000, second) for second in range(20, 25))}, "their parents are open"
    assert spans(world.run(event(3_100)).windows) == [(1, 3, 5, 1), (10, 0, 41, 1)]
    world.states.written(world.states.freeze(1))
    assert len(world.states.live) == 8, "they are gone again"


def test_categories_beyond_the_bound_are_counted_as_other() -> None:
    world = World(AggregationOptions((1_000,), max_categories=2))
    world.run(*[event(at, prediction=f"c{at % 5}") for at in range(10)])
    world.run(event(500, prediction="c4"), event(501, prediction="c0"))
    (found,) = world.run(event(5_000)).windows
    assert {name: s.count for name, s in found.fields.items()} == {
        "prediction=c0": 3, "prediction=c1": 2, "prediction=<other>": 7}
    assert world.engine.intake.folded_values == 7


def test_fields_beyond_the_bound_are_left_out_and_counted() -> None:
    world = World(AggregationOptions((1_000,), max_fields=3))
    world.run(event(0, features={f"f{at}": 1.0 for at in range(5)}), event(1, features={"f4": 1.0, "f1": 2.0}))
    (found,) = world.run(event(5_000)).windows
    assert {name: s.sum for name, s in found.fields.items()} == {"feature.f0": 1.0, "feature.f1": 3.0,
                                                                 "feature.f2": 1.0}
    assert world.engine.intake.ignored_values == 3


def test_changed_granularities_lose_nothing_that_was_under_way() -> None:
    world = World()
    assert spans(world.run(event(100), event(1_500), event(2_100)).windows) == [(1, 0, 1, 0)]
    coarser = world.restarted(AggregationOptions((5_000, 60_000)))
    found = coarser.run(event(3_000))
    assert sorted(spans(found.windows)) == [(1, 1, 1, 0), (1, 2, 1, 0)]
    assert coarser.engine.foreign_panes == 3
    assert spans(coarser.run(event(70_000)).windows) == [(5, 0, 1, 0), (60, 0, 1, 0)]
    again = coarser.restarted()
    assert again.engine.idle(again.states, 1) == []
    assert again.engine.foreign_panes == 0, "they were let go for good"


def test_a_finest_pane_that_becomes_a_coarser_one_is_emitted_as_it_is() -> None:
    world = World(AggregationOptions((10_000, 60_000)))
    world.run(event(100), event(9_000))
    finer = world.restarted(AggregationOptions((1_000, 10_000, 60_000)))
    assert (10, 0, 2, 0) in spans(finer.run(event(9_500)).windows)


def test_partitions_that_went_away_leave_nothing_behind() -> None:
    engine = AggregationEngine(OPTIONS, as_objects)
    states = KeyedStates("aggregation", 3, engine.codec, {})
    engine.run(batch([event(1)], partition=3), states, TOPIC)
    gone = weakref.ref(states)
    del states
    gc.collect()
    assert gone() is None
    assert len(engine._calendars) == 0


def test_models_with_fields_of_their_own_cost_what_they_have() -> None:
    models = 400
    events = [event(0, f"m{at}", features={f"m{at}.f{number}": 1.0 for number in range(8)}) for at in range(models)]
    world, found = World(), batch(events)
    world.engine.warm()
    tracemalloc.start()
    world.engine.run(found, world.states, TOPIC)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < models * 50_000, "a grid of panes × fields would take 56 bytes × 400 × 3,200"


def test_settings_reach_the_engine() -> None:
    found = AggregationOptions.from_settings(Settings(granularities_ms=(500, 1_000), watermark_delay_ms=7, grace_ms=8,
                                                      idle_ms=900, amend_ms=300))
    assert (found.granularities_ms, found.delay_ms, found.grace_ms, found.idle_ms, found.amend_ms) == (
        (500, 1_000), 7, 8, 900, 300)


def test_an_open_pane_that_was_restored_takes_in_more_events() -> None:
    world = World()
    world.run(event(100), event(1_200), event(200, "n"))
    world = world.restarted()
    world.run(event(300), event(1_400), event(400, "n"))
    windows = world.run(event(200_000)).windows
    assert spans([w for w in windows if w.model == "m"])[:2] == [(1, 0, 2, 0), (1, 1, 2, 0)]
    assert [w.count for w in windows if w.model == "m" and w.size_ms == 60_000] == [4]


WARM = """
import sys
sys.path[:0] = {path!r}
from aggregation_support import World, event
from streams.windows import grouping, sketch, sketches, summary, weaving
rooms = [vars(room) for room in (grouping, sketch, sketches, summary, weaving)]
kernels = [found for room in rooms for found in room.values() if hasattr(found, "signatures")]
world = World()
world.engine.warm()
before = [len(kernel.signatures) for kernel in kernels]
assert len(kernels) > 5 and sum(before) > 3, before
world.run(event(1, latency_ms=1.0, features={{"x": 1.0, "c": "red"}}), event(2, features={{"y": 1.0}}), event(30_000))
world = world.restarted()
world.run(event(1_000, latency_ms=1.0, features={{"z": 1.0}}), event(95_000), event(300_000))
assert [len(kernel.signatures) for kernel in kernels] == before, "compiled while events waited"
"""


def test_nothing_is_compiled_after_the_warm_up() -> None:
    done = subprocess.run([sys.executable, "-c", WARM.format(path=sys.path)], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_two_runs_of_one_log_give_the_same_bytes_of_state() -> None:
    rng = np.random.default_rng(5)
    events = [event(int(at), f"m{at % 3}", latency_ms=float(rng.lognormal()), features={"x": float(rng.normal())})
              for at in rng.integers(0, 20_000, 300)]
    one, other = World(), World()
    one.run(*events)
    for at in range(0, 300, 13):
        other.run(*events[at:at + 13])
    rows = []
    for world in (one, other):
        keys = [key for key in world.states.keys() if PaneKey.parse(key).size_ms == 1_000]  # noqa: SIM118
        panes = [world.states.entry(key).state for key in keys]
        rows.append({key: (pane.count, pane.errors, pane.table.tobytes(), *map(bytes, pane.sketches.arrays()))
                     for key, pane in zip(keys, panes, strict=True)})
    assert rows[0] == rows[1]
    assert len(rows[0]) > 10
