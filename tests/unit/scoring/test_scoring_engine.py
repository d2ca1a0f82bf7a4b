"""The engine: bytes of telemetry in, anomalies out, the same however the stream is cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_wine

from agents.scoring.engine import DetectorState, ScoringEngine, ScoringOptions, detector_key
from schemas.anomalies import Anomaly
from streams.batch import Decoder
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.keyed import KeyedStates

TOPIC = "telemetry"
WINDOW = 40
NAMES = [name.replace("/", "_") for name in load_wine().feature_names]
OPTIONS = ScoringOptions(trees=10, height=6, window=WINDOW, threshold_quantile=0.99)
SERIES = ScoringOptions(threshold_quantile=0.99, detectors=("time_series",))


class Record(NamedTuple):
    offset: int
    value: bytes
    timestamp: int = 0
    key: bytes | None = None


def event(i: int, features: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"event_id": f"e{i}", "ts": 1_700_000_000_000 + i, "environment": "prod", "model": "wine", "version": "v1",
            "prediction": "1", "confidence": 0.9, "features": features, "trace_id": f"t{i}", **other}


def wine_features(n: int, seed: int) -> list[dict[str, Any]]:
    rng, x = np.random.default_rng(seed), load_wine().data
    found = x[rng.integers(0, len(x), n)] + rng.standard_normal((n, x.shape[1])) * x.std(axis=0) * 0.02
    return [dict(zip(NAMES, row, strict=True)) for row in found.tolist()]


def records(events: list[Any], first: int = 0) -> list[Record]:
    return [Record(first + i, json.dumps(body).encode()) for i, body in enumerate(events)]


def fresh(engine: ScoringEngine, snapshots: dict[str, bytes] | None = None) -> KeyedStates[DetectorState]:
    return KeyedStates("scoring", 3, engine.codec, {} if snapshots is None else snapshots)


def run(engine: ScoringEngine, states: KeyedStates[DetectorState], log: list[Record]) -> list[Anomaly]:
    return engine.run(Decoder()(RecordBatch(TOPIC, 3, log)), states, TOPIC)


def troubled_log() -> list[Record]:
    """Three models and two versions in turn; incidents, a feature that comes late, one that goes, arrays, text."""
    rng, events = np.random.default_rng(8), []
    for i, features in enumerate(wine_features(1500, 1)):
        if 600 <= i < 700:
            features["proline"] *= 1000
        if 900 <= i < 960:
            features["alcohol"] = None
        if i >= 800:
            features["late"] = float(rng.random())
        if i >= 1200:
            del features["ash"]
        features["colour"] = "red" if i % 3 else "white"
        events.append(event(i, features, model=f"m{i % 3}", version=f"v{i % 2}",
                            **({"error": "boom", "confidence": None} if i % 97 == 0 else {})))
    bodies: list[Any] = events[:1000] + [events[i:i + 5] for i in range(1000, 1500, 5)]
    return records(bodies)


def spiky_log() -> list[Record]:
    """Two models, one minute apart; a spike in each now and then; a feature that comes late."""
    events = []
    for i, features in enumerate(wine_features(1500, 1)):
        if i % 97 == 0 and i >= 700:
            features["proline"] *= 1000 + i
        if i >= 800:
            features["late"] = float(i % 7)
        events.append(event(i, features, model=f"m{i % 2}", ts=1_700_000_000_000 + i * 60_000))
    return records(events)


@pytest.mark.parametrize("options, make_log, least", [(OPTIONS, troubled_log, 50), (SERIES, spiky_log, 4)],
                         ids=["trees", "series"])
def test_cutting_the_stream_restoring_snapshots_and_evicting_keys_changes_no_anomaly(
        options: ScoringOptions, make_log: Callable[[], list[Record]], least: int) -> None:
    log, rng = make_log(), np.random.default_rng(2)
    engine = ScoringEngine(options)
    whole_states = fresh(engine)
    whole = run(engine, whole_states, log)
    assert len(whole) >= least
    for _ in range(6):
        snapshots: dict[str, bytes] = {}
        states, found = fresh(engine, snapshots), []
        for part in np.split(np.arange(len(log)), np.sort(rng.integers(1, len(log), 15))):
            if len(part):
                found += run(engine, states, [log[i] for i in part])
            if rng.random() < 0.5:
                states.written(states.freeze(1))
                if rng.random() < 0.5:
                    assert states.shrink(1)
                else:
                    states = fresh(engine, snapshots)
        assert found == whole
        states.written(states.freeze(1))
        whole_states.dirty.update(whole_states.live)
        assert dict(whole_states.freeze(1).puts) == snapshots


def test_records_read_again_after_a_crash_are_scored_once() -> None:
    log = troubled_log()
    engine = ScoringEngine(OPTIONS)
    whole = run(engine, fresh(engine), log)
    snapshots: dict[str, bytes] = {}
    states = fresh(engine, snapshots)
    found = run(engine, states, log[:500]) + run(engine, states, log[500:520])
    states.written(states.freeze(1))
    again = fresh(engine, snapshots)
    found += run(engine, again, log[300:510]) + run(engine, again, log[400:])
    assert found == whole
    assert engine.totals.skipped == 210 + 120


def test_each_key_skips_by_its_own_fence() -> None:
    log = records([event(i, features, model=f"m{i % 2}") for i, features in enumerate(wine_features(100, 1))])
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine)
    run(engine, states, [record for record in log if record.offset % 2 == 0])
    before = engine.totals.rows
    run(engine, states, log)
    assert (before, engine.totals.rows, engine.totals.skipped) == (50, 100, 50)


def test_an_anomaly_names_the_culprit_and_finds_its_event_again() -> None:
    features = wine_features(400, 1)
    features[380]["proline"] *= 1000
    engine = ScoringEngine(OPTIONS)
    found = {anomaly.offset: anomaly for anomaly in run(engine, fresh(engine), records(
        [event(i, each) for i, each in enumerate(features)], first=7))}
    anomaly = found[387]
    assert anomaly.anomaly_id == "a-telemetry-3-387-0-1700000000380"
    assert (anomaly.event_id, anomaly.trace_id, anomaly.ts) == ("e380", "t380", 1_700_000_000_380)
    assert (anomaly.environment, anomaly.model, anomaly.version, anomaly.component) == ("prod", "wine", "v1", "model")
    assert anomaly.score > anomaly.threshold
    assert anomaly.contributions[0].feature == "proline"
    assert anomaly.contributions[0].value == features[380]["proline"]
    assert anomaly.contributions[0].share > 0.5
    assert len(anomaly.contributions) <= 8
    assert sum(each.share for each in anomaly.contributions) <= 1.0 + 1e-12
    shares = [each.share for each in anomaly.contributions]
    assert shares == sorted(shares, reverse=True)


def test_in_a_long_incident_every_anomaly_still_names_the_culprit() -> None:
    features = wine_features(800, 1)
    for each in features[500:]:
        each["proline"] = None
    engine = ScoringEngine(OPTIONS)
    found = [a for a in run(engine, fresh(engine), records([event(i, each) for i, each in enumerate(features)]))
             if a.offset >= 500]
    assert len(found) == 300
    assert {(a.contributions[0].feature, a.contributions[0].value) for a in found} == {("proline", None)}


def test_nothing_is_an_anomaly_during_the_warm_up() -> None:
    features = wine_features(WINDOW + 99, 1)
    for each in features[1::2]:
        each["proline"] *= 1e6
    engine = ScoringEngine(OPTIONS)
    assert run(engine, fresh(engine), records([event(i, each) for i, each in enumerate(features)])) == []


def test_versions_share_a_detector_and_components_do_not() -> None:
    events = [event(i, each, version=f"v{i % 4}", component=("model", "ranker")[i % 2])
              for i, each in enumerate(wine_features(40, 1))]
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine)
    run(engine, states, records(events))
    assert sorted(states.keys()) == [detector_key("prod", "wine", "model"), detector_key("prod", "wine", "ranker")]


def test_categories_and_latency_are_no_inputs() -> None:
    events = [event(i, {"a": 1.0 * i, "b": "text", "c=d": 2.0}, latency_ms=3.0, metrics={"m": 1.0}) for i in range(5)]
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine)
    run(engine, states, records(events))
    detector = states.entry(detector_key("prod", "wine", "model")).state.detector
    assert detector.features == ["confidence", "feature.a"]


def test_a_batch_of_rejected_records_alone_touches_nothing() -> None:
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine)
    assert run(engine, states, [Record(0, b"{"), Record(1, b"")]) == []
    assert not states.live


def test_a_snapshot_of_other_settings_warms_up_again() -> None:
    log = records([event(i, each) for i, each in enumerate(wine_features(200, 1))])
    snapshots: dict[str, bytes] = {}
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine, snapshots)
    run(engine, states, log)
    states.written(states.freeze(1))
    other = ScoringEngine(ScoringOptions(trees=10, height=6, window=WINDOW + 1, threshold_quantile=0.99))
    entry = fresh(other, snapshots).entry(detector_key("prod", "wine", "model"))
    assert not entry.state.detector.ready
    assert entry.includes(TOPIC, 199)
    assert fresh(engine, snapshots).entry(entry.key).state.detector.ready


@pytest.mark.parametrize("cut", [0, 3, 40, 500, -1])
def test_a_snapshot_that_is_cut_short_is_refused(cut: int) -> None:
    engine = ScoringEngine(OPTIONS)
    states = fresh(engine)
    run(engine, states, records([event(i, each) for i, each in enumerate(wine_features(200, 1))]))
    (entry,) = states.live.values()
    data = engine.codec.encode(entry.key, entry.state)
    with pytest.raises(ValueError):
        engine.codec.decode(entry.key, data[:cut])


def test_nothing_is_compiled_after_warm_up() -> None:
    code = """
