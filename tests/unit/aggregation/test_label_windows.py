"""Windows of late labels: exact figures, whatever the cutting, and what comes too late or too early is kept aside."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from agents.aggregation import beside
from agents.aggregation.beside import BesideLabels
from agents.aggregation.labels import CLASSES
from dashboards.api.asking.quality import by_class, quality
from dashboards.api.asking.summary import Summary, merged
from schemas.telemetry import Feedback
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.windows.levels import LevelHead, read_level

BASE = 1_700_000_000_000 // 3_600_000 * 3_600_000
SUBJECT = {"environment": "prod", "model": "churn", "version": "1"}
_summary = msgspec.json.Decoder(Summary).decode


def label(at_ms: int, predicted: Any, true: Any, confidence: float | None = None, **more: Any) -> Feedback:
    return Feedback(**(SUBJECT | {"event_id": f"e{at_ms}", "ts": BASE + at_ms + 1_000_000_000,
                                  "predicted_at": BASE + at_ms, "prediction": predicted, "label": true,
                                  "confidence": confidence} | more))


class World:
    """One partition's windows of labels."""

    def __init__(self, rows: dict[str, dict[str, bytes]] | None = None, **settings: Any) -> None:
        self.labels = BesideLabels(Settings(**({"granularities_ms": (1_000, 60_000, 600_000)} | settings)))
        self.rows = {name: dict(found) for name, found in (rows or {}).items()}
        view: Any = SimpleNamespace(view=lambda number, agent: self.rows.setdefault(agent, {}))
        self.partition = Partition(0, 1, view, dict(self.labels.states()), SimpleNamespace())   # type: ignore[arg-type]
        self.newest: dict[str, LevelHead] = {}
        self.late: list[int] = []
        self.ahead: list[int] = []

    def take(self, found: list[Feedback], offset: int = 0, came_ms: int = 0) -> None:
        batch = RecordBatch("feedback", 0, [SimpleNamespace(offset=offset + at, timestamp=came_ms, key=b"", value=b"")
                                            for at in range(len(found))])
        windows, late, ahead = self.labels.run(batch, list(enumerate(found, offset)), self.partition, 1)
        self.late += late
        self.ahead += ahead
        self._read(windows)

    def close(self) -> None:
        self._read(self.labels.idle(self.partition, 100_000_000))

    def _read(self, windows: Any) -> None:
        for window in windows:
            found = read_level(window.value)
            if found.count >= self.newest.get(found.window_id, found).count:
                self.newest[found.window_id] = found

    def fields(self, size_ms: int, **series: str) -> dict[str, list[Summary]]:
        found: dict[str, list[Summary]] = defaultdict(list)
        for window in self.newest.values():
            if window.size_ms == size_ms and all(getattr(window, key) == value for key, value in series.items()):
                for name, raw in window.fields.items():
                    found[name].append(_summary(raw))
        return found


def drawn(count: int, classes: list[str], seed: int = 1) -> list[Feedback]:
    rng = np.random.default_rng(seed)
    found = []
    for at in range(count):
        true, sure = classes[rng.integers(len(classes))], float(rng.uniform(1 / len(classes), 1))
        right = rng.random() < sure
        others = [name for name in classes if name != true]
        found.append(label(at * 500, true if right else others[rng.integers(len(others))], true, sure))
    return found


@pytest.mark.parametrize("classes", [["no", "yes"], ["plan=no", "plan=yes"]])
@pytest.mark.parametrize("size", [60_000, 600_000])
def test_figures_of_two_classes_are_those_of_all_labels_at_once(size: int, classes: list[str]) -> None:
    found, world = drawn(3_000, classes), World()
    for first in range(0, len(found), 700):
        world.take(found[first:first + 700], first)
    world.close()
    told = quality(world.fields(size))
    true, said = [one.label for one in found], [one.prediction for one in found]
    sure = np.array([one.confidence for one in found], float)
    right = np.array([a == b for a, b in zip(true, said, strict=True)])
    assert told["accuracy"] == pytest.approx(right.mean())
    for name, exact in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert told[name] == pytest.approx(exact(true, said, average="macro"))
    of_yes = np.where(np.array(said) == classes[1], sure, 1 - sure)
    assert told["roc_auc"] == pytest.approx(roc_auc_score(np.array(true) == classes[1], of_yes), abs=2e-3)
    bins = np.minimum(19, (sure * 20).astype(int))
    expected = sum(abs(right[bins == at].sum() - sure[bins == at].sum()) for at in range(20)) / len(found)
    assert told["calibration_error"] == pytest.approx(expected)
    assert (told["bias"], told["root_mean_square_error"]) == (None, None)


