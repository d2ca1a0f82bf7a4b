"""Windows of environments and segments against a slow, obvious reference: any disorder, any cutting, any crash."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.aggregation import beside
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.aggregation.names import FirstNames
from reference.levels import of_environment, of_segments
from reference.windows import windows_of
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.windows.levels import read_whole, writer

SIZES = (1_000, 5_000, 20_000)
DAY_MS = 86_400_000
#: Half a minute before midnight, so that names begin anew on the way.
BASE = 1_700_000_000_000 // DAY_MS * DAY_MS - 30_000
TOPIC = "telemetry"
KEYS, VALUES = ("country",), 3
DECODE = Decoder(Limits(), KEYS)
OPTIONS = AggregationOptions(SIZES, delay_ms=500, grace_ms=4_000, idle_ms=1_000)
COARSE = AggregationOptions(SIZES[1:], delay_ms=500, grace_ms=4_000, idle_ms=1_000, judged_ms=SIZES[0])


def event(number: int, ts: int, model: str, country: str | None, environment: str = "prod") -> dict[str, Any]:
    found: dict[str, Any] = {
        "event_id": f"e{number}", "ts": BASE + ts, "environment": environment, "model": model, "version": "1",
        "features": {"x": 0.5 * number}, "prediction": "a" if number % 3 else "b", "latency_ms": 0.1 * (number % 7),
        "metrics": {"tokens": number}, "error": "boom" if number % 5 == 0 else None}
    if number % 2:
        found["confidence"] = 0.5 + 0.01 * (number % 40)
    return found | ({} if country is None else {"segment": {"plan": "basic", "country": country}})


EVENTS = st.lists(st.tuples(
    st.integers(0, 40), st.integers(-6_000, 300), st.sampled_from("ab"),
    st.none() | st.sampled_from(["PT", "DE", "FR", "ES", "IT", "x\x1f\x1ey", "", "<none>"]),
    st.sampled_from(["prod", "staging"])), min_size=1, max_size=60)


def stream(drawn: list[Any]) -> list[dict[str, Any]]:
    clock, events = 20_000, []
    for number, (step, jitter, model, country, environment) in enumerate(drawn):
        clock += step * 25
        events.append(event(number, clock + jitter, model, country, environment))
    return [*events, event(len(events), clock + 100_000, "flush", "PT", "flush")]


def records(events: list[dict[str, Any]]) -> list[Any]:
    return [SimpleNamespace(offset=at, timestamp=0, key=b"", value=msgspec.json.encode(found))
            for at, found in enumerate(events)]


class Rows(dict[str, dict[str, bytes]]):
    """A changelog, by agent."""

    def view(self, number: int, agent: str) -> dict[str, bytes]:
        return self.setdefault(agent, {})


class Worker:
    """The windows beside those of the series of one partition, as a worker has them."""

    def __init__(self, changelog: dict[str, dict[str, bytes]], number: int = 0) -> None:
        configured = Settings(segment_keys=KEYS, segment_values=VALUES, granularities_ms=SIZES, watermark_delay_ms=500,
                              grace_ms=4_000, idle_ms=1_000)
        self.levels = beside.of_telemetry(configured)
        codecs: Any = dict(state for one in self.levels for state in one.states())
        self.rows = Rows({name: dict(rows) for name, rows in changelog.items()})
        self.partition = Partition(number, 1, self.rows, codecs, SimpleNamespace())     # type: ignore[arg-type]
        for one in self.levels:
            one.idle(self.partition, 0)

    def run(self, batch: list[Any]) -> list[Any]:
        events = DECODE(RecordBatch(TOPIC, self.partition.number, batch))
        assert not events.rejected
        return [window for one in self.levels for window in one.run(events, self.partition, TOPIC, 1).windows]

    def idle(self, now_ms: int) -> list[Any]:
        return [window for one in self.levels for window in one.idle(self.partition, now_ms)]

    def amend(self) -> list[Any]:
        """What goes out before a checkpoint."""
        return [window for one in self.levels for window in one.amend(self.partition)]

    def checkpoint(self, changelog: dict[str, dict[str, bytes]], writes: int | None) -> dict[str, dict[str, bytes]]:
        """The changelog after so many writes of a checkpoint; None: all of them."""
        after = {name: dict(rows) for name, rows in changelog.items()}
        every = self.partition.freeze()
        changes = [(one.agent, key, data) for one in every
                   for key, data in [*one.puts, *((key, None) for key in one.deletes)]]
        for agent, key, data in changes[:writes]:
            if data is None:
                after.setdefault(agent, {}).pop(key, None)
            else:
                after.setdefault(agent, {})[key] = data
        if writes is None:
            for one in every:
                self.partition.written(one)
        return after


class Reader:
    """Of copies with one id, the one with the largest count."""

    def __init__(self) -> None:
        self.windows: dict[str, Any] = {}

    def take(self, windows: list[Any]) -> None:
        for one in windows:
            window = read_whole(one.value)
            assert window.window_id == one.window_id
            have = self.windows.get(window.window_id)
            if have is None or window.count >= have.count:
                self.windows[window.window_id] = window

    def stated(self, level: str) -> dict[Any, dict[str, Any]]:
        return {(window.environment, window.model, window.version, window.component, window.segment, window.size_ms,
                 window.start_ms): {"count": window.count, "errors": window.errors, "fields": {
                     name: {key: value for key, value in msgspec.structs.asdict(found).items()
                            if key not in ("schema_version", "buckets")} | {"sketch": found.sketch}
                     for name, found in window.fields.items()}}
                for window in self.windows.values() if window.level == level and window.environment != "flush"}


def reference(events: list[dict[str, Any]], options: AggregationOptions) -> dict[Any, dict[str, Any]]:
    found = {}
    for (series, size, start), stated in windows_of(events, options).stated().items():
        component, _, segment = series[3].partition("\x1e")
        if series[0] != "flush":
            found[(*series[:3], component, segment, size, start)] = stated
    return found


def printable(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its segment as it may be kept; a value with the name of ours is among the others."""
    if "segment" not in event:
        return event
    country = event["segment"]["country"]
    return event | {"segment": {"country": {"x\x1f\x1ey": "x\ufffd\ufffdy", "<none>": "<other>"}.get(country, country)}}


