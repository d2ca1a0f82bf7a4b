"""Closed panes straight to the JSON of their windows: byte for byte what `write_window` makes of them, and quicker.

All windows of an emission are written together (`weaving`). Sums that overflowed take the long way, over
`Pane.summaries`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.windows import series_digest
from streams.batch import SeriesKey
from streams.windows import weaving
from streams.windows.grouping import edges, spans
from streams.windows.layout import Layout, Layouts
from streams.windows.panes import Pane, PaneKey
from streams.windows.record import Window, WindowRecord, write_window
from streams.windows.sketches import Sketches

IntArray = NDArray[np.int64]
#: A pane that closes, or is amended.
Closed: TypeAlias = tuple[PaneKey, Pane]
#: The window of a pane, its partition and when it closed; False: without its fields.
Describe: TypeAlias = Callable[[PaneKey, Pane, int, int, bool], Window]

#: Windows are written together until they may have so many bytes: more would not stay in a processor's cache.
_ROOM = 1 << 20
_encode = msgspec.json.Encoder().encode
_kept = threading.local()
_NONE = np.empty(0, np.uint8)
#: What of a window's head is not its series', in a window of nothing.
_BLANK = b'-1-0-0","start_ms":0,"size_ms":1,"partition":0,"count":0,"errors":0,"revision":0,"closed_ms":0'
_NO_LAYOUT = Layouts().empty


class WrittenWindow(NamedTuple):
    """A record of `metrics`: its key and its value."""

    window_id: str
    value: bytes


def written(closed: Sequence[Closed], partition: int, closed_ms: int) -> list[WrittenWindow]:
    """The records of panes that close, or are amended."""
    return described(closed, partition, closed_ms, window)


def window(key: PaneKey, closed: Pane, partition: int, closed_ms: int, with_fields: bool = True) -> WindowRecord:
    """The same of one as an object."""
    return WindowRecord(
        schema_version=1, environment=key.series.environment, model=key.series.model, version=key.series.version,
        component=key.series.component, start_ms=key.start_ms, size_ms=key.size_ms,
        window_id=f"w-{series_digest(*key.series)}-{key.size_ms}-{key.start_ms}-{partition}", partition=partition,
        count=closed.count, errors=closed.errors, revision=closed.revision, closed_ms=max(0, closed_ms),
        fields=closed.summaries() if with_fields else {})


def described(closed: Sequence[Closed], partition: int, closed_ms: int, describe: Describe) -> list[WrittenWindow]:
    """The records of panes whose windows are what `describe` makes of them, which is asked but once a series."""
    heads, found = [_head(key.series, describe) for key, _ in closed], list[WrittenWindow]()
    most = _most_bytes(closed, heads)
    for low, high in spans(most, _ROOM):
        found += _together(closed[low:high], heads[low:high], partition, max(0, closed_ms), describe,
                           int(most[low:high].sum()))
    return found


class _Head(NamedTuple):
    """What is the same in all windows of a series: the beginning of its id, and the text around what is not."""

    window_id: str
    text: bytes
    cut: int


@lru_cache(maxsize=65_536)
def _head(series: SeriesKey, describe: Describe) -> _Head:
    blank = describe(PaneKey(series, 1, 0), Pane(_NO_LAYOUT), 0, 0, False)
    before, after = write_window(blank).removesuffix(b"{}}").split(_BLANK)
    return _Head(blank.window_id.removesuffix("-1-0-0"), before + after, len(before))


def _most_bytes(closed: Sequence[Closed], heads: Sequence[_Head]) -> IntArray:
    return weaving.most_bytes(
        np.array([len(head.text) + len(pane.layout.quoted[0]) for head, (_, pane) in zip(heads, closed, strict=True)],
                 np.int64),
        np.array([len(pane.table) for _, pane in closed], np.int64),
        Sketches.sizes([pane.sketches for _, pane in closed]))


def _together(closed: Sequence[Closed], heads: Sequence[_Head], partition: int, closed_ms: int, describe: Describe,
              size: int) -> list[WrittenWindow]:
    """The same of windows that take so many bytes at the most."""
    names, fields = _columns([pane for _, pane in closed])
    finite = np.empty(len(closed), np.bool_)
    weaving.finite(fields.row, fields.table, finite)
    if not finite.all():
        return _some(closed, heads, finite.tolist(), partition, closed_ms, describe, size)
    numbers = np.empty(len(fields.table) * weaving.NUMBERS)
    text = np.frombuffer(_encode(numbers[:weaving.unspelled(fields.table, numbers)].tolist()), np.uint8)
    out, ends = _room(size), np.empty(len(closed), np.int64)
    weaving.weave(names, _around(closed, heads), fields, text, partition, closed_ms, out, ends)
    whole = out.data
    return [WrittenWindow(f"{head.window_id}-{key.size_ms}-{key.start_ms}-{partition}", bytes(whole[low:high]))
            for (key, _), head, (low, high) in zip(closed, heads, itertools.pairwise([0, *ends.tolist()]), strict=True)]


def _some(closed: Sequence[Closed], heads: Sequence[_Head], finite: Sequence[bool], partition: int, closed_ms: int,
          describe: Describe, size: int) -> list[WrittenWindow]:
    """The same where some sums are not finite."""
    fine = [item for item, whole in zip(closed, finite, strict=True) if whole]
    found = iter(_together(fine, [head for head, whole in zip(heads, finite, strict=True) if whole], partition,
                           closed_ms, describe, size) if fine else [])
    records = [describe(*item, partition, closed_ms, True) for item, whole in zip(closed, finite, strict=True)
               if not whole]
    others = iter([WrittenWindow(record.window_id, write_window(record)) for record in records])
    return [next(found) if whole else next(others) for whole in finite]


def _around(closed: Sequence[Closed], heads: Sequence[_Head]) -> weaving.Heads:
    texts = [head.text for head in heads]
    return weaving.Heads(
        np.frombuffer(b"".join(texts), np.uint8), edges(list(map(len, texts))), np.array([head.cut for head in heads]),
        np.array([(key.size_ms, key.start_ms, pane.count, pane.errors, pane.revision) for key, pane in closed],
                 np.int64))


def _columns(panes: Sequence[Pane]) -> tuple[weaving.Names, weaving.Fields]:
    """The panes as columns."""
    layouts: dict[Layout, int] = {}
    of_layout = [layouts.setdefault(pane.layout, len(layouts)) for pane in panes]
    quoted = [layout.quoted for layout in layouts]
    row = edges([len(pane.table) for pane in panes])
    left = np.zeros(row[-1], np.int64)
    for at, pane in enumerate(panes):
        if pane.left is not None:
            left[row[at]:row[at] + len(pane.left)] = pane.left
    names = weaving.Names(np.concatenate([_NONE, *(text for text, _ in quoted)]),
                          np.concatenate([where for _, where in quoted]),
                          edges([len(text) for text, _ in quoted]), edges([len(where) for _, where in quoted]))
    return names, weaving.Fields(
        np.array(of_layout, np.int64), row, np.concatenate([pane.table for pane in panes]), left,
        *Sketches.columns([pane.sketches for pane in panes]))


def _room(size: int) -> weaving.Bytes:
    """At least so many bytes, which are the next caller's afterwards: to get new ones takes as long as to fill them."""
    found: weaving.Bytes = getattr(_kept, "room", _NONE)
    if len(found) < size:
        found = _kept.room = np.empty(2 * size, np.uint8)
    return found


def warm() -> None:
    """Compile the kernels, or load them from their cache."""
    pane = Pane(Layouts().of(("a",)))
    pane.sketches.add(np.zeros(1, np.int32))
    written([(PaneKey(SeriesKey("", "", "", ""), 1, 0), pane)], 0, 0)
