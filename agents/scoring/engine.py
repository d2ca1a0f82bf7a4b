"""A batch of telemetry through the detectors of its keys: pure, synchronous, the same however the stream is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.scoring import columns
from agents.scoring.detectors.clocked import TIME, Clocked
from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.detectors.registry import Made
from agents.scoring.state import CONFIDENCE, DetectorCodec, DetectorState, ScoringOptions
from agents.scoring.truth import Worth, anomalous, named
from schemas.anomalies import Anomaly, Contribution
from schemas.telemetry import Feedback
from streams.batch import TelemetryBatch
from streams.state.keyed import Entry, KeyedStates

__all__ = ["DetectorState", "ScoringEngine", "ScoringOptions", "detector_key"]

FEATURE = "feature."
#: Contributions that an anomaly shows.
MOST_CONTRIBUTIONS = 8
_MOST_ID = 128
Matrix = NDArray[np.float64]


def detector_key(environment: str, model: str, component: str) -> str:
    """The state's key: versions of a component share a detector, so that a new version is compared with the old."""
    return "\x1f".join((environment, model, component))


def is_input(field: str) -> bool:
    """True for the fields that are scored: numeric features, and confidence. Categories (NAME=VALUE) are not."""
    return field == CONFIDENCE or (field.startswith(FEATURE) and "=" not in field)


@dataclass(slots=True)
class Totals:
    """What the engine has done since it started."""

    rows: int = 0
    skipped: int = 0
    anomalies: int = 0


class ScoringEngine:
    """Scores, judges and learns each event of a batch in log order, under the detector of its key."""

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options
        self.codec = DetectorCodec(options)
        self.totals = Totals()

    def run(self, batch: TelemetryBatch, states: KeyedStates[DetectorState], topic: str) -> list[Anomaly]:
        """The batch's anomalies in log order. Rows that a key's fence includes are skipped."""
        if not len(batch):
            return []
        view = _View.of(batch)
        found: list[tuple[int, Anomaly]] = []
        for key, rows in view.by_key():
            entry = states.entry(key)
            fence = entry.fence.get(topic, -1)
            if entry.includes(topic, int(batch.offset[rows[0]])):
                fresh = rows[np.searchsorted(batch.offset[rows], fence, side="right"):]
                self.totals.skipped += len(rows) - len(fresh)
                rows = fresh
            if len(rows):
                found += self._score(view, entry, rows, topic)
                states.touch(entry, topic, batch.last_offset)
        found.sort(key=lambda item: item[0])
        self.totals.anomalies += len(found)
        return [anomaly for _, anomaly in found]

    def learn_labels(self, labels: Sequence[tuple[int, Feedback]], states: KeyedStates[DetectorState], topic: str
                     ) -> dict[str, Mapping[str, Worth]]:
        """Take in late labels, (offset, label) in log order; the ensembles' weights follow.

        Returns what the detectors of each model that got a label are worth now. Nothing without `follow_labels`.
        """
        found: dict[str, Mapping[str, Worth]] = {}
        for offset, label in labels if self.options.follow_labels else ():
            entry = states.entry(detector_key(label.environment, label.model, label.component))
            truth, detector, verdict = entry.state.truth, entry.state.detector, anomalous(label)
            if entry.includes(topic, offset) or truth is None or not isinstance(detector, Ensemble):
                continue
            if verdict is not None and truth.label(label.event_id, verdict):
                detector.weights = truth.weights()
                found[label.model] = named(truth.worth(), [member.name for member in detector.members])
            states.touch(entry, topic, offset)
        return found

    def _score(self, view: _View, entry: Entry[DetectorState], rows: NDArray[np.int64], topic: str
               ) -> list[tuple[int, Anomaly]]:
        detector = entry.state.detector
        matrix = view.matrix(rows, detector)
        truth = entry.state.truth
        if truth is not None and isinstance(detector, Ensemble):
            detector.trace = []
        scores, thresholds, pushes = self._advance(entry.state, matrix, view.batch.ts_ms[rows])
        if truth is not None and isinstance(detector, Ensemble) and detector.trace is not None:
            truth.remember([view.batch.event_ids[row] for row in rows.tolist()], np.concatenate(detector.trace),
                           scores > thresholds)
            detector.trace = None
        self.totals.rows += len(rows)
        return [(int(rows[i]), _anomaly(view.batch, int(rows[i]), topic, detector.name, float(scores[i]),
                                        float(thresholds[i]), contributions(detector.features, matrix[i], pushes[i])))
                for i in np.flatnonzero(scores > thresholds)]

    def _advance(self, state: DetectorState, matrix: Matrix, ts_ms: NDArray[np.int64]
                 ) -> tuple[Matrix, Matrix, Matrix]:
        """Scores, thresholds and contributions; with a budget the threshold's quantile follows the key's pace."""
        threshold, budget = state.threshold, self.options.alarm_budget
        if not budget:
            return state.detector.advance(matrix, threshold.histogram, threshold.scalars)
        found = []
        for part in state.pace.parts(len(matrix)):
            found.append(state.detector.advance(matrix[part], threshold.histogram, threshold.scalars))
            if state.pace.note(ts_ms[part]):
                threshold.aim(1.0 - state.pace.share(budget))
        scores, thresholds, pushes = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(thresholds), np.concatenate(pushes)

    def warm(self) -> None:
        """Compile, or load from the cache, every kernel. Call it before the worker joins its group."""
        state = self.codec.new("")
        for name in ("a", "b"):
            state.detector.column(name)
        n = 2 * self.options.window if isinstance(state.detector, HalfSpaceTrees) else 320
        rows = np.random.default_rng(0).random((n + 160, 2))
        rows[-2:] = np.nan, 1e6
        state.detector.advance(rows, state.threshold.histogram, state.threshold.scalars)
        state.detector.score_one({"a": 0.5})
        if isinstance(state.detector, Ensemble):
            state.detector.explain_rows(rows[-2:])
            state.detector.explain_roughly(rows[-2:])
        self.codec.decode("", self.codec.encode("", state))
        order, bounds = columns.group(np.zeros(1, np.int64), 1)
        start, field, value = np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1)
        columns.distinct(order, start, field, np.ones(1, np.bool_), np.full(1, -1), 0)
        columns.scatter(order, start, field, value, bounds[:1], 1)