def both(events: list[dict[str, Any]]) -> tuple[Any, Any]:
    kept = of_segments([printable(event) for event in events], "country", VALUES, SIZES[-1])
    return reference([of_environment(event) for event in events], OPTIONS), reference(kept, COARSE)


@given(EVENTS, st.data())
@settings(deadline=None, max_examples=150)
def test_a_crash_at_any_write_of_any_checkpoint_changes_no_window(drawn: Any, data: Any) -> None:
    events, reader = stream(drawn), Reader()
    found, committed, position = records(events), 0, 0
    changelog: dict[str, dict[str, bytes]] = {}
    worker = Worker(changelog)
    while position < len(found):
        size = data.draw(st.integers(1, 12), "batch")
        reader.take(worker.run(found[position:position + size]))
        position += size
        action = data.draw(st.sampled_from(["go on", "checkpoint", "uncommitted", "crash", "crash", "idle"]), "then")
        if action == "idle":
            reader.take(worker.idle(data.draw(st.integers(1, 40_000), "now")))
        elif action != "go on":
            reader.take(worker.amend())
        if action == "crash":
            changelog = worker.checkpoint(changelog, data.draw(st.integers(0, 40), "writes"))
            worker, position = Worker(changelog), committed
        elif action in ("checkpoint", "uncommitted"):
            changelog = worker.checkpoint(changelog, None)
            committed = position if action == "checkpoint" else committed
            if action == "uncommitted":
                worker, position = Worker(changelog), committed
    environments, segments = both(events)
    assert reader.stated("environment") == environments
    assert reader.stated("segment") == segments


@given(EVENTS, st.lists(st.integers(1, 60), max_size=6))
@settings(deadline=None, max_examples=100)
def test_windows_and_their_first_copies_do_not_hang_on_where_batches_end(drawn: Any, cuts: Any) -> None:
    events = stream(drawn)
    edges = sorted({min(at, len(events)) for at in cuts} | {0, len(events)})
    published = []
    for parts in (edges, [0, len(events)], range(len(events) + 1)):
        worker, found = Worker({}), records(events)
        published.append([window for low, high in itertools.pairwise(parts) for window in worker.run(found[low:high])])
    first = [{window.window_id: msgspec.structs.replace(read_whole(window.value), closed_ms=0)
              for window in reversed(found)} for found in published]
    assert first[0] == first[1] == first[2]