import sys; sys.path[:0] = ["tests/unit/scoring"]
import test_scoring_engine as t
from agents.scoring import columns
from agents.scoring.detectors import kernels, threshold_kernels, tree_kernels
modules = columns, kernels, threshold_kernels, tree_kernels
def count(): return sum(len(each.signatures) for module in modules for each in vars(module).values()
                        if hasattr(each, "signatures"))
engine = t.ScoringEngine(t.OPTIONS); engine.warm(); warm = count()
states = t.fresh(engine, snapshots := {})
t.run(engine, states, t.troubled_log()[:700]); states.written(states.freeze(1))
t.run(engine, t.fresh(engine, snapshots), t.troubled_log())
assert warm >= 8 and count() == warm, (warm, count())
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert done.returncode == 0, done.stderr


def test_nor_is_it_for_any_detector() -> None:
    code = """
import sys; sys.path[:0] = ["tests/unit/scoring"]
import test_scoring_engine as t
from agents.scoring import columns
from agents.scoring.detectors import (autoencoder, forest_kernels, kernels, registry, sample_kernels,
                                       threshold_kernels, tree_kernels)
from agents.scoring.state import ScoringOptions
modules = columns, kernels, autoencoder, forest_kernels, sample_kernels, threshold_kernels, tree_kernels
def count(): return {name: len(each.signatures) for module in modules for name, each in vars(module).items()
                     if hasattr(each, "signatures")}
names = tuple(registry.REGISTRY)
engine = t.ScoringEngine(ScoringOptions(trees=4, height=4, window=64, detectors=names)); engine.warm(); warm = count()
states = t.fresh(engine, snapshots := {})
t.run(engine, states, t.troubled_log()[:700]); states.written(states.freeze(1))
assert t.run(engine, t.fresh(engine, snapshots), t.troubled_log())
assert count() == warm, {name: (n, warm.get(name)) for name, n in count().items() if n != warm.get(name)}
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["time_series", "holt_winters"])
def test_detectors_of_series_are_given_the_time_of_the_events(name: str) -> None:
    """A load that is usual at noon comes at midnight."""
    load = 50.0 + 30.0 * np.sin(2.0 * np.pi * np.arange(12 * 288) / 288)
    load += np.random.default_rng(1).standard_normal(len(load)) * 2.0
    midnight = 11 * 288 + 216
    load[midnight:midnight + 12] = load[midnight - 144:midnight - 132]
    log = records([event(i, {"load": float(value)}) | {"ts": 1_700_000_000_000 + i * 300_000, "confidence": None}
                   for i, value in enumerate(load)])
    engine = ScoringEngine(ScoringOptions(threshold_quantile=0.999, detectors=(name,)))
    engine.warm()
    found = [anomaly for anomaly in run(engine, fresh(engine), log) if anomaly.offset >= midnight - 96]
    assert found and {anomaly.detector for anomaly in found} == {name}
    assert all(midnight <= anomaly.offset < midnight + 48 for anomaly in found)
    assert found[0].contributions[0].feature == "load"
    assert "ts_ms" not in {each.feature for anomaly in found for each in anomaly.contributions}


@pytest.mark.parametrize("name", ["time_series", "holt_winters"])
def test_detectors_of_series_work_alone(name: str) -> None:
    with pytest.raises(ValueError, match="works alone"):
        ScoringEngine(ScoringOptions(detectors=(name, "loda"))).warm()


def test_options_come_from_the_settings() -> None:
    settings = Settings(hst_trees=3, hst_height=4, hst_window=5, threshold_quantile=0.75, seed=6)
    assert ScoringOptions.from_settings(settings) == ScoringOptions(3, 4, 5, 0.75, 6)


def test_long_topic_names_keep_ids_within_their_bound() -> None:
    features = wine_features(300, 1)
    features[-1]["proline"] *= 1000
    engine = ScoringEngine(OPTIONS)
    batch = Decoder()(RecordBatch("t" * 200, 3, records([event(i, each) for i, each in enumerate(features)])))
    found = engine.run(batch, fresh(engine), "t" * 200)
    assert found[-1].anomaly_id.endswith("-3-299-0-1700000000299")
    assert len(found[-1].anomaly_id) == 128
