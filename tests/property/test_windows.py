"""Windows against a slow, obvious reference: any disorder, any cutting into batches, any crash."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from reference.windows import as_objects, windows_of
from streams.windows.record import read_window, WindowRecord, write_window
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.state.keyed import META, Frozen, KeyedStates

SIZES = (1_000, 5_000, 20_000)
BASE = 1_700_000_000_000
TOPIC = "telemetry"
DECODE = Decoder(Limits())


def options(delay_ms: int = 500, grace_ms: int = 4_000) -> AggregationOptions:
    return AggregationOptions(granularities_ms=SIZES, delay_ms=delay_ms, grace_ms=grace_ms, idle_ms=1_000)


def gathered(amend_ms: int) -> AggregationOptions:
    return replace(options(grace_ms=25_000), amend_ms=amend_ms)


def sampled(most: int) -> AggregationOptions:
    return replace(options(grace_ms=25_000), sketch_values=most)


OPTIONS = st.sampled_from([options(), options(grace_ms=25_000), options(0, 0), options(3_000, 12_000), sampled(1),
                           sampled(3), gathered(10_000), gathered(20_000)])


def reference(events: list[dict[str, Any]], at: AggregationOptions) -> tuple[dict[Any, dict[str, Any]], set[int]]:
    """(model, size, start) -> what its window must say in the end; and the numbers of events that were too late."""
    found = windows_of(events, at)
    return {(series[1], size, start): stated for (series, size, start), stated in found.stated().items()
            if series[1] != "flush"}, found.late


# -- streams, batches, crashes ------------------------------------------------------------------------------------


def event(number: int, ts: int, model: str, value: float | None, error: bool) -> dict[str, Any]:
    features = {"x": value} if number % 4 else {"y": 0.1 * number, "x": value}
    return {"event_id": f"e{number}", "ts": BASE + ts, "environment": "prod", "model": model, "version": "1",
            "features": features, "prediction": "a" if number % 3 else "b", "latency_ms": 0.1 * (number % 7),
            "error": "boom" if error else None}


def records(events: list[dict[str, Any]]) -> list[Any]:
    return [SimpleNamespace(offset=at, timestamp=0, key=b"", value=msgspec.json.encode(found))
            for at, found in enumerate(events)]


EVENTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(-16_000, 300), st.sampled_from("ab"),
              st.none() | st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=60)


def stream(drawn: list[tuple[int, int, str, float | None, bool]]) -> list[dict[str, Any]]:
    """Time moves on by up to 40 × 25 ms an event, with disorder of up to 16 s; the last event closes everything."""
    clock, events = 20_000, []
    for number, (step, jitter, model, value, error) in enumerate(drawn):
        clock += step * 25
        events.append(event(number, clock + jitter, model, value, error))
    return [*events, event(len(events), clock + 100_000, "flush", None, False)]


def cut(items: list[Any], cuts: list[int]) -> list[list[Any]]:
    edges = sorted({min(at, len(items)) for at in cuts} | {0, len(items)})
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def survivors(frozen: Frozen, before: dict[str, bytes], writes: int) -> dict[str, bytes]:
    """The changelog after the first `writes` writes of a checkpoint."""
    after = dict(before)
    for key, data in [*frozen.puts, *((key, None) for key in frozen.deletes)][:writes]:
        if data is None:
            after.pop(key, None)
        else:
            after[key] = data
    return after


class Reader:
    """What a reader of `metrics` ends up with: of copies with one id, the one with the largest count."""

    def __init__(self) -> None:
        self.windows: dict[str, WindowRecord] = {}
        self.late: set[int] = set()

    def take(self, windows: list[WindowRecord]) -> None:
        for window in windows:
            again = read_window(write_window(window))
            assert again == window
            have = self.windows.get(window.window_id)
            if have is None or window.count >= have.count:
                self.windows[window.window_id] = window

    def stated(self) -> dict[Any, dict[str, Any]]:
        return {(window.model, window.size_ms, window.start_ms): {
            "count": window.count, "errors": window.errors,
            "fields": {name: {key: value for key, value in msgspec.structs.asdict(found).items()
                              if key not in ("schema_version", "buckets")} | {"sketch": found.sketch}
                       for name, found in window.fields.items()},
        } for window in self.windows.values() if window.model != "flush"}


def run(batches: list[list[Any]], states: KeyedStates[Any], engine: AggregationEngine, reader: Reader) -> None:
    for batch in batches:
        events = DECODE(RecordBatch(TOPIC, states.partition, batch))
        result = engine.run(events, states, TOPIC, now_ms=1)
        reader.take(result.windows)
        reader.late |= set(events.offset[result.too_late].tolist())


def fresh(at: AggregationOptions, changelog: dict[str, bytes],
          partition: int = 0) -> tuple[AggregationEngine, KeyedStates[Any]]:
    engine = AggregationEngine(at, as_objects)
    return engine, KeyedStates("aggregation", partition, engine.codec, dict(changelog))


@given(OPTIONS, EVENTS, st.lists(st.integers(1, 60), max_size=6))
@settings(deadline=None, max_examples=120)
def test_windows_equal_the_reference_to_the_bit_for_any_cutting_into_batches(at: Any, drawn: Any, cuts: Any) -> None:
    events, reader = stream(drawn), Reader()
    engine, states = fresh(at, {})
    run(cut(records(events), cuts), states, engine, reader)
    wanted, late = reference(events, at)
    assert reader.stated() == wanted
    assert reader.late == late
    assert states.entry(META).state.too_late == len(late)


@pytest.mark.parametrize("seed", range(60))
def test_what_any_window_says_when_it_closes_does_not_hang_on_batches_nor_on_the_clock(seed: int) -> None:
    draw = random.Random(seed)
    drawn = [(draw.randrange(40), draw.choice([0, 0, 0, -draw.randrange(16_000)]), draw.choice("ab"), 1.0, False)
             for _ in range(150)]
    events = records(stream(drawn))
    cuts, firsts = draw.sample(range(1, 150), 40), list[dict[str, WindowRecord]]()
    for at, batches in ((options(grace_ms=25_000), [events]), (gathered(10_000), cut(events, cuts))):
        engine, states = fresh(at, {})
        found, clock = dict[str, WindowRecord](), 1
        for batch in batches:
            clock += draw.choice([0, 0, 2_000, 11_000])
            for window in engine.run(DECODE(RecordBatch(TOPIC, 0, batch)), states, TOPIC, now_ms=clock).windows:
                found.setdefault(window.window_id, msgspec.structs.replace(window, closed_ms=0))
        firsts.append(found)
    assert firsts[0] == firsts[1]


@given(OPTIONS, EVENTS, st.data())
@settings(deadline=None, max_examples=400)
def test_a_crash_at_any_write_of_any_checkpoint_changes_no_window(at: Any, drawn: Any, data: Any) -> None:
    events, reader = stream(drawn), Reader()
    found, changelog, committed, position = records(events), {}, 0, 0
    engine, states = fresh(at, changelog)
    while position < len(found):
        size = data.draw(st.integers(1, 12), "batch")
        run([found[position:position + size]], states, engine, reader)
        position += size
        action = data.draw(st.sampled_from(["go on", "checkpoint", "uncommitted", "crash", "crash", "idle"]), "then")
        if action == "go on":
            continue
        if action == "idle":
            reader.take(engine.idle(states, now_ms=data.draw(st.integers(1, 40_000), "now")))
            continue
        reader.take(engine.amend(states))
        frozen = states.freeze(1)
        if action == "crash":
            writes = data.draw(st.integers(0, len(frozen.puts) + len(frozen.deletes)), "writes")
            changelog = survivors(frozen, changelog, writes)
        else:
            changelog = survivors(frozen, changelog, len(frozen.puts) + len(frozen.deletes))
            committed = position if action == "checkpoint" else committed
            states.written(frozen)
        if action != "checkpoint":
            engine, states = fresh(at, changelog)
            position = committed
    wanted, late = reference(events, at)
    assert reader.stated() == wanted
    assert reader.late == late
    assert states.entry(META).state.too_late == len(late)


@pytest.mark.parametrize("writes", range(5))
def test_an_amendment_that_only_the_finest_row_outlived_is_not_lost_to_the_coarsest(writes: int) -> None:
    at, reader = options(grace_ms=20_000), Reader()
    events = [event(number, ts, "a", 1.0, False)
              for number, ts in enumerate([17_100, 12_100, 20_600, 17_200, 12_300, 120_000])]
    found = records([*events, event(9, 240_000, "flush", 1.0, False)])
    engine, states = fresh(at, {})
    run([found[:3]], states, engine, reader)
    changelog = survivors(states.freeze(1), {}, 99)
    run([found[3:4]], states, engine, reader)
    engine, states = fresh(at, survivors(states.freeze(1), changelog, writes))
    run([found[3:]], states, engine, reader)
    assert reader.stated() == reference(events, at)[0]


@pytest.mark.parametrize("deleted", range(4))
def test_a_pane_that_a_crash_kept_from_being_deleted_does_not_come_back(deleted: int) -> None:
    at, reader = options(), Reader()
    found = records([event(number, ts, "a", 1.0, False) for number, ts in enumerate([100, 1_100, 2_100, 12_000])]
                    + [event(9, 90_000, "flush", 1.0, False)])
    engine, states = fresh(at, {})
    run([found[:3]], states, engine, reader)
    frozen = states.freeze(1)
    changelog = survivors(frozen, {}, 99)
    states.written(frozen)
    run([found[3:4]], states, engine, reader)
    frozen = states.freeze(1)
    assert len(frozen.deletes) == 3, "the finest panes, whose parent is over"
    engine, states = fresh(at, survivors(frozen, changelog, len(frozen.puts) + deleted))
    run([found[3:]], states, engine, reader)
    assert reader.stated() == reference([msgspec.json.decode(one.value) for one in found], at)[0]
    assert not [key for key in frozen.deletes if key in states], "no leftover stays"


@given(EVENTS)
@settings(deadline=None, max_examples=60)
def test_an_idle_clock_that_closes_early_changes_no_final_window(drawn: Any) -> None:
    events, reader, at = stream(drawn), Reader(), options()
    engine, states = fresh(at, {})
    for number, one in enumerate(records(events)):
        run([[one]], states, engine, reader)
        if number % 4 == 0:
            reader.take(engine.idle(states, now_ms=30_000))
    assert reader.stated() == reference(events, at)[0]


@given(EVENTS, EVENTS)
@settings(deadline=None, max_examples=30)
def test_two_partitions_of_one_worker_do_not_see_each_other(left: Any, right: Any) -> None:
    engine, at = AggregationEngine(options(), as_objects), options()
    both = [(stream(drawn), Reader(), KeyedStates("aggregation", number, engine.codec, {}))
            for number, drawn in enumerate((left, right))]
    longest = max(len(events) for events, _, _ in both)
    for number in range(0, longest, 7):
        for events, reader, states in both:
            if number < len(events):
                run([records(events)[number:number + 7]], states, engine, reader)
    for events, reader, states in both:
        assert reader.stated() == reference(events, at)[0]
        assert {window.partition for window in reader.windows.values()} == {states.partition}
    assert not set(both[0][1].windows) & set(both[1][1].windows), "windows of two partitions have two ids"


@given(EVENTS)
@settings(deadline=None, max_examples=30)
def test_a_roll_up_holds_what_its_parts_hold(drawn: Any) -> None:
    reader, at = Reader(), options()
    engine, states = fresh(at, {})
    run([records(stream(drawn))], states, engine, reader)
    windows = reader.stated()
    for (model, size, start), whole in windows.items():
        if size == SIZES[0]:
            continue
        fine = SIZES[SIZES.index(size) - 1]
        parts = [part for (other, its, at_ms), part in windows.items()
                 if other == model and its == fine and start <= at_ms < start + size]
        for name in ("count", "errors"):
            assert whole[name] == sum(part[name] for part in parts)
        for name, found in whole["fields"].items():
            of_parts = [part["fields"][name] for part in parts if name in part["fields"]]
            assert found["count"] == sum(part["count"] for part in of_parts)
            assert found["missing"] == sum(part["missing"] for part in of_parts)
            assert math.isclose(found["sum"], math.fsum(part["sum"] for part in of_parts), rel_tol=1e-12, abs_tol=1e-9)


def test_memory_does_not_grow_over_a_long_stream() -> None:
    engine, states = fresh(options(), {})
    sizes, reader = [], Reader()
    for block in range(30):
        events = [event(n, block * 10_000 + n * 100, f"m{block}", 1.0, False) for n in range(100)]
        found = [SimpleNamespace(offset=block * 100 + at, timestamp=0, key=b"", value=msgspec.json.encode(one))
                 for at, one in enumerate(events)]
        run([found], states, engine, reader)
        states.written(states.freeze(1))
        sizes.append((len(states.live), len(states.snapshots), len(engine._calendar(states))))
    assert max(sizes[10:]) <= max(sizes[:10])
    assert META in states.snapshots