class _View:
    """A batch by detector key."""

    def __init__(self, batch: TelemetryBatch, keys: list[str], of_series: NDArray[np.int64]) -> None:
        self.batch = batch
        self.keys = keys
        self.order, self.bounds = columns.group(of_series[batch.series], len(keys))
        self.wanted = np.array([is_input(name) for name in batch.fields], np.bool_)
        self.seen = np.full(len(batch.fields), -1, np.int64)
        self.column = np.full(len(batch.fields), -1, np.int64)
        self.mark = 0

    @classmethod
    def of(cls, batch: TelemetryBatch) -> _View:
        places: dict[str, int] = {}
        of_series = [places.setdefault(detector_key(series.environment, series.model, series.component), len(places))
                     for series in batch.keys]
        return cls(batch, list(places), np.array(of_series, np.int64))

    def by_key(self) -> list[tuple[str, NDArray[np.int64]]]:
        """(key, its rows in log order)."""
        bounds = self.bounds.tolist()
        return [(key, self.order[bounds[i]:bounds[i + 1]]) for i, key in enumerate(self.keys)
                if bounds[i] < bounds[i + 1]]

    def matrix(self, rows: NDArray[np.int64], detector: Made) -> NDArray[np.float64]:
        """The rows' inputs (n, k) in the detector's columns; new features get theirs by first appearance."""
        batch = self.batch
        self.mark += 1
        clock = detector.column(TIME) if isinstance(detector, Clocked) else -1
        fields = columns.distinct(rows, batch.start, batch.field, self.wanted, self.seen, self.mark)
        for field in fields.tolist():
            self.column[field] = detector.column(batch.fields[field])
        matrix: NDArray[np.float64] = columns.scatter(rows, batch.start, batch.field, batch.value, self.column,
                                                      len(detector.columns))
        if clock >= 0:
            matrix[:, clock] = batch.ts_ms[rows]
        self.column[fields] = -1
        return matrix


def contributions(names: list[str], row: Matrix, pushes: Matrix) -> list[Contribution]:
    """The features that pushed a score most, with their shares of the whole push; largest first."""
    total = float(pushes.sum())
    if not total > 0.0:
        return []
    first = np.argsort(-pushes, kind="stable")[:MOST_CONTRIBUTIONS]
    return [Contribution(feature=names[i].removeprefix(FEATURE), value=None if np.isnan(row[i]) else float(row[i]),
                         share=min(1.0, float(pushes[i]) / total))
            for i in first.tolist() if pushes[i] > 0.0]


def _anomaly(batch: TelemetryBatch, row: int, topic: str, detector: str, score: float, threshold: float,
             pushed: list[Contribution]) -> Anomaly:
    series = batch.keys[batch.series[row]]
    offset, position = int(batch.offset[row]), int(batch.position[row])
    return Anomaly(
        anomaly_id=f"a-{topic}-{batch.partition}-{offset}-{position}-{int(batch.ts_ms[row])}"[-_MOST_ID:],
        environment=series.environment, model=series.model, version=series.version, component=series.component,
        event_id=batch.event_ids[row], trace_id=batch.trace_ids[row], ts=int(batch.ts_ms[row]), detector=detector,
        score=score, threshold=threshold, contributions=pushed, partition=batch.partition, offset=offset,
        position=position)
