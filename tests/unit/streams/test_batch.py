"""Records become columns, and what breaks the contract leaves with its reason."""

import base64
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from lean_support import GOOD, decode, record, values_of

from streams.batch import Decoder, Limits, decode_feedback
from streams.lean.names import Names
from streams.records import RecordBatch


def test_an_event_becomes_a_row_with_its_values() -> None:
    batch = decode(json.dumps(GOOD).encode())
    assert len(batch) == 1
    assert batch.keys[0] == ("prod", "churn", "3", "model")
    got = values_of(batch, 0)
    assert math.isnan(got.pop("feature.gone"))
    assert got == {"latency_ms": 4.0, "confidence": 0.9, "prediction=yes": 1.0, "feature.age": 40.0,
                   "feature.plan=a": 1.0, "feature.paid": 1.0, "metric.tokens": 12.5}


def test_an_array_is_events_in_order_and_one_bad_event_leaves_the_others() -> None:
    bad = GOOD | {"confidence": 2}
    batch = decode(json.dumps([GOOD, bad, GOOD | {"event_id": "e3"}]).encode())
    assert batch.event_ids == ["e1", "e3"]
    assert batch.position.tolist() == [0, 2]
    (refused,) = batch.rejected
    assert (refused.reason, refused.field, refused.position) == ("out_of_bounds", "confidence", 1)
    assert json.loads(base64.b64decode(refused.payload_base64)) == bad


def test_a_part_of_a_batch_is_the_batch_of_its_rows() -> None:
    events = [GOOD | {"event_id": f"é{at}" if at % 2 else f"e{at}", "features": {"x": at}, "error": "e" * at or None}
              for at in range(5)]
    whole = decode(*(json.dumps(event).encode() for event in events))
    part = whole.part(1, 4)
    assert part.event_ids == ["é1", "e2", "é3"]
    assert part.offset.tolist() == [1, 2, 3]
    assert [values_of(part, row) for row in range(3)] == [values_of(whole, row) for row in range(1, 4)]
    assert part.part(1, 2).event_ids == ["e2"]
    assert values_of(part.part(2, 3), 0)["feature.x"] == 3.0
    assert len(whole.part(2, 2)) == 0


def test_an_array_of_nonsense_is_kept_in_few_records() -> None:
    good = json.dumps(GOOD)
    batch = decode(f"[{','.join([good, *map(str, range(500)), good])}]".encode())
    assert batch.position.tolist() == [0, 501]
    *single, rest = batch.rejected
    assert [(found.position, found.events) for found in single] == [(at, 1) for at in range(1, 101)]
    assert (rest.position, rest.events, rest.reason) == (101, 400, "not_an_object")
    assert json.loads(base64.b64decode(rest.payload_base64)) == list(range(100, 500))
    assert rest.message.startswith("400 more events")


def test_an_item_that_is_no_object_is_told_as_the_contract_tells_it() -> None:
    alone, of_array = decode(b"7").rejected[0], decode(b"[7]").rejected[0]
    assert (alone.reason, alone.field, alone.message) == (of_array.reason, of_array.field, of_array.message)


@pytest.mark.parametrize(("value", "reason", "field"), [
    (None, "empty", ""),
    (b"", "empty", ""),
    (b"\xff\xfe\x00", "not_json", ""),
    (b'{"event_id": "e', "not_json", ""),
    (b"[" * 100_000, "not_json", ""),
    (b'{"a":' * 100_000, "not_json", ""),
    (b"3", "not_an_object", ""),
    (json.dumps({k: v for k, v in GOOD.items() if k != "model"}).encode(), "missing_field", "model"),
    (json.dumps(GOOD | {"latency_ms": "4"}).encode(), "wrong_type", "latency_ms"),
    (json.dumps(GOOD | {"latency_ms": -4}).encode(), "out_of_bounds", "latency_ms"),
    (json.dumps(GOOD | {"environment": "no spaces"}).encode(), "out_of_bounds", "environment"),
    (json.dumps(GOOD | {"ts": "2026-01-01T00:00:00"}).encode(), "time_zone", "ts"),
    (json.dumps(GOOD | {"ts": True}).encode(), "wrong_type", "ts"),
    (json.dumps(GOOD | {"schema_version": 2}).encode(), "schema_version", "schema_version"),
    (json.dumps(GOOD | {"metrics": {"x": math.nan}}).encode(), "not_finite", "metrics.x"),
    (json.dumps(GOOD | {"metrics": {"x": math.inf}}).encode(), "not_finite", "metrics.x"),
    (json.dumps(GOOD | {"features": {f"f{i}": 1 for i in range(257)}}).encode(), "out_of_bounds", "features"),
    (json.dumps(GOOD | {"ts": GOOD["ts"] + 300_001}).encode(), "from_future", "ts"),
    (b" " * 1_048_577, "too_large", ""),
])
def test_a_bad_record_leaves_with_its_reason_and_its_bytes(value: bytes | None, reason: str, field: str) -> None:
    good = json.dumps(GOOD).encode()
    batch = decode(good, value, good)
    assert len(batch) == 2
    (refused,) = batch.rejected
    assert refused.reason == reason
    assert refused.field == field, refused.message
    assert (refused.topic, refused.partition, refused.offset) == ("telemetry", 2, 1)
    assert base64.b64decode(refused.payload_base64) == (value or b"")[:1_048_576]
    assert refused.payload_size_bytes == len(value or b"")
    assert refused.message


