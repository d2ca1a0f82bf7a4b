"""Joint drift, from bytes of telemetry: found where no margin shows it, silent where only margins move."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.drift.blocks import BLOCK, LEARN
from agents.drift.copula import features_of, grades, means
from agents.drift.joint import STRIDE, JointEngine, sampled
from agents.drift.reference import WARM_UP_POINTS
from schemas.drift import DriftEvent
from streams.batch import Decoder
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates

TOPIC, GAP_MS = "telemetry", 50
READY = (LEARN + WARM_UP_POINTS + 2) * BLOCK * STRIDE
EVENTS = READY + 30 * BLOCK * STRIDE
Values = NDArray[np.float64]


class Record(NamedTuple):
    offset: int
    value: bytes
    timestamp: int = 0
    key: bytes | None = None


def log(values: Values, names: str = "abcd", nulls: Callable[[int, str], bool] = lambda i, name: False) -> list[Record]:
    """A record an event; values (n, features)."""
    found = []
    for i, row in enumerate(values.tolist()):
        features = ",".join(f'"{name}":{"null" if nulls(i, name) else repr(x)}'
                            for name, x in zip(names, row, strict=True))
        found.append(Record(i, f'{{"event_id":"e{i}","ts":{1_700_000_000_000 + i * GAP_MS},"environment":"prod",'
                               f'"model":"m","version":"1","features":{{{features}}}}}'.encode()))
    return found


def together(n: int, rho: float, rng: np.random.Generator) -> Values:
    """Four features, the first two of which go together."""
    values = rng.normal(size=(n, 4))
    values[:, 1] = rho * values[:, 0] + np.sqrt(1 - rho * rho) * values[:, 1]
    return values


def parted(seed: int, rho: float = 0.7) -> Values:
    """The same margins before and after; from `READY` on, the first two no longer go together."""
    rng = np.random.default_rng(seed)
    return np.concatenate([together(READY, rho, rng), together(EVENTS - READY, 0.0, rng)])


def told(records: Sequence[Record], cuts: Sequence[int] = (), restart: bool = False) -> list[DriftEvent]:
    """What an engine says of a log that comes in these batches, with or without a restart after each."""
    engine, snapshots, found = JointEngine(), {}, []
    states: KeyedStates[Any] = KeyedStates("joint", 0, engine.codec, snapshots)
    ends = [*cuts, len(records)]
    for low, high in zip([0, *cuts], ends, strict=True):
        found += engine.run(Decoder()(RecordBatch(TOPIC, 0, list(records[low:high]))), states, TOPIC)
        if restart:
            snapshots |= dict(states.freeze(1).puts)
            engine = JointEngine()
            states = KeyedStates("joint", 0, engine.codec, snapshots)
    return found


def test_features_that_part_are_told_with_the_pair_and_the_time() -> None:
    [event] = told(log(parted(1)))
    assert (event.kind, event.field, event.detector, event.cause) == ("data", "features", "mmd", "real_change")
    assert (event.model, event.version, event.state, event.versions) == ("m", "1", "drifted", ["1"])
    assert event.after > event.before
    first = event.ranked[0]
    assert first.field == "feature.a ~ feature.b" and first.before > 0.6 and abs(first.after) < 0.3 < first.share
    began, block_ms = 1_700_000_000_000 + READY * GAP_MS, BLOCK * STRIDE * GAP_MS
    assert event.onset_low_ms is not None and event.onset_high_ms is not None
    assert event.onset_low_ms <= began + block_ms and began - block_ms <= event.onset_high_ms


def test_a_change_of_three_at_once_that_no_pair_shows_is_found() -> None:
    values = np.random.default_rng(2).normal(size=(EVENTS, 4))
    values[READY:, 2] = np.abs(values[READY:, 2]) * np.sign(values[READY:, 0] * values[READY:, 1])
    [event] = told(log(values))
    assert event.detector == "mmd" and event.ranked == []


def test_margins_alone_are_no_joint_drift() -> None:
    values = together(EVENTS, 0.5, np.random.default_rng(3))
    values[READY:] = np.exp(values[READY:] * 2.0 + 3.0)
    assert told(log(values)) == []


def test_a_feed_that_breaks_is_left_to_the_windows() -> None:
    values = together(EVENTS, 0.7, np.random.default_rng(4))
    assert told(log(values, nulls=lambda i, name: i > READY and name == "a")) == []
    values[READY:, 1] = 0.0
    assert told(log(values)) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_where_batches_are_cut_and_workers_restarted_changes_nothing(seed: int) -> None:
    rng, records = random.Random(seed), log(parted(5))
    for at in (100, 40_000):        # a field that comes up late, and one batch earlier than another cut has it
        records[at] = Record(at, records[at].value.replace(b'"a":', b'"late":1,"a":'))
    for at in range(0, len(records), 97):       # and times out of order
        ts = 1_700_000_000_000 + at * GAP_MS
        records[at] = Record(at, records[at].value.replace(b'"ts":%d' % ts, b'"ts":%d' % (ts - 60_000)))
    whole = told(records)
    cuts = sorted(rng.sample(range(1, len(records)), 60))
    assert told(records, cuts, restart=True) == whole != []


def test_records_that_are_read_again_count_once() -> None:
    records, engine = log(parted(6)), JointEngine()
    states: KeyedStates[Any] = KeyedStates("joint", 0, engine.codec, {})
    found = []
    for low in range(0, len(records), 10_000):
        part = records[max(0, low - 7_000):low + 10_000]
        found += engine.run(Decoder()(RecordBatch(TOPIC, 0, part)), states, TOPIC)
    assert found == told(records) != []


def test_one_event_in_eight_counts_whatever_turns_models_take() -> None:
    offset = np.arange(80_000)
    chosen = sampled(offset, np.zeros_like(offset))
    by_turn = [chosen[turn::50].mean() for turn in range(50)]
    assert min(by_turn) > 0.8 / STRIDE and max(by_turn) < 1.2 / STRIDE
    in_one_record = sampled(np.full(8_000, 7), np.arange(8_000))
    assert 0.9 / STRIDE < in_one_record.mean() < 1.1 / STRIDE


def test_grades_are_those_of_scipy_and_increasing_functions_change_nothing() -> None:
    from scipy.stats import rankdata

    rng = np.random.default_rng(7)
    rows = np.column_stack([rng.normal(size=100), rng.integers(0, 5, 100), np.full(100, 3.0)])
    rows[:10, 0] = np.nan
    found = grades(rows)
    for j in range(3):
        present = ~np.isnan(rows[:, j])
        expected = np.sqrt(12) * ((rankdata(rows[present, j]) - 0.5) / present.sum() - 0.5)
        assert found[present, j] == pytest.approx(expected, abs=1e-12)
    assert not found[:10, 0].any() and not found[:, 2].any()
    assert (grades(np.exp(rows)) == found).all()


def test_random_features_are_means_of_cosines() -> None:
    z, features = np.random.default_rng(8).normal(size=(50, 3)), features_of(3)
    dense = np.zeros((len(features.phases), 3))
    for k, columns in enumerate(features.columns):
        np.add.at(dense[k], columns, features.weights[k])
    assert means(z, *features) == pytest.approx(np.cos(z @ dense.T + features.phases).mean(axis=0))


def test_damaged_state_says_so() -> None:
    engine = JointEngine()
    states: KeyedStates[Any] = KeyedStates("joint", 0, engine.codec, {})
    engine.run(Decoder()(RecordBatch(TOPIC, 0, log(parted(9)[:5_000]))), states, TOPIC)
    [key] = states.keys()
    data = engine.codec.encode(key, states.entry(key).state)
    assert engine.codec.encode(key, engine.codec.decode(key, data)) == data
    for end in range(0, len(data), max(1, len(data) // 50)):
        with pytest.raises(ValueError, match="damaged"):
            engine.codec.decode(key, data[:end])
