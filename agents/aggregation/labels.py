"""Late labels as a batch: each a row of its series at the time of the prediction that it judges.

What a window of them must tell (accuracy, precision, recall, F1, ROC-AUC, calibration, the error of numbers) is made of
sums and sketches, so that windows merge; see `schemas.windows.LevelWindow` for the fields. `confidence` is that of the
predicted class, so of two classes it tells that of either: log-odds of the true one, whose sign turns with the class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from agents.aggregation.names import FirstNames, States, printable
from schemas.telemetry import Feedback
from streams.batch import SeriesKey, TelemetryBatch
from streams.lean.reader import Texts
from streams.records import RecordBatch

#: Bins of confidence, and the most log-odds: that of a confidence of 1 - 1e-9.
BINS, SUREST = 20, math.log((1 - 1e-9) / 1e-9)
#: Classes of a component that have a name, a day.
CLASSES = 32
#: Residuals are held within this, so that their squares and sums stay finite.
LARGEST = 1e100


def predicted_ms(label: Feedback) -> int:
    """When the prediction was made, as far as is known."""
    return label.ts if label.predicted_at is None else min(label.predicted_at, label.ts)


def columns(batch: RecordBatch, found: Sequence[tuple[int, Feedback]], names: FirstNames, states: States
            ) -> TelemetryBatch:
    """Late labels, (offset, label) in log order, as the rows of a batch."""
    keys: dict[SeriesKey, int] = {}
    fields: dict[str, int] = {}
    series, start, field, value = list[int](), [0], list[int](), list[float]()
    for _, label in found:
        key = SeriesKey(label.environment, label.model, label.version, label.component)
        series.append(keys.setdefault(key, len(keys)))
        for name, number in _values(label, names, states):
            field.append(fields.setdefault(name, len(fields)))
            value.append(number)
        start.append(len(field))
    nothing = Texts(np.empty(0, np.uint8), np.full((len(found), 2), -1, np.int64), {})
    return TelemetryBatch(
        partition=batch.partition, first_offset=batch.first_offset, last_offset=batch.last_offset,
        offset=np.array([offset for offset, _ in found], np.int64), position=np.zeros(len(found), np.int64),
        ts_ms=np.array([predicted_ms(label) for _, label in found], np.int64), series=np.array(series, np.int32),
        error=np.zeros(len(found), np.bool_), start=np.array(start, np.int64), field=np.array(field, np.int32),
        value=np.array(value, np.float64), keys=list(keys), fields=list(fields), event_ids=nothing, trace_ids=nothing,
        rejected=[])


def _values(label: Feedback, names: FirstNames, states: States) -> Iterator[tuple[str, float]]:
    predicted, true = label.prediction, label.label
    if isinstance(predicted, float) and isinstance(true, float):
        yield "error", max(-LARGEST, min(LARGEST, predicted - true))
        return
    family, span = (label.environment, label.model, label.component), predicted_ms(label) // names.span_ms
    said, was = (names.name(states, family, span, printable(str(one))) for one in (predicted, true))
    right = predicted == true
    yield "correct", float(right)
    yield f"class={said}", float(right)
    if not right:
        yield f"class={was}", math.nan
    if label.confidence is not None:
        sure = label.confidence
        yield f"{'right' if right else 'wrong'}={min(BINS - 1, int(sure * BINS)):02d}", sure
        odds = SUREST if sure >= 1 else -SUREST if sure <= 0 else max(-SUREST, min(SUREST, math.log(sure / (1 - sure))))
        yield f"log_odds.{was.replace('=', ':')}", odds if right else -odds      # with an = it would be a category
