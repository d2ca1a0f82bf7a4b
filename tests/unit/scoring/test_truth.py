"""Late labels: what detectors are worth by them, and weights that follow, exactly as told and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.engine import ScoringEngine, ScoringOptions, detector_key
from agents.scoring.truth import REMEMBERED, Truth, anomalous
from schemas.telemetry import Feedback
from streams.batch import Decoder
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates

import msgspec
from types import SimpleNamespace

TOPIC, LABELS = "telemetry", "feedback"


def label(event_id: str, prediction: object = "yes", true: object = "yes") -> Feedback:
    return Feedback(event_id=event_id, ts=1_700_000_000_000, environment="prod", model="wine", version="1",
                    prediction=prediction, label=true)


def filled(n: int, seed: int) -> tuple[Truth, np.ndarray, np.ndarray]:
    """A member that knows, one that does not, and their mean as the ensemble; all labelled, some late."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.1
    surprises = np.column_stack((rng.exponential(size=n) + 3.0 * y, rng.exponential(size=n)))
    surprises = np.column_stack((surprises, surprises.mean(axis=1)))
    truth = Truth(2)
    for start in range(0, n, 100):
        part = slice(start, start + 100)
        truth.remember([f"e{i}" for i in range(n)[part]], surprises[part], surprises[part, 2] > 2.5)
        late = range(max(0, start - 300), max(0, start - 200))
        assert all(truth.label(f"e{i}", bool(y[i])) for i in late)
    return truth, y[:n - 300], surprises[:n - 300]


def test_figures_are_those_of_all_labels() -> None:
    truth, y, surprises = filled(3_000, 1)
    for i, worth in enumerate(truth.worth()):
        assert worth.roc_auc == pytest.approx(roc_auc_score(y, surprises[:, i]), abs=0.03)
    alarms = surprises[:, 2] > 2.5
    assert truth.worth()[2].precision == pytest.approx((alarms & y).sum() / alarms.sum())
    assert truth.worth()[2].recall == pytest.approx((alarms & y).sum() / y.sum())


def test_weights_follow_the_member_that_knows() -> None:
    assert Truth(2).weights().tolist() == [0.5, 0.5]
    weights = filled(3_000, 2)[0].weights()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.8


def test_a_label_counts_once_and_only_for_what_is_remembered() -> None:
    truth = Truth(1)
    assert not truth.label("never", True)
    truth.remember([f"e{i}" for i in range(REMEMBERED + 10)], np.ones((REMEMBERED + 10, 2)),
                   np.zeros(REMEMBERED + 10, bool))
    assert not truth.label("e0", True)
    assert truth.label("e500", True) and not truth.label("e500", True)
    for i in range(5):
        truth.remember([f"f{i}-{j}" for j in range(700)], np.ones((700, 2)), np.zeros(700, bool))
        assert len(truth.ids) <= REMEMBERED
        assert len(set(truth.ids.values())) == len(truth.ids), "no two events share a place"
        truth.label(f"f{i}-650", False)


def test_a_snapshot_continues_alike_and_a_broken_one_is_refused() -> None:
    truth = filled(1_500, 3)[0]
    again = Truth.decode(truth.encode(), 2)
    assert again.encode() == truth.encode() and again.worth() == truth.worth()
    with pytest.raises(ValueError):
        Truth.decode(truth.encode()[:-1], 2)
    with pytest.raises(ValueError):
        Truth.decode(truth.encode(), 3)


@pytest.mark.parametrize(("prediction", "true", "verdict"), [
    ("yes", "anomaly", True), ("yes", "Normal", False), ("yes", "no", True), ("yes", "yes", False), (1.0, 2.0, None)])
def test_what_a_label_says_of_its_event(prediction: object, true: object, verdict: bool | None) -> None:
    assert anomalous(label("e", prediction, true)) is verdict


def test_an_engine_that_follows_labels_weighs_its_members_by_them() -> None:
    engine = ScoringEngine(ScoringOptions(detectors=("ensemble",), follow_labels=True))
    snapshots: dict[str, bytes] = {}
    states = KeyedStates("scoring", 0, engine.codec, snapshots)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1_500, 2))
    bad = np.flatnonzero(rng.random(1_500) < 0.05)
    bad = bad[bad > 600]
    x[bad, 0], x[bad, 1] = 1.5, -1.5
    x[:, 1] = np.where(np.isin(np.arange(1_500), bad), x[:, 1], x[:, 0] + 0.1 * x[:, 1])     # only correlation tells
    bodies = [msgspec.json.encode({"event_id": f"e{i}", "ts": 1_700_000_000_000 + i, "environment": "prod",
                                   "model": "wine", "version": "1", "features": {"a": row[0], "b": row[1]}})
              for i, row in enumerate(x.tolist())]
    records = [SimpleNamespace(offset=i, timestamp=0, key=b"", value=body) for i, body in enumerate(bodies)]
    key = detector_key("prod", "wine", "model")
    for start in range(0, 1_500, 250):
        engine.run(Decoder()(RecordBatch(TOPIC, 0, records[start:start + 250])), states, TOPIC)
        said = [(i, label(f"e{i}", true="anomaly" if i in set(bad) else "normal"))
                for i in range(max(600, start), start + 250)]
        found = engine.learn_labels(said, states, LABELS)
        assert not engine.learn_labels(said, states, LABELS), "a fence keeps labels from counting twice"
    detector = states.entry(key).state.detector
    assert isinstance(detector, Ensemble)
    by = dict(zip([member.name for member in detector.members], detector.weights, strict=True))
    assert by["robust_covariance"] > 0.3 > by["tail_probability"]
    assert found["wine"]["robust_covariance"].roc_auc > 0.95 > found["wine"]["tail_probability"].roc_auc
    states.written(states.freeze(1))
    restored = KeyedStates("scoring", 0, engine.codec, snapshots).entry(key).state
    assert restored.detector.weights.tolist() == detector.weights.tolist()
    assert restored.truth.worth() == states.entry(key).state.truth.worth()
