"""Windows beside those of the series: of environments, of segments, of late labels; each an engine of its own.

All are the same engine over another view of the batch, with a state of its own in the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from agents.aggregation import labels, projection
from agents.aggregation.engine import AggregationEngine, AggregationOptions, AggregationResult
from agents.aggregation.hitters import Hitters
from agents.aggregation.names import FirstNames
from schemas.telemetry import Feedback
from streams.batch import TelemetryBatch
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.state.keyed import Codec
from streams.windows.layout import MAX_FIELDS
from streams.windows.levels import writer
from streams.windows.written import WrittenWindow

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
#: Panes of late labels in memory, of a partition; others wait in their rows until a label comes for them.
MOST_LIVE = 4_000
Engine = AggregationEngine[WrittenWindow]
Project = Callable[[TelemetryBatch, Partition, str], TelemetryBatch]


class Beside:
    """Windows of one level. `name` is that of its state; the names that it lets in are kept under `NAME.names`."""

    def __init__(self, name: str, engine: Engine, project: Project, names: Hitters | None = None) -> None:
        self.name = name
        self.engine = engine
        self._project = project
        self._names = names

    def states(self) -> list[tuple[str, Codec[Any]]]:
        """The states to declare: (name, codec). They are written in this order."""
        names = [] if self._names is None else [(f"{self.name}.names", self._names.codec)]
        return [(self.name, self.engine.codec), *names]

    def run(self, batch: TelemetryBatch, partition: Partition, topic: str, now_ms: int
            ) -> AggregationResult[WrittenWindow]:
        """What a batch closes or amends."""
        states = partition.states(self.name)        # before those of the names: rows are written in this order
        if not len(batch):
            return AggregationResult([], np.empty(0, np.int64))
        return self.engine.run(self._project(batch, partition, topic), states, topic, now_ms)

    def amend(self, partition: Partition) -> Sequence[WrittenWindow]:
        """As `AggregationEngine.amend`."""
        return self.engine.amend(partition.states(self.name))

    def idle(self, partition: Partition, now_ms: int, behind: bool = False) -> Sequence[WrittenWindow]:
        """What the clock closes; `behind` as in `AggregationEngine.idle`."""
        return self.engine.idle(partition.states(self.name), now_ms, behind)


def of_telemetry(settings: Settings) -> list[Beside]:
    """Those that are made of events."""
    options = AggregationOptions.from_settings(settings)
    found = [Beside("environments", AggregationEngine(options, writer("environment")),
                    lambda batch, *_: projection.environments(batch))] if settings.environment_windows else []
    coarse = replace(options, granularities_ms=settings.segment_granularities_ms, judged_ms=options.granularities_ms[0])
    for key in settings.segment_keys:
        names = Hitters(settings.segment_values, _slot_ms(coarse), coarse.grace_ms + coarse.delay_ms + coarse.judged_ms)
        found.append(Beside(f"segments.{key}", AggregationEngine(coarse, writer("segment")),
                            partial(_segments, key, names), names))
    return found


def _segments(key: str, names: Hitters, batch: TelemetryBatch, partition: Partition, topic: str) -> TelemetryBatch:
    return projection.segments(batch, key, names, partition.states(f"segments.{key}.names"), topic)


def _slot_ms(options: AggregationOptions) -> int:
    """For how long a segment's names stay: for its longest windows, but an hour at the most where there are shorter."""
    return max((size for size in options.granularities_ms if size <= HOUR_MS), default=options.granularities_ms[0])


class Cap:
    """Bounds the series of a partition; nothing is bounded where there is no bound."""

    name = "aggregation.names"

    def __init__(self, settings: Settings) -> None:
        self.most = settings.max_series
        self.names = FirstNames(max(1, self.most), _span_ms(AggregationOptions.from_settings(settings)))

    def __call__(self, batch: TelemetryBatch, partition: Partition) -> tuple[TelemetryBatch, int]:
        """As `projection.capped`. Ask for the engine's states before: rows are written in this order."""
        if not self.most:
            return batch, 0
        return projection.capped(batch, self.names, partition.states(self.name))


class BesideLabels:
    """Windows of late labels."""

    name = "labels"

    def __init__(self, settings: Settings) -> None:
        options = replace(AggregationOptions.from_settings(settings), max_fields=MAX_FIELDS,
                          max_categories=2 * labels.CLASSES,
                          granularities_ms=settings.label_granularities_ms, grace_ms=settings.label_grace_ms)
        self.engine: Engine = AggregationEngine(options, writer("labels"))
        self._names = FirstNames(labels.CLASSES, _span_ms(options))
        self._ahead_ms = settings.max_ahead_ms

    def states(self) -> list[tuple[str, Codec[Any]]]:
        """As `Beside.states`."""
        return [(self.name, self.engine.codec), (f"{self.name}.names", self._names.codec)]

    def run(self, batch: RecordBatch, found: Sequence[tuple[int, Feedback]], partition: Partition, now_ms: int
            ) -> tuple[Sequence[WrittenWindow], list[int], list[int]]:
        """What late labels close or amend; the offsets of those that come too late, and of those from the future."""
        states = partition.states(self.name)
        ahead = self._ahead(batch, found)
        rest = [item for item, early in zip(found, ahead, strict=True) if not early]
        early = [offset for (offset, _), early in zip(found, ahead, strict=True) if early]
        if not rest:
            return [], [], early
        rows = labels.columns(batch, rest, self._names, partition.states(f"{self.name}.names"))
        result = self.engine.run(rows, states, batch.topic, now_ms)
        return result.windows, rows.offset[result.too_late].tolist(), early

    def amend(self, partition: Partition) -> Sequence[WrittenWindow]:
        """As `Beside.amend`."""
        return self.engine.amend(partition.states(self.name))

    def idle(self, partition: Partition, now_ms: int, behind: bool = False) -> Sequence[WrittenWindow]:
        """As `Beside.idle`. The grace is long, so panes that have not changed of late leave memory."""
        states = partition.states(self.name)
        states.shrink(MOST_LIVE)
        return self.engine.idle(states, now_ms, behind)

    def _ahead(self, batch: RecordBatch, found: Sequence[tuple[int, Feedback]]) -> list[bool]:
        """Which labels are of predictions later than they came themselves: such would make the others too late."""
        if not self._ahead_ms:
            return [False] * len(found)
        log = batch.columns
        came_ms = log.timestamp[np.searchsorted(log.offset, [offset for offset, _ in found])].tolist()
        return [0 < came < labels.predicted_ms(label) - self._ahead_ms
                for came, (_, label) in zip(came_ms, found, strict=True)]


def _span_ms(options: AggregationOptions) -> int:
    """The span of names: a day, or longer where a window or what comes late for it is."""
    return max(DAY_MS, options.granularities_ms[-1], 2 * (options.grace_ms + options.delay_ms))