@given(EVENTS, EVENTS)
@settings(deadline=None, max_examples=50)
def test_every_level_counts_what_its_parts_count_over_partitions_and_sizes(left: Any, right: Any) -> None:
    reader, of_series = Reader(), defaultdict[Any, int](int)
    for number, drawn in enumerate((left, right)):
        events, alone = stream(drawn), Reader()
        found = Worker({}, number).run(records(events))
        reader.take(found)
        alone.take(found)
        sums_are_those_of_the_finest(alone.stated("environment"))
        for (series, size, start), stated in windows_of(events, OPTIONS).stated().items():
            if series[0] != "flush":
                of_series[series[0], size, start] += stated["count"]
    for level, sizes in (("environment", SIZES), ("segment", SIZES[1:])):
        counted = defaultdict[Any, int](int)
        for window in reader.windows.values():
            if window.level == level and window.environment != "flush":
                counted[window.environment, window.size_ms, window.start_ms] += window.count
        assert counted == {key: many for key, many in of_series.items() if key[1] in sizes}, level


def sums_are_those_of_the_finest(stated: dict[Any, dict[str, Any]]) -> None:
    """Of one partition's windows: each sum is that of its parts."""
    finest = {key: whole for key, whole in stated.items() if key[5] == SIZES[0]}
    assert finest
    for key, whole in stated.items():
        parts = [part for other, part in finest.items()
                 if other[:5] == key[:5] and key[6] <= other[6] < key[6] + key[5]]
        for name, found in whole["fields"].items():
            assert math.isclose(found["sum"], math.fsum(
                part["fields"][name]["sum"] for part in parts if name in part["fields"]), abs_tol=1e-9)


def test_rare_names_are_counted_together_and_each_day_begins_anew() -> None:
    names = FirstNames(2, DAY_MS)
    states: Any = Partition(0, 1, Rows(), {"n": names.codec}, SimpleNamespace()).states("n")  # type: ignore[arg-type]
    said = [names.name(states, ("f",), day, text) for day, text in
            [(5, "a"), (5, "b"), (5, "c"), (5, "a"), (6, "c"), (6, "b"), (6, "a"), (5, "b"), (7, "a"), (5, "a")]]
    assert said == ["a", "b", "<other>", "a", "c", "b", "<other>", "b", "a", "<other>"]
    assert list(states.entry("f").state.spans) == [6, 7]


def test_an_engine_of_a_level_says_so_in_its_ids() -> None:
    engine = AggregationEngine(OPTIONS, writer("environment"))
    assert engine.grid.sizes_ms == SIZES
    worker = Worker({})
    windows = worker.run(records([event(0, 0, "a", "PT"), event(1, 60_000, "a", "PT")]))
    assert {window.window_id[:2] for window in windows} == {"e-", "s-"}


@given(EVENTS, st.lists(st.integers(1, 60), max_size=6), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_a_bound_on_series_keeps_the_first_and_counts_the_others_as_one(drawn: Any, cuts: Any, most: int) -> None:
    events = [one | {"version": str(number % 3)} for number, one in enumerate(stream(drawn))]
    edges = sorted({min(at, len(events)) for at in cuts} | {0, len(events)})
    cap = beside.Cap(Settings(max_series=most))
    partition = Partition(0, 1, Rows(), {cap.name: cap.names.codec}, SimpleNamespace())     # type: ignore[arg-type]
    found, folded = [], 0
    for low, high in itertools.pairwise(edges):
        batch, some = cap(DECODE(RecordBatch(TOPIC, 0, records(events)[low:high])), partition)
        found += [batch.keys[number] for number in batch.series.tolist()]
        folded += some
    known: dict[int, list[Any]] = defaultdict(list)
    expected = []
    for one in events:
        key, day = (one["environment"], one["model"], one["version"], "model"), one["ts"] // DAY_MS
        if key not in known[day] and len(known[day]) < most:
            known[day].append(key)
        expected.append(key if key in known[day] else (one["environment"], "other", "other", "other"))
    assert found == expected
    assert folded == sum(key[1] == "other" for key in expected)