def test_an_event_older_than_the_setting_is_refused() -> None:
    batch = decode(json.dumps(GOOD | {"ts": GOOD["ts"] - 1001}).encode(), limits=Limits(max_age_ms=1000))
    assert [refused.reason for refused in batch.rejected] == ["too_old"]


def test_names_that_were_seen_before_are_checked_no_less() -> None:
    decoder = Decoder()
    ok, long = json.dumps(GOOD).encode(), json.dumps(GOOD | {"features": {"x" * 129: 1.0}}).encode()
    for _ in range(2):
        batch = decoder(RecordBatch("telemetry", 0, [record(ok), record(long, 1)]))
        assert len(batch) == 1
        assert [refused.reason for refused in batch.rejected] == ["out_of_bounds"]


def test_late_labels_are_read_and_bad_ones_are_kept_with_their_reason() -> None:
    good = {"event_id": "e", "ts": 1, "environment": "p", "model": "m", "version": "1", "prediction": 1, "label": 0}
    batch = RecordBatch("feedback", 0, [record(json.dumps(good).encode()), record(b"{", 1), record(None, 2)])
    found = decode_feedback(batch, Limits())
    assert [offset for offset, _ in found.labels] == [0]
    assert [refused.reason for refused in found.rejected] == ["not_json", "empty"]


WARM = """
import json, sys
sys.path[:0] = {path!r}
from streams.batch import Decoder
from streams.lean import columns, decoding, events, instant, learning, names, number, texts, tokens
from streams.records import RecordBatch
from streams.wire import WireRecord
rooms = [vars(room) for room in
         (columns, decoding, events, instant, learning, names, number, texts, tokens)]
kernels = [found for room in rooms for found in room.values() if hasattr(found, "signatures")]
decoder = Decoder()
decoder.warm()
before = [len(kernel.signatures) for kernel in kernels]
assert len(kernels) > 5 and sum(before) > 3, before
good = [json.loads({good!r}) | {{"model": str(number), "component": "c", "features": {{str(number): "b"}}}}
        for number in range(900)]
good += [one | {{"event_id": "\u00e9", "features": {{"=" + one["model"]: "b"}}}} for one in good[:500]]
values = [*map(json.dumps, good), json.dumps(good), "[1, 2]", "[{{}}", ""]
decoder(RecordBatch("t", 0, [WireRecord(at, 1, b"", value.encode()) for at, value in enumerate(values)]))
assert [len(kernel.signatures) for kernel in kernels] == before, "compiled while events waited"
"""


def test_nothing_is_compiled_after_the_warm_up() -> None:
    done = subprocess.run([sys.executable, "-c", WARM.format(path=sys.path, good=json.dumps(GOOD))],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_read_before_leaves_no_trace_in_the_next_batch() -> None:
    decoder, other = Decoder(), json.dumps(GOOD | {"model": "other", "features": {"new": 1, "age": 2}}).encode()
    first = json.dumps(GOOD).encode()
    for values in ([first], [other], [other, first], [first, other], []) * 2:
        batch = decoder(RecordBatch("t", 0, [record(value, at) for at, value in enumerate(values)] or [record(b"")]))
        fresh = Decoder()(RecordBatch("t", 0, [record(value, at) for at, value in enumerate(values)] or [record(b"")]))
        assert (batch.keys, batch.fields) == (fresh.keys, fresh.fields)
        np.testing.assert_equal(batch.value, fresh.value)
        assert batch.field.tolist() == fresh.field.tolist()


def test_a_flood_of_names_is_forgotten_and_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "MOST", 50)
    decoder = Decoder()
    for number in range(300):
        value = json.dumps(GOOD | {"model": f"m{number % 7}", "prediction": f"class {number}"}).encode()
        batch = decoder(RecordBatch("t", 0, [record(value), record(value, 1)]))
        assert batch.keys == [("prod", f"m{number % 7}", "3", "model")]
        assert f"prediction=class {number}" in values_of(batch, 1)
