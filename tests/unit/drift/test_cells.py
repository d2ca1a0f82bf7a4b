"""The compiled sums of a group, and packed sketches, are to the last bit those of plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from drift_world import Serving, World, summary

from agents.drift import cells, gathered
from agents.drift.gathered import Buckets
from agents.drift.grouping import Group
from agents.drift.level import WatchState
from agents.drift.options import MEAN, Statistic, effect_of
from agents.drift.reference import MOST_EVENTS, Lens, Reference, Warm, packed, unpacked
from agents.drift.watch import Watch
from streams.windows.closed import FieldNames, fields_of
from streams.windows.record import SummaryRecord
from streams.windows.sketch import BIAS, CODE_BITS, CODE_MASK, SPAN, bucket_value
from reference.readings import Field, log_value

LENSES = [None, Lens(False, -5.0, 20.0, False), Lens(False, 1.0, 1e9, True), Lens(True, -1.0, 2.0, False),
          Lens(True, -3.0, 30.0, True)]


def watches_of(lenses: Mapping[str, Lens | None]) -> dict[Statistic, Watch]:
    return {(name, MEAN): Watch(effect_of((name, MEAN)), 1e-5, WatchState(
        Reference(50, 20, lens.log, 0.0, 1.0, 1.0, lens.low, lens.high, 0.0, 1.0), lens.learning))
        for name, lens in lenses.items() if lens is not None}


def drawn(rng: np.random.Generator) -> SummaryRecord:
    size = int(rng.integers(0, 9))
    values = rng.normal(0, 1, size) * 10.0 ** rng.integers(-3, 5) if rng.random() < 0.5 else rng.lognormal(1, 3, size)
    values = np.where(rng.random(size) < 0.2, [0.0, math.nan, 7.0, -30.0, 1e120][int(rng.integers(5))], values)
    return summary(values, sketched=rng.random() < 0.8)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_what_its_windows_add_up_to_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lenses = {name: LENSES[(at + seed) % len(LENSES)] for at, name in enumerate(
        ["latency_ms", "feature.a", "feature.b", "feature.c", "feature.d", "feature.a=x", "confidence"])}
    watches, known, group = watches_of(lenses), FieldNames(), Group()
    plain = {name: Field() for name in lenses}
    for _ in range(30):
        fields = {str(name): drawn(rng) for name in rng.permutation(list(lenses))[:int(rng.integers(1, 8))]}
        group.add(*fields_of(fields, known), watches, 1_024)
        for name, given in fields.items():
            watch = watches.get((name, MEAN))
            plain[name].add(given, lenses[name], name == "latency_ms",
                            "=" not in name and (watch is None or watch.looks_closer))
        if rng.random() < 0.2:
            group = Group.of(msgspec.msgpack.decode(msgspec.msgpack.encode(group.snapshot()),
                                                    type=type(group.snapshot())), watches)
            known = FieldNames()
    for name, row in group.names.items():
        assert group.table[row, :cells.KEPT].tolist() == plain[name].sums(), name
    for (name, statistic), point in group.points(watches):
        if statistic == MEAN:
            sums = plain[name]
            found = [point.mean, point.variance, point.log_mean, point.log_variance, point.watched]
            assert np.array_equal(found, sums.moments(), equal_nan=True), name
            span = slice(point.sketch.low, point.sketch.high)
            found = zip(point.sketch.codes[span].tolist(), point.sketch.counts[span].tolist(), strict=True)
            assert dict(found) == sums.sketch


def test_fields_beyond_the_most_are_passed_over() -> None:
    group = Group()
    group.add(*fields_of({f"feature.{at}": summary([1.0]) for at in range(9)}, FieldNames()), {}, 4)
    assert list(group.names) == [f"feature.{at}" for at in range(4)]


def test_values_and_logarithms_of_buckets_are_pythons() -> None:
    for code in (0, *range(BIAS - 36_000, BIAS + 36_000), SPAN - 1):
        assert (cells.value_of(code), cells.value_of(-code)) == (bucket_value(code), bucket_value(-code))
        assert cells.log_value(code) == log_value(code)


@pytest.mark.parametrize("seed", range(50))
def test_sums_are_those_of_fsum(seed: int) -> None:
    rng, partials = np.random.default_rng(seed), np.empty(cells.PARTIALS)
    values = rng.normal(0, 1, 200) * 10.0 ** rng.integers(-60, 60, 200)
    values = np.concatenate([values, -values[:150], [0.5, 2.0**53, 0.5, 2.0**-60]])
    size = 0
    for value in values.tolist():
        size = cells.plus(partials, size, value)
    assert cells.total(partials, size) == math.fsum(values)


@pytest.mark.parametrize("seed", range(30))
def test_packed_sketches_are_added_as_counters_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    packed, plain = [b"", b"", b""], [Counter[int](), Counter[int](), Counter[int]()]
    for _ in range(12):
        size = int(rng.integers(1, 40))
        keys = np.sort(rng.choice(2 * SPAN - 1, size, replace=False)) - SPAN + 1
        if rng.random() < 0.7:
            keys = np.unique(rng.normal([BIAS, -BIAS][int(rng.integers(2))], 20, size).astype(int))
        counts = rng.integers(1, [3, 70_000, 200_000][int(rng.integers(3))], len(keys))
        cut = sorted(rng.integers(0, len(keys) + 1, 2).tolist())
        spans = list(zip([0, *cut], [*cut, len(keys)], strict=True))
        codes = keys.astype(np.int32)
        packed = gathered.added(packed, [Buckets(codes, counts, low, high) for low, high in spans])
        for sums, (low, high) in zip(plain, spans, strict=True):
            sums.update(dict(zip(keys[low:high].tolist(), counts[low:high].tolist(), strict=True)))
    for found, sums in zip(packed, plain, strict=True):
        assert gathered.pairs_of(found) == sorted(sums.items())
        assert gathered.pairs_of(gathered.of_dict(sums)) == sorted(sums.items())


def test_a_count_that_is_too_large_is_held() -> None:
    most = Buckets(np.array([BIAS], np.int32), np.array([2**50], np.int64), 0, 1)
    assert gathered.pairs_of(gathered.added(gathered.added([b""], [most]), [most])[0]) == [(BIAS, gathered.MOST)]
    many = Buckets(np.arange(2_000, dtype=np.int32), np.full(2_000, 2**53), 0, 2_000)
    assert gathered.pairs_of(gathered.added([b""], [many])[0]) == [(code, gathered.MOST) for code in range(2_000)]


def test_a_row_with_cells_and_dicts_as_they_were_written_before_goes_on_as_it_was() -> None:
    windows = Serving(5, events=3).windows(400)
    world = World()
    world.give(windows[:95])
    codec = world.engine.codec
    entry = world.states.entry(next(iter(world.states.keys())))
    data = codec.encode(entry.key, entry.state)
    versions, *rest = msgspec.msgpack.decode(data)
    assert any(group[6] for _, _, group, _, _ in versions.values())
    assert any(state[2] for *_, watches, _ in versions.values() for _, _, state in watches)
    old = codec.decode(entry.key, msgspec.msgpack.encode([{name: _as_before(kept) for name, kept in versions.items()},
                                                          *rest]))
    assert _in_order(codec.encode(entry.key, old)) == _in_order(data)


def test_a_warm_ups_points_are_written_in_the_layout_that_is_said() -> None:
    points = [Warm(3, 0.5, 0.25, math.nan, 1.0, -2.0), Warm(1 << 63, 0.0, 0.0, 0.0, 0.0, 0.0)]
    first = bytes.fromhex("0300000000000000 000000000000e03f 000000000000d03f 000000000000f87f 000000000000f03f"
                          "00000000000000c0")
    assert packed(points) == first + MOST_EVENTS.to_bytes(8, "little") + bytes(40)
    assert str(unpacked(first)) == str(points[:1])


def test_windows_of_absurdly_many_events_are_held_at_what_can_be_kept() -> None:
    world = World()
    windows = Serving(5, events=3).windows(10)
    windows[7] = msgspec.structs.replace(windows[7], count=2**63 - 1)
    world.give(windows)
    entry = world.states.entry(next(iter(world.states.keys())))
    warm = [unpacked(watch.state.warm) for version in entry.state.versions.values()
            for watch in version.watches.values()]
    assert MOST_EVENTS in {point.n for points in warm for point in points}


@pytest.mark.parametrize(("at", "damaged"), [(2, b"0123456789"), (19, [["a", 1]]), (19, 7), (20, b"012")])
def test_a_row_whose_packed_parts_are_damaged_is_refused(at: int, damaged: object) -> None:
    world = World()
    world.give(Serving(5, events=3).windows(95))
    entry = world.states.entry(next(iter(world.states.keys())))
    whole = msgspec.msgpack.decode(world.engine.codec.encode(entry.key, entry.state))
    _, _, state = whole[0]["1"][3][0]
    state[at] = damaged
    with pytest.raises(ValueError, match="drift state is damaged"):
        world.engine.codec.decode(entry.key, msgspec.msgpack.encode(whole))


def _in_order(data: bytes) -> bytes:
    """A row with the buckets of groups ascending."""
    whole = msgspec.msgpack.decode(data)
    for _, _, group, _, _ in whole[0].values():
        keys, counts = np.frombuffer(group[8], np.int32).tolist(), np.frombuffer(group[9], np.int64).tolist()
        group[8:10] = [sorted(zip(keys, counts, strict=True))]
    return msgspec.msgpack.encode(whole)


def _as_before(version: list[Any]) -> list[Any]:
    taken_ms, events, group, watches, profiled = version
    table = np.frombuffer(group[7]).reshape(-1, cells.KEPT).tolist()
    keys, counts = np.frombuffer(group[8], np.int32), np.frombuffer(group[9], np.int64)
    fields = {}
    for row, (name, sums) in enumerate(zip(group[6], table, strict=True)):
        own = keys >> CODE_BITS == row
        pairs = list(zip(((keys[own] & CODE_MASK) - SPAN).tolist(), counts[own].tolist(), strict=True))
        whole = {0, 1, 4, 5, 8}
        fields[name] = [*(int(value) if at in whole else value for at, value in enumerate(sums)),
                        [msgspec.json.encode(pairs), b"[]"]]
    for _, _, state in watches:
        state[2] = [list(point) for point in unpacked(state[2])]
        state[20] = dict(gathered.pairs_of(state[20]))
    return [taken_ms, events, [*group[:5], fields], watches, profiled]
