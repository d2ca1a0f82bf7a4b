"""A batch of telemetry through the detectors of its keys: pure, synchronous, the same however the stream is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.scoring import inputs as tables
from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.inputs import FEATURE, Inputs
from agents.scoring.state import DetectorCodec, DetectorState, ScoringOptions
from agents.scoring.truth import Worth, anomalous, named
from schemas.anomalies import Anomaly, Contribution
from schemas.telemetry import Feedback
from streams.batch import TelemetryBatch
from streams.state.keyed import Entry, KeyedStates

__all__ = ["DetectorState", "ScoringEngine", "ScoringOptions", "detector_key"]

#: Contributions that an anomaly shows.
MOST_CONTRIBUTIONS = 8
_MOST_ID = 128
Matrix = NDArray[np.float64]


def detector_key(environment: str, model: str, component: str) -> str:
    """The state's key: versions of a component share a detector, so that a new version is compared with the old."""
    return "\x1f".join((environment, model, component))


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
        #: Rows that are kept only need no more than that; with a budget the pace is measured by all rows.
        self._keeps = not options.alarm_budget

    def run(self, batch: TelemetryBatch, states: KeyedStates[DetectorState], topic: str) -> list[Anomaly]:
        """The batch's anomalies in log order. Rows that a key's fence includes are skipped."""
        if not len(batch):
            return []
        places: dict[str, int] = {}
        of_series = [places.setdefault(detector_key(series.environment, series.model, series.component), len(places))
                     for series in batch.keys]
        entries = states.entries(list(places))
        key_of_row = np.array(of_series, np.int64)[batch.series]
        self._skip(batch, key_of_row, entries, topic)
        inputs = Inputs(batch, key_of_row, [entry.state.detector for entry in entries])
        found: list[tuple[int, Anomaly]] = []
        active = [at for at in range(len(entries)) if inputs.bounds[at] < inputs.bounds[at + 1]]
        for at in active:
            found += self._score(batch, inputs, at, entries[at].state, topic)
        states.touch_all([entries[at] for at in active], topic, batch.last_offset)
        self.totals.rows += len(inputs.order)
        found.sort(key=lambda item: item[0])
        self.totals.anomalies += len(found)
        return [anomaly for _, anomaly in found]

    def _skip(self, batch: TelemetryBatch, key_of_row: NDArray[np.int64], entries: list[Entry[DetectorState]],
              topic: str) -> None:
        """Leave out the rows that their key's fence includes: their key is -1 then."""
        fences = np.array([entry.fence.get(topic, -1) for entry in entries], np.int64)
        if batch.offset[0] <= fences.max():
            skipped = batch.offset <= fences[key_of_row]
            key_of_row[skipped] = -1
            self.totals.skipped += int(skipped.sum())

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

    def _score(self, batch: TelemetryBatch, inputs: Inputs, at: int, state: DetectorState, topic: str
               ) -> list[tuple[int, Anomaly]]:
        """The anomalies among a key's rows, each with its row."""
        detector, truth, rows = state.detector, state.truth, inputs.rows(at)
        matrix = inputs.matrix(at, detector)
        if self._keeps and type(detector) is HalfSpaceTrees and detector.keep(matrix):
            return []
        if truth is not None and isinstance(detector, Ensemble):
            detector.trace = []
        scores, thresholds, pushes = self._advance(state, matrix, batch, rows)
        alarms = scores > thresholds
        if truth is not None and isinstance(detector, Ensemble) and detector.trace is not None:
            truth.remember([batch.event_ids[row] for row in rows.tolist()], np.concatenate(detector.trace), alarms)
            detector.trace = None
        return [(int(rows[i]), _anomaly(batch, int(rows[i]), topic, detector.name, float(scores[i]),
                                        float(thresholds[i]), contributions(detector.features, matrix[i], pushes[i])))
                for i in alarms.nonzero()[0].tolist()] if len(alarms) else []

    def _advance(self, state: DetectorState, matrix: Matrix, batch: TelemetryBatch, rows: NDArray[np.int64]
                 ) -> tuple[Matrix, Matrix, Matrix]:
        """Scores, thresholds and contributions; with a budget the threshold's quantile follows the key's pace."""
        threshold, budget = state.threshold, self.options.alarm_budget
        if not budget:
            return state.detector.advance(matrix, threshold.histogram, threshold.scalars)
        ts_ms, found = batch.ts_ms[rows], []
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
        tables.warm()


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
