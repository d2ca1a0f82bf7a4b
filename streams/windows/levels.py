"""Windows beside those of the series, as they travel: the contract `LevelWindow`, read and written as `record` does.

A pane belongs to a `SeriesKey` of four names. A segment's has its KEY=VALUE behind the component's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import msgspec

from schemas.windows import Level, LevelWindow, series_digest
from streams.batch import SeriesKey
from streams.windows.panes import Pane, PaneKey
from streams.windows.record import SummaryRecord, Window
from streams.windows.written import Closed, WrittenWindow, described

#: Between a component and a segment; in neither of them.
MARK = "\x1e"
_Segment = Annotated[str, msgspec.Meta(max_length=257)]


class _LevelWindow(Window, frozen=True, kw_only=True):
    level: Level
    segment: _Segment = ""


class LevelRecord(_LevelWindow, frozen=True, kw_only=True):
    """See `schemas.windows.LevelWindow`."""

    fields: dict[str, SummaryRecord] = msgspec.field(default_factory=dict)


class LevelHead(_LevelWindow, frozen=True, kw_only=True):
    """The same whose summaries stay as they came, for those who only pass them on."""

    fields: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)

    def fields_json(self) -> str:
        """The JSON of its fields alone."""
        return _encoder.encode(self.fields).decode()


_head_decoder = msgspec.json.Decoder(LevelHead)
_record_decoder = msgspec.json.Decoder(LevelRecord)
_encoder = msgspec.json.Encoder()


def in_segment(series: SeriesKey, key: str, value: str) -> SeriesKey:
    """What the series' panes of one segment belong to."""
    return series._replace(component=f"{series.component}{MARK}{key}={value}")


def level_window(level: Level, key: PaneKey, closed: Pane, partition: int, closed_ms: int,
                 with_fields: bool = True) -> LevelRecord:
    """The window of a pane that closes, or is amended."""
    series, (component, _, segment) = key.series, key.series.component.partition(MARK)
    return LevelRecord(
        environment=series.environment, model=series.model, version=series.version, component=component, level=level,
        segment=segment, window_id=f"{level[0]}-{series_digest(*series)}-{key.size_ms}-{key.start_ms}-{partition}",
        start_ms=key.start_ms, size_ms=key.size_ms, partition=partition, count=closed.count, errors=closed.errors,
        revision=closed.revision, closed_ms=max(0, closed_ms), fields=closed.summaries() if with_fields else {})


def writer(level: Level) -> Callable[[Sequence[Closed], int, int], list[WrittenWindow]]:
    """What makes records of `metrics-levels` of panes, for an engine whose panes are of that level."""
    return partial(described, describe=partial(level_window, level))


def read_level(value: bytes) -> LevelHead:
    """A record of `metrics-levels`, its summaries only looked at as far as they are JSON.

    Raises:
        ValueError: it breaks the contract.
    """
    try:
        return _head_decoder.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return _head_decoder.decode(LevelWindow.model_validate_json(value).model_dump_json())


def read_whole(value: bytes) -> LevelRecord:
    """The same with its summaries read."""
    return _record_decoder.decode(value)
