"""Which field is in which row of a pane. Panes with the same fields in the same order share one layout.

Fields are bounded: a pane keeps `max_fields`, and `max_categories` of each categorical field (NAME=VALUE); further
categories are counted as NAME=<other>. The first ones stay, in log order, so that a replay keeps the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.windows import sketch

IntArray = NDArray[np.int64]

MAX_FIELDS = 512
#: More do not fit into the keys of sketches.
SLOTS = (1 << 31 - sketch.CODE_BITS) - 1
MAX_CATEGORIES = 32
#: In a slot of `Layout.sketched`: of many values of the field a sample is sketched (`sampling`).
SAMPLED = 1 << 20
OTHER = "<other>"


class Layout:
    """Names in the order of their slots. Frozen; made by `Layouts`.

    sketched (names,): the slot, with `SAMPLED` of a feature; -1 of a category.
    """

    __slots__ = ("__weakref__", "_packed", "_quoted", "categories", "identity", "names", "sketched", "slots")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.slots = {name: slot for slot, name in enumerate(names)}
        self.identity: IntArray = np.arange(len(names))
        self.sketched: IntArray = np.array([_sketched(slot, name) for slot, name in enumerate(names)], np.int64)
        self._packed: msgspec.Raw | None = None
        self._quoted: tuple[NDArray[np.uint8], IntArray] | None = None
        self.categories: dict[str, int] = {}
        for name in names:
            field, equals, category = name.partition("=")
            if equals and category != OTHER:
                self.categories[field] = self.categories.get(field, 0) + 1

    @property
    def packed(self) -> msgspec.Raw:
        """The names as a MessagePack array."""
        if self._packed is None:
            self._packed = msgspec.Raw(msgspec.msgpack.encode(self.names))
        return self._packed

    @property
    def quoted(self) -> tuple[NDArray[np.uint8], IntArray]:
        """The names as keys of a JSON object, `"name":` one after the other, and where each begins and ends."""
        if self._quoted is None:
            parts = [msgspec.json.encode(name) + b":" for name in self.names]
            self._quoted = (np.frombuffer(b"".join(parts), np.uint8),
                            np.cumsum([0, *map(len, parts)], dtype=np.int64))
        return self._quoted


def _sketched(slot: int, name: str) -> int:
    if "=" in name:
        return -1
    return slot | SAMPLED if name.startswith("feature.") else slot


class Layouts:
    """All layouts in use, each once."""

    def __init__(self, max_fields: int = MAX_FIELDS, max_categories: int = MAX_CATEGORIES) -> None:
        if not 1 <= max_fields <= SLOTS:
            raise ValueError(f"max_fields is {max_fields}: a pane can have 1 to {SLOTS} fields")
        self.max_fields = max_fields
        self.max_categories = max_categories
        self._layouts: weakref.WeakValueDictionary[tuple[str, ...], Layout] = weakref.WeakValueDictionary()
        self.empty = self.of(())

    def of(self, names: tuple[str, ...]) -> Layout:
        """The layout with these names, as they are."""
        found = self._layouts.get(names)
        if found is None:
            found = self._layouts[names] = Layout(names)
        return found

    def extended(self, layout: Layout, names: Sequence[str]) -> tuple[Layout, IntArray]:
        """The layout with room for `names`, and the slot of each; -1 where there is no room."""
        slots = [layout.slots.get(name, -1) for name in names]
        if -1 not in slots:
            return layout, np.array(slots, np.int64)
        known, categories = dict(layout.slots), dict(layout.categories)
        for at, name in enumerate(names):
            if slots[at] < 0:
                slots[at] = self._place(name, known, categories)
        return (layout if len(known) == len(layout.names) else self.of(tuple(known))), np.array(slots, np.int64)

    def _place(self, name: str, known: dict[str, int], categories: dict[str, int]) -> int:
        field, equals, category = name.partition("=")
        counted = bool(equals) and category != OTHER
        if counted and name not in known and categories.get(field, 0) >= self.max_categories:
            name, counted = f"{field}={OTHER}", False
        slot = known.get(name)
        if slot is not None:
            return slot
        if len(known) >= self.max_fields:
            return -1
        if counted:
            categories[field] = categories.get(field, 0) + 1
        known[name] = len(known)
        return known[name]
