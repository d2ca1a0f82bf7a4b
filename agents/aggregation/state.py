"""What the agent keeps of a partition: a row for each pane, and META with the watermark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import msgspec

from streams.state.keyed import META, Entry, KeyedStates
from streams.windows.layout import Layouts
from streams.windows.panes import Pane, encoded
from streams.windows.watermark import NEVER_MS


class Meta(msgspec.Struct):
    """The partition's own state: the newest ts seen, events too late for any window, and how far panes are gone.

    Every pane that was over at the watermark `over_ms` has been dropped: a row of one is a leftover, not a pane.
    """

    newest_ms: int = NEVER_MS
    too_late: int = 0
    over_ms: int = NEVER_MS


State: TypeAlias = Pane | Meta
States: TypeAlias = KeyedStates[State]


class Codec:
    """Panes and META as bytes."""

    def __init__(self, layouts: Layouts) -> None:
        self.layouts = layouts

    def new(self, key: str) -> State:
        return Meta() if key == META else Pane(self.layouts.empty)

    def encode(self, key: str, state: State) -> bytes:
        return self.encode_many([state])[0]

    def encode_many(self, states: Sequence[State]) -> list[bytes]:
        found = iter(encoded([state for state in states if isinstance(state, Pane)]))
        return [next(found) if isinstance(state, Pane) else msgspec.msgpack.encode(state) for state in states]

    def decode(self, key: str, data: bytes) -> State:
        return msgspec.msgpack.decode(data, type=Meta) if key == META else Pane.decode(data, self.layouts)


def pane(entry: Entry[State]) -> Pane:
    """The pane in an entry that is not META's."""
    assert isinstance(entry.state, Pane)
    return entry.state


def meta(entry: Entry[State]) -> Meta:
    """The state in META's entry."""
    assert isinstance(entry.state, Meta)
    return entry.state


def panes(entries: Sequence[Entry[State]]) -> list[Pane]:
    """The panes in entries of which none is META's."""
    found = [entry.state for entry in entries]
    assert not found or isinstance(found[0], Pane)
    return cast(list[Pane], found)