def test_figures_of_many_classes_are_macro_means_and_have_no_roc_curve() -> None:
    found, world = drawn(2_000, ["a", "b", "c", "d"]), World()
    world.take(found)
    world.close()
    told = quality(world.fields(600_000))
    true, said = [one.label for one in found], [one.prediction for one in found]
    assert told["f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert told["roc_auc"] is None
    classes = by_class({name: merged(several) for name, several in world.fields(600_000).items()})
    assert sum(one["labels"] for one in classes.values()) == len(found)
    assert classes["c"]["recall"] == pytest.approx(recall_score(true, said, labels=["c"], average="macro"))


def test_numbers_have_errors() -> None:
    rng = np.random.default_rng(3)
    said, true = rng.normal(3, 2, 400).tolist(), rng.normal(2, 2, 400).tolist()
    world = World()
    world.take([label(at * 1_000, a, b) for at, (a, b) in enumerate(zip(said, true, strict=True))])
    world.close()
    told, errors = quality(world.fields(60_000)), np.array(said) - np.array(true)
    assert told["bias"] == pytest.approx(errors.mean())
    assert told["root_mean_square_error"] == pytest.approx(np.sqrt((errors ** 2).mean()))
    assert (told["accuracy"], told["f1"], told["calibration_error"], told["roc_auc"]) == (None,) * 4


def test_a_label_counts_in_the_window_of_its_prediction_and_not_where_that_is_unknown_before_it_came() -> None:
    world = World()
    world.take([label(0, "a", "a"), label(61_000, "a", "b"),
                label(5_000, "a", "a", ts=BASE + 3_000, predicted_at=None)])
    world.close()
    counts = {window.start_ms - BASE: window.count for window in world.newest.values() if window.size_ms == 60_000}
    assert counts == {0: 2, 60_000: 1}
    assert {window.level for window in world.newest.values()} == {"labels"}
    assert {window.size_ms for window in world.newest.values()} == {60_000, 600_000}, "none of a second"


def test_late_labels_amend_until_the_grace_is_over_and_are_then_kept_aside() -> None:
    world = World(label_grace_ms=300_000)
    world.take([label(at * 60_000, "a", "a") for at in range(5)])
    world.take([label(1_000, "a", "b")], 5)
    world.take([label(1_200_000, "a", "a"), label(2_000, "a", "b"), label(1_199_000, "a", "a")], 6)
    world.close()
    first = next(window for window in world.newest.values() if (window.size_ms, window.start_ms) == (60_000, BASE))
    assert (first.count, first.revision) == (2, 1)
    assert (world.late, world.ahead) == ([7], [])


def test_labels_of_a_time_that_has_not_come_do_not_make_the_others_late() -> None:
    world = World(max_ahead_ms=10_000)
    came = BASE + 100_000
    world.take([label(0, "a", "a", ts=came), label(900_000, "a", "a", ts=BASE + 900_000), label(1_000, "a", "b")], 10,
               came_ms=came)
    assert (world.late, world.ahead) == ([], [11])
    world.close()
    assert [window.count for window in world.newest.values() if window.size_ms == 60_000] == [2]


def test_classes_are_bounded_and_the_rest_is_one() -> None:
    world = World()
    world.take([label(at * 10, f"class {at % 60}", f"class {at % 60}", 0.5) for at in range(600)])
    world.close()
    names = {name for name in world.fields(600_000) if name.startswith("class=")}
    assert len(names) == CLASSES + 1
    assert "class=<other>" in names
    assert quality(world.fields(600_000))["accuracy"] == 1.0


def test_panes_that_have_left_memory_take_in_late_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "MOST_LIVE", 3)
    found = drawn(600, ["a", "b"])
    found += [label(at * 500 + 1, "a", "b", 0.7) for at in range(0, 600, 7)] + [label(9_000_000, "a", "a", model="end")]
    whole, small = World(), World()
    whole.take(found)
    for at in range(0, len(found), 50):
        small.take(found[at:at + 50], at)
        for frozen in small.partition.freeze():
            small.partition.written(frozen)
        small._read(small.labels.idle(small.partition, 1))
        assert len(small.partition.states("labels").live) <= 3 + 1
    assert small.partition.states("labels").returned > 3
    assert {key: (window.count, window.fields) for key, window in small.newest.items()} == {
        key: (window.count, window.fields) for key, window in whole.newest.items()}


@pytest.mark.parametrize("seed", range(4))
def test_cutting_and_restarts_change_no_window(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = drawn(400, ["a", "b", "c"], seed)
    order = np.argsort(np.arange(len(found)) + rng.uniform(0, 30, len(found))).tolist()
    found = [found[at] for at in order] + [label(3_000_000, "a", "a", model="last")]
    whole = World()
    whole.take(found)
    parts, at = World(), 0
    while at < len(found):
        size = int(rng.integers(1, 60))
        parts.take(found[at:at + size], at)
        at += size
        if rng.random() < 0.4:
            every = parts.partition.freeze()
            for frozen in every:
                parts.partition.written(frozen)
            again, at = World(parts.rows), max(0, at - int(rng.integers(0, 40)))     # as if the last were not acked
            again.newest = parts.newest
            parts = again
    assert {key: (window.count, window.fields) for key, window in parts.newest.items()} == {
        key: (window.count, window.fields) for key, window in whole.newest.items()}
