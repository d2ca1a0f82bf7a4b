"""The compiled reader of `metrics` takes what the contract takes, with the same values, and leaves all else to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.windows import window_id
from streams.records import RecordBatch
from streams.windows.closed import ClosedWindow, FieldNames, ReadWindow, WindowReader, fields_of
from streams.windows.record import SummaryRecord, WindowRecord, buckets, read_window, write_window
from streams.wire import WireRecord

HEAD = ("environment", "model", "version", "component", "window_id", "start_ms", "size_ms", "partition", "count",
        "errors", "revision", "closed_ms")


def a_window(second: int = 0, model: str = "m", fields: dict[str, SummaryRecord] | None = None, size_ms: int = 1_000,
             **more: Any) -> WindowRecord:
    start = 1_780_000_000_000 + second * 1_000
    given: dict[str, Any] = {
        "environment": "prod", "model": model, "version": "1", "component": "c", "partition": 3, "count": 7,
        "window_id": window_id("prod", model, "1", "c", size_ms, start, 3), "start_ms": start, "size_ms": size_ms,
        "errors": 1, "closed_ms": start + 2_000, "fields": drawn(second) if fields is None else fields}
    return WindowRecord(**(given | more))


def drawn(seed: int) -> dict[str, SummaryRecord]:
    """Fields of all shapes that windows have."""
    values = np.random.default_rng(seed).normal(0, 10.0 ** (seed % 9 - 4), 5)
    return {
        "latency_ms": SummaryRecord(
            count=5, missing=1, sum=float(values.sum()), min=float(values.min()), max=float(values.max()),
            mean=float(values.mean()), m2=float(values.var() * 5),
            buckets=buckets([(-40_010, 2), (0, 1), (39_990, 2)])),
        "feature.none": SummaryRecord(count=0, missing=6),
        "feature.sampled": SummaryRecord(count=9, sum=9.0, min=1.0, max=1.0, mean=1.0, sketched=3,
                                         buckets=buckets([(40_000, 9)])),
        "prediction=ja": SummaryRecord(count=2, sum=2.0, min=1.0, max=1.0, mean=1.0),
        "feature.größe=XL": SummaryRecord(count=1, sum=1.0, min=1.0, max=1.0, mean=1.0)}


def read(values: Sequence[bytes | None], keys: Sequence[bytes | None] = (), reader: WindowReader | None = None
         ) -> list[tuple[int, ClosedWindow | ValueError]]:
    records = [WireRecord(at, 0, keys[at] if keys else None, value) for at, value in enumerate(values)]
    return list((reader or WindowReader(1_000)).read(RecordBatch("metrics", 0, records)))


def assert_same(found: ClosedWindow | ValueError, value: bytes) -> None:
    try:
        wanted = read_window(value)
    except ValueError:
        assert isinstance(found, ValueError)
        return
    assert not isinstance(found, ValueError)
    assert [getattr(found, name) for name in HEAD] == [getattr(wanted, name) for name in HEAD]
    assert list(found.fields.items()) == list(wanted.fields.items())
    for name, summary in wanted.fields.items():
        alone = found.summary(name)
        assert alone is not None
        assert (alone.count, alone.missing, alone.sum, alone.min, alone.max, alone.mean, alone.m2, alone.sketch) == (
            summary.count, summary.missing, summary.sum, summary.min, summary.max, summary.mean, summary.m2,
            summary.sketch)
    if isinstance(found, ReadWindow):
        known = FieldNames()
        for text in found.read.known.texts:
            known.add(text)
        by_hand, low, high = fields_of(wanted.fields, known)
        for name in ("field", "number"):
            own, other = getattr(found.read.columns, name)[found.low:found.high], getattr(by_hand.columns, name)
            assert np.array_equal(own[:, :3], other[low:high, :3], equal_nan=name == "number")
        first, last = found.read.columns.edge[[found.low, found.high]]
        assert np.array_equal(found.read.columns.codes[first:last], by_hand.columns.codes)
        assert np.array_equal(found.read.columns.counts[first:last], by_hand.columns.counts)


def test_what_is_written_is_read_by_the_compiled_reader_as_the_contract_reads_it() -> None:
    values = [write_window(a_window(second, f"m{second % 3}")) for second in range(40)]
    found = read(values)
    assert [offset for offset, _ in found] == list(range(40))
    for (_, window), value in zip(found, values, strict=True):
        assert isinstance(window, ReadWindow)
        assert_same(window, value)


def test_other_granularities_and_tombstones_are_passed_over_by_their_keys() -> None:
    windows = [a_window(0), a_window(1, size_ms=10_000), a_window(2), a_window(3, size_ms=1_000)]
    keys: list[bytes | None] = [window.window_id.encode() for window in windows]
    keys[2] = None
    assert [offset for offset, _ in read([write_window(window) for window in windows], keys)] == [0, 2, 3]
    assert read([None, None]) == []
    assert [offset for offset, _ in read([write_window(windows[1])] * 4, [b"w-", b"w-0-1000", b"w-0-1000-", b"other"])
            ] == [0, 2, 3]


def test_whatever_is_damaged_is_read_or_refused_as_the_contract_does() -> None:
    whole, rng, reader = write_window(a_window(5)), random.Random(1), WindowReader(1_000)
    read([whole], reader=reader)
    damaged = [whole[:end] for end in range(0, len(whole), 7)]
    for _ in range(3_000):
        at, kind = rng.randrange(len(whole)), rng.randrange(3)
        inserted = bytes([rng.choice(b'0123456789-+.eE,:[]{}"\\ nul\x00\xc3')])
        damaged.append(whole[:at] + (inserted if kind else b"") + whole[at + (kind != 1):])
    for (_, found), value in zip(read(damaged, reader=reader), damaged, strict=True):
        assert_same(found, value)


@pytest.mark.parametrize(("text", "instead"), [
    (b'"missing":1,', b'"missing": 1,'), (b'"missing":1,', b'"missing":-1,'), (b'"missing":1,', b'"missing":1.0,'),
    (b'"missing":1,', b'"missing":9007199254740993,'), (b'"missing":1,', b'"missing":9223372036854775808,'),
    (b'"m2":0.0,', b'"m2":-1.0,'), (b'"m2":0.0,', b'"m2":1e400,'), (b'"sum":9.0,', b'"sum":null,'),
    (b'[0,1]', b'[0,0]'), (b'[0,1]', b'[00,1]'), (b'[0,1]', b'[-0,1]'), (b'[0,1]', b'[0,-1]'), (b'[0,1]', b'[0,1,2]'),
    (b'[0,1]', b'[131072,1]'), (b'[0,1]', b'[0,1e3]'), (b'[0,1]', b'["0",1]'),
    (b'"feature.none"', b'"latency_ms"'), (b'"feature.none"', b'"feature.\\u006eone"'),
    (b'"start_ms":1', b'"start_ms":9'),
    (b'"size_ms":1000', b'"size_ms":0'), (b'"model":"m"', b'"model":"-m"'), (b'"model":"m"', b'"model":""'),
    (b'"revision":0,', b''), (b'"window_id":"w', b'"window_id":"' + 130 * b'w')])
def test_every_bound_is_the_contracts(text: bytes, instead: bytes) -> None:
    whole, reader = write_window(a_window(5)), WindowReader(1_000)
    assert text in whole
    changed = whole.replace(text, instead, 1)
    for (_, found), value in zip(read([whole, changed, whole], reader=reader), [whole, changed, whole], strict=True):
        assert_same(found, value)


def test_names_that_fill_the_table_begin_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = WindowReader(1_000)
    monkeypatch.setattr("streams.lean.names.Names.MOST", 20)
    for batch in range(12):
        values = [write_window(a_window(at, fields={f"feature.{batch}-{at}": SummaryRecord(count=1, mean=2.0)}))
                  for at in range(4)]
        for (_, found), value in zip(read(values, reader=reader), values, strict=True):
            assert isinstance(found, ReadWindow)
            assert_same(found, value)


def test_a_window_keeps_its_fields_when_it_is_asked_twice() -> None:
    [(_, window)] = read([write_window(a_window())])
    assert isinstance(window, ReadWindow)
    assert window.fields is window.fields
    assert window.summary("feature.not") is None
    assert msgspec.structs.asdict(window)["model"] == "m"
