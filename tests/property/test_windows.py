"""Windows against a slow, obvious reference: any disorder, any cutting into batches, any crash."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from schemas.windows import MetricWindow
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.state.keyed import META, Frozen, KeyedStates

OPTIONS = AggregationOptions(granularities_ms=(1_000, 5_000, 20_000), delay_ms=500, grace_ms=4_000, idle_ms=1_000)
BASE = 1_700_000_000_000
TOPIC = "telemetry"


def event(number: int, ts: int, model: str, value: float | None, error: bool) -> dict[str, Any]:
    return {"event_id": f"e{number}", "ts": BASE + ts, "environment": "prod", "model": model, "version": "1",
            "features": {"x": value}, "prediction": "a" if number % 3 else "b", "latency_ms": float(number % 7),
            "error": "boom" if error else None}


def records(events: list[dict[str, Any]]) -> list[Any]:
    return [SimpleNamespace(offset=at, timestamp=0, key=b"", value=msgspec.json.encode(found))
            for at, found in enumerate(events)]


def reference(events: list[dict[str, Any]], options: AggregationOptions) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Counts, errors and sums of every window, event by event; and the events that were too late."""
    finest, newest = options.granularities_ms[0], -math.inf
    out: dict[tuple[str, int, int], dict[str, Any]] = defaultdict(
        lambda: {"count": 0, "errors": 0, "x": [], "latency": []})
    late = 0
    for found in events:
        end = found["ts"] // finest * finest + finest
        if end + options.grace_ms <= newest - options.delay_ms:
            late += 1
        else:
            for size in options.granularities_ms:
                window = out[(found["model"], size, found["ts"] // size * size)]
                window["count"] += 1
                window["errors"] += found["error"] is not None
                window["latency"].append(found["latency_ms"])
                if found["features"]["x"] is not None:
                    window["x"].append(found["features"]["x"])
        newest = max(newest, found["ts"])
    return {**out, ("late", 0, 0): {"count": late}}


def take(final: dict[str, MetricWindow], windows: list[MetricWindow]) -> None:
    for window in windows:
        MetricWindow.model_validate_json(window.model_dump_json())
        have = final.get(window.window_id)
        if have is None or window.count >= have.count:
            final[window.window_id] = window


def compare(final: dict[str, MetricWindow], wanted: dict[tuple[str, int, int], dict[str, Any]], exact: bool) -> None:
    got = {(window.model, window.size_ms, window.start_ms): window for window in final.values()}
    wanted = {key: value for key, value in wanted.items() if key[0] != "late"}
    assert got.keys() == wanted.keys()
    for key, want in wanted.items():
        window = got[key]
        assert (window.count, window.errors) == (want["count"], want["errors"]), key
        latency = window.fields["latency_ms"]
        assert latency.count == want["count"]
        assert latency.sum == sum(want["latency"])
        if want["x"]:
            x = window.fields["feature.x"]
            assert (x.count, x.min, x.max) == (len(want["x"]), min(want["x"]), max(want["x"]))
            assert math.isclose(x.sum, math.fsum(want["x"]), rel_tol=1e-9, abs_tol=1e-6)
            mean = math.fsum(want["x"]) / len(want["x"])
            assert math.isclose(x.mean, mean, rel_tol=1e-9, abs_tol=1e-6)
            assert math.isclose(x.m2, math.fsum((v - mean) ** 2 for v in want["x"]), rel_tol=1e-6, abs_tol=1e-3)
            assert sum(count for _, count in x.sketch) == x.count


def survivors(frozen: Frozen, before: dict[str, bytes], writes: int) -> dict[str, bytes]:
    """The changelog after the first `writes` writes of a checkpoint."""
    after = dict(before)
    for number, (key, data) in enumerate([*frozen.puts, *((key, None) for key in frozen.deletes)]):
        if number >= writes:
            break
        if data is None:
            after.pop(key, None)
        else:
            after[key] = data
    return after


EVENTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(-8_000, 300), st.sampled_from("ab"),
              st.none() | st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=60)


def stream(drawn: list[tuple[int, int, str, float | None, bool]]) -> list[dict[str, Any]]:
    """Time moves on by up to 40 × 25 ms an event, with disorder of up to 8 s."""
    clock, events = 10_000, []
    for number, (step, jitter, model, value, error) in enumerate(drawn):
        clock += step * 25
        events.append(event(number, max(0, clock + jitter), model, value, error))
    flush = event(len(events), clock + 100_000, "flush", None, False)
    return [*events, flush]


def cut(items: list[Any], cuts: list[int]) -> list[list[Any]]:
    edges = sorted({min(at, len(items)) for at in cuts} | {0, len(items)})
    return [items[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


def finished(final: dict[str, MetricWindow]) -> dict[str, MetricWindow]:
    return {key: window for key, window in final.items() if window.model != "flush"}


def run(batches: list[list[Any]], states: KeyedStates[Any], engine: AggregationEngine,
        final: dict[str, MetricWindow]) -> int:
    decode, late = Decoder(Limits()), 0
    for batch in batches:
        result = engine.run(decode(RecordBatch(TOPIC, 0, batch)), states, TOPIC, now_ms=1)
        take(final, result.windows)
        late += len(result.too_late)
    return late


@given(EVENTS, st.lists(st.integers(0, 61), max_size=6))
@settings(deadline=None, max_examples=60)
def test_windows_equal_the_reference_for_any_cutting_into_batches(drawn: Any, cuts: list[int]) -> None:
    events = stream(drawn)
    engine, final = AggregationEngine(OPTIONS), {}
    states: KeyedStates[Any] = KeyedStates("aggregation", 0, engine.codec, {})
    late = run(cut(records(events), cuts), states, engine, final)
    wanted = reference(events, OPTIONS)
    assert late == wanted[("late", 0, 0)]["count"]
    compare(finished(final), {key: w for key, w in wanted.items() if key[0] != "flush"}, exact=True)
    whole: dict[str, MetricWindow] = {}
    alone = AggregationEngine(OPTIONS)
    run([records(events)], KeyedStates("aggregation", 0, alone.codec, {}), alone, whole)
    assert {key: w.fields for key, w in finished(final).items()} == {
        key: w.fields for key, w in finished(whole).items()}, "bit for bit"


@given(EVENTS, st.lists(st.integers(0, 61), max_size=5), st.data())
@settings(deadline=None, max_examples=80)
def test_a_crash_at_any_write_of_any_checkpoint_changes_no_window(drawn: Any, cuts: list[int], data: Any) -> None:
    events = stream(drawn)
    found = records(events)
    engine, final = AggregationEngine(OPTIONS), {}
    changelog: dict[str, bytes] = {}
    committed, at = 0, 0
    states: KeyedStates[Any] = KeyedStates("aggregation", 0, engine.codec, dict(changelog))
    while at < len(found):
        size = data.draw(st.integers(1, 20))
        run([found[at:at + size]], states, engine, final)
        at += size
        action = data.draw(st.sampled_from(["go on", "checkpoint", "crash"]))
        if action == "go on":
            continue
        frozen = states.freeze(1)
        total = len(frozen.puts) + len(frozen.deletes)
        if action == "checkpoint":
            changelog, committed = survivors(frozen, changelog, total), at
        else:
            changelog = survivors(frozen, changelog, data.draw(st.integers(0, total)))
            engine = AggregationEngine(OPTIONS)
            states = KeyedStates("aggregation", 0, engine.codec, dict(changelog))
            at = committed
    wanted = {key: w for key, w in reference(events, OPTIONS).items() if key[0] != "flush"}
    compare(finished(final), wanted, exact=True)


@given(EVENTS)
@settings(deadline=None, max_examples=40)
def test_an_idle_clock_that_closes_early_changes_no_final_count(drawn: Any) -> None:
    events = stream(drawn)
    engine, final = AggregationEngine(OPTIONS), {}
    states: KeyedStates[Any] = KeyedStates("aggregation", 0, engine.codec, {})
    for number, one in enumerate(records(events)):
        run([[one]], states, engine, final)
        if number % 4 == 0:
            take(final, engine.idle(states, now_ms=30_000))
    compare(finished(final), {k: w for k, w in reference(events, OPTIONS).items() if k[0] != "flush"}, exact=False)


def test_sums_over_a_roll_up_equal_the_sums_of_its_parts() -> None:
    events = stream([(n % 40, -(n % 5) * 700, "ab"[n % 2], n / 4, n % 6 == 0) for n in range(600)])
    engine, final = AggregationEngine(OPTIONS), {}
    run([records(events)], KeyedStates("aggregation", 0, engine.codec, {}), engine, final)
    for window in final.values():
        if window.size_ms == OPTIONS.granularities_ms[0]:
            continue
        parts = [part for part in final.values() if part.model == window.model and part.size_ms * 5 >= window.size_ms
                 and part.size_ms < window.size_ms and window.start_ms <= part.start_ms < window.start_ms +
                 window.size_ms and part.size_ms == max(s for s in OPTIONS.granularities_ms if s < window.size_ms)]
        assert window.count == sum(part.count for part in parts)
        assert window.fields["latency_ms"].sum == sum(part.fields["latency_ms"].sum for part in parts)


def test_memory_does_not_grow_over_a_long_stream() -> None:
    engine, final = AggregationEngine(OPTIONS), {}
    states: KeyedStates[Any] = KeyedStates("aggregation", 0, engine.codec, {})
    sizes = []
    for block in range(30):
        events = [event(n, block * 10_000 + n * 10, "a", 1.0, False) for n in range(1_000)]
        found = [SimpleNamespace(offset=block * 1_000 + at, timestamp=0, key=b"", value=msgspec.json.encode(one))
                 for at, one in enumerate(events)]
        run([found], states, engine, final)
        states.freeze(1)
        sizes.append((len(states.live), len(states.snapshots)))
    assert max(sizes[10:]) <= max(sizes[:10])
    assert META in states.snapshots
