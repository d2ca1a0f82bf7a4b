"""Closed panes straight to the JSON of their windows: byte for byte what `write_window` makes of them, and quicker.

All windows of an emission are written together (`weaving`). Sums that overflowed take the long way, over
`Pane.summaries`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.windows import series_digest
from streams.batch import SeriesKey
from streams.windows import weaving
from streams.windows.grouping import chunks, edges
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
_BLANK = '-1-0-0","start_ms":0,"size_ms":1,"partition":0,"count":0,"errors":0,"revision":0,"closed_ms":0'
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
    closed_ms, found = max(0, closed_ms), list[WrittenWindow]()
    for (key, pane), fields in zip(closed, fields_json([pane for _, pane in closed]), strict=True):
        if fields is None:
            whole = describe(key, pane, partition, closed_ms, True)
            found.append(WrittenWindow(whole.window_id, write_window(whole)))
            continue
        head, where = _head(key.series, describe), f"{key.size_ms}-{key.start_ms}-{partition}"
        text = (f'{head.before}-{where}","start_ms":{key.start_ms},"size_ms":{key.size_ms},"partition":{partition},'
                f'"count":{pane.count},"errors":{pane.errors},"revision":{pane.revision},"closed_ms":{closed_ms}'
                f'{head.after}')
        found.append(WrittenWindow(f"{head.window_id}-{where}", b"".join((text.encode(), fields, b"}"))))
    return found


class _Head(NamedTuple):
    """What is the same in all windows of a series: the beginning of its id, and the text around what is not."""

    window_id: str
    before: str
    after: str


@lru_cache(maxsize=65_536)
def _head(series: SeriesKey, describe: Describe) -> _Head:
    blank = describe(PaneKey(series, 1, 0), Pane(_NO_LAYOUT), 0, 0, False)
    before, after = write_window(blank).decode().removesuffix("{}}").split(_BLANK)
    return _Head(blank.window_id.removesuffix("-1-0-0"), before, after)


def fields_json(panes: Sequence[Pane]) -> Iterator[memoryview | None]:
    """The JSON object of each pane's fields, there until the next is asked for; None if some sums are not finite."""
    Sketches.settle([pane.sketches for pane in panes])
    for chunk, size in chunks(panes, _most_bytes, _ROOM):
        yield from _written_together(chunk, size)


def _most_bytes(pane: Pane) -> int:
    return weaving.most_bytes(len(pane.layout.quoted[0]), len(pane.table), len(pane.sketches.arrays()[0]))


def _written_together(panes: Sequence[Pane], size: int) -> list[memoryview | None]:
    names, fields = _columns(panes)
    finite = np.empty(len(panes), np.bool_)
    weaving.finite(fields.row, fields.table, finite)
    if not finite.all():
        fine = [pane for pane, whole in zip(panes, finite, strict=True) if whole]
        found = iter(_written_together(fine, size) if fine else [])
        return [next(found) if whole else None for whole in finite]
    numbers = np.empty(len(fields.table) * weaving.NUMBERS)
    text = np.frombuffer(_encode(numbers[:weaving.unspelled(fields.table, numbers)].tolist()), np.uint8)
    out, ends = _room(size), np.empty(len(panes), np.int64)
    weaving.weave(names, fields, text, out, ends)
    whole = out.data
    return [whole[low:high] for low, high in itertools.pairwise([0, *ends.tolist()])]


def _columns(panes: Sequence[Pane]) -> tuple[weaving.Names, weaving.Fields]:
    """The panes as columns."""
    layouts: dict[Layout, int] = {}
    of_layout = [layouts.setdefault(pane.layout, len(layouts)) for pane in panes]
    quoted = [layout.quoted for layout in layouts]
    sketches = [pane.sketches.arrays() for pane in panes]
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
        edges([len(keys) for keys, _ in sketches]), np.concatenate([keys for keys, _ in sketches]),
        np.concatenate([counts for _, counts in sketches]))


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
    list(fields_json([pane]))
