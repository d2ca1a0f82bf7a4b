"""Reading our own topics: what is skipped, what is passed over, what is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stores_world import a_window

from streams import messages, metrics
from streams.records import RecordBatch
from streams.windows.record import write_window


def batch(*records: tuple[bytes | None, bytes | None]) -> RecordBatch:
    return RecordBatch("metrics", 0, [SimpleNamespace(offset=at, timestamp=0, key=key, value=value)
                                      for at, (key, value) in enumerate(records)])


def record(**values: Any) -> tuple[bytes, bytes]:
    window = a_window(**values)
    return window.window_id.encode(), write_window(window)


def test_only_windows_of_the_granularity_are_read() -> None:
    fine, coarse, finer = record(size_ms=1_000), record(size_ms=10_000), record(size_ms=100)
    found = batch(coarse, fine, (finer[0], b"not even JSON"), (None, coarse[1]), (fine[0], None)).decoded(
        messages.windows(1_000))
    assert [(offset, window.size_ms) for offset, window in found] == [(1, 1_000), (3, 10_000)]


def test_a_window_that_does_not_read_is_skipped_and_counted() -> None:
    before = metrics.SKIPPED.labels("metrics")._value.get()
    fine = record(size_ms=1_000)
    assert [offset for offset, _ in batch((fine[0], b"{"), fine).decoded(messages.windows(1_000))] == [1]
    assert metrics.SKIPPED.labels("metrics")._value.get() == before + 1


def test_agents_of_one_granularity_share_what_was_read() -> None:
    found = batch(record(size_ms=1_000))
    assert found.decoded(messages.windows(1_000)) is found.decoded(messages.windows(1_000))
