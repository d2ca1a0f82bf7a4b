"""The lean decoder against the contract: it accepts, refuses and reads exactly the same records."""

import base64
import json
import math
import subprocess
import sys
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.telemetry import TelemetryEvent
from streams.batch import Decoder, Limits, TelemetryBatch, decode_feedback
from streams.lean.names import Names
from streams.records import RecordBatch

GOOD = {"event_id": "e1", "ts": 1_700_000_000_000, "environment": "prod", "model": "churn", "version": "3",
        "prediction": "yes", "confidence": 0.9, "latency_ms": 4, "error": None, "features": {"age": 40, "plan": "a",
        "paid": True, "gone": None}, "metrics": {"tokens": 12.5}, "segment": {"country": "PT"}, "trace_id": "t"}


def record(value: bytes | None, offset: int = 0, at: int = 1_700_000_000_000) -> Any:
    return SimpleNamespace(offset=offset, timestamp=at, key=b"churn", value=value)


def decode(*values: bytes | None, limits: Limits | None = None) -> TelemetryBatch:
    return Decoder(limits)(RecordBatch("telemetry", 2, [record(value, i) for i, value in enumerate(values)]))


def values_of(batch: TelemetryBatch, row: int) -> dict[str, float]:
    where = slice(batch.start[row], batch.start[row + 1])
    return {batch.fields[f]: v for f, v in zip(batch.field[where], batch.value[where].tolist(), strict=True)}


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=140),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
FIELD = st.sampled_from([*GOOD, "component", "label", "schema_version", "unknown"])
RAW = st.sampled_from([b"1e400", b"-0", b"1.0", b"1700000000000.0", b"1E3", b"123456789012345678901234567890",
                       b'"\\ud800"', b"NaN", b"Infinity", b"true", b'""', b"01", b"1.", b'"2026-01-01T00:00:00Z"',
                       b'"1700000000000"', b"{}", b"[]", b'{"a":1,"a":"b"}', b'{"":1}'])


def agree(value: bytes, segment_keys: tuple[str, ...] = ("country", "plän")) -> None:
    decoder = Decoder(Limits(max_ahead_ms=0), segment_keys)
    decoder(RecordBatch("telemetry", 0, [record(json.dumps(GOOD).encode())]))   # the fast path knows the names
    batch = decoder(RecordBatch("telemetry", 0, [record(value)]))
    try:
        expected = TelemetryEvent.model_validate_json(value)
    except ValidationError:
        assert len(batch) == 0
        assert len(batch.rejected) == 1
        return
    assert not batch.rejected
    assert batch.ts_ms[0] == expected.ts
    assert batch.event_ids[0] == expected.event_id
    assert batch.trace_ids[0] == expected.trace_id
    assert bool(batch.error[0]) == (expected.error is not None)
    got = values_of(batch, 0)
    numbers = {"latency_ms": expected.latency_ms, "confidence": expected.confidence}
    numbers |= {f"metric.{k}": v for k, v in expected.metrics.items()}
    mixed = {"prediction": expected.prediction} if expected.prediction is not None else {}
    mixed |= {f"feature.{k}": math.nan if v is None else v for k, v in expected.features.items()}
    want = {k: float(v) for k, v in numbers.items() if v is not None}
    want |= {f"segment.{k}={v}": 1.0 for k, v in expected.segment.items() if k in segment_keys}
    for name, held in mixed.items():
        want |= {f"{name}={held}": 1.0} if isinstance(held, str) else {name: float(held)}
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[k], want[k], equal_nan=True) for k in want)


@given(FIELD, JSON)
def test_any_value_in_any_field_is_judged_as_the_contract_judges_it(field: str, value: Any) -> None:
    agree(json.dumps(GOOD | {field: value}).encode())


@given(FIELD, RAW)
@example("ts", b"1700000000000.0")
@example("schema_version", b"1.0")
@example("schema_version", b"true")
def test_odd_spellings_are_judged_as_the_contract_judges_them(field: str, raw: bytes) -> None:
    marker = json.dumps(GOOD | {field: "@@"}).encode()
    agree(marker.replace(b'"@@"', raw))


SPELLINGS = [json.dumps(GOOD).encode(), json.dumps(GOOD, separators=(",", ":")).encode(),
             json.dumps(GOOD, indent=1, ensure_ascii=False).encode(),
             json.dumps(dict(reversed(GOOD.items())) | {"more": 1, "metrics": {"tokens": -1.5e-7}}).encode()]


@settings(max_examples=1_000)
@given(st.sampled_from(SPELLINGS), st.integers(0, 10**6), st.integers(0, 2), st.binary(max_size=2))
def test_a_changed_byte_is_judged_as_the_contract_judges_it(value: bytes, at: int, cut: int, put: bytes) -> None:
    at %= len(value)
    agree(value[:at] + put + value[at + cut:])


@settings(max_examples=1000)
@given(st.lists(st.tuples(FIELD, JSON), min_size=1, max_size=5), st.sampled_from([",", " , ", "\n,\t"]))
def test_an_array_is_read_as_its_events_one_by_one(changes: list[tuple[str, Any]], comma: str) -> None:
    items = [json.dumps(GOOD | {field: value}) for field, value in changes]
    decoder = Decoder(Limits(max_ahead_ms=0))
    together = decoder(RecordBatch("t", 0, [record(("[" + comma.join(items) + "]").encode())]))
    apart = decoder(RecordBatch("t", 0, [record(item.encode(), at) for at, item in enumerate(items)]))
    assert together.position.tolist() == apart.offset.tolist()
    assert [each.position for each in together.rejected] == [each.offset for each in apart.rejected]
    assert together.event_ids == list(apart.event_ids)
    for row in range(len(apart)):
        np.testing.assert_equal(values_of(together, row), values_of(apart, row))


ITEM = st.builds(lambda spelling, model, name: spelling.replace(b'"churn"', model, 1).replace(b'"age"', name, 1),
                 st.sampled_from(SPELLINGS), st.sampled_from([b'"a"', b'"b"', b'"c"', b'"\\u0064"']),
                 st.sampled_from([b'"age"', b'"\\u0061ge"', b'"new"', b'"a[]{,"']))


@settings(max_examples=500)
@given(st.lists(ITEM, min_size=1, max_size=6), st.sampled_from([b",", b" , ", b"\n,\t"]),
       st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 2), st.binary(max_size=2)))
def test_an_array_with_new_names_is_read_as_its_events_one_by_one_whatever_else_is_in_it(
        items: list[bytes], comma: bytes, change: tuple[int, int, bytes] | None) -> None:
    value = b"[" + comma.join(items) + b"]"
    if change is not None:
        at = 1 + change[0] % (len(value) - 1)
        value = value[:at] + change[2] + value[at + change[1]:]
    limits = Limits(max_ahead_ms=0)
    together = Decoder(limits)(RecordBatch("t", 0, [record(value), record(json.dumps(GOOD).encode(), 1)]))
    try:
        parts = [bytes(part) for part in msgspec.json.decode(value, type=list[msgspec.Raw])]
    except msgspec.MsgspecError:
        assert together.offset[-1] == 1
        assert (together.position[:-1] >= 0).all()
        assert len(together) == 1 or b"N" in value or b"I" in value     # not a number, or infinite: read all the same
        return
    apart = [Decoder(limits)(RecordBatch("t", 0, [record(part)])) for part in parts]
    assert together.position.tolist() == [*(at for at, one in enumerate(apart) if len(one)), 0]
    assert [refused.position for refused in together.rejected] == [at for at, one in enumerate(apart) if not len(one)]
    for row, one in enumerate(one for one in apart if len(one)):
        assert (together.keys[together.series[row]], together.ts_ms[row]) == (one.keys[0], one.ts_ms[0])
        assert together.event_ids[row] == one.event_ids[0]
        np.testing.assert_equal(values_of(together, row), values_of(one, 0))


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


@given(st.dictionaries(st.text(max_size=130), JSON, max_size=4), st.dictionaries(st.text(max_size=130), JSON,
                                                                                max_size=4))
def test_features_and_metrics_are_judged_as_the_contract_judges_them(features: Any, metrics: Any) -> None:
    agree(json.dumps(GOOD | {"features": features, "metrics": metrics, "segment": {}}).encode())


SEGMENT_TEXT = st.sampled_from(["country", "plän", "plan", "PT", "Österreich", "", "a=b", "\x1f", "x" * 129])


@settings(max_examples=500)
@given(st.lists(st.tuples(SEGMENT_TEXT, SEGMENT_TEXT | st.none() | st.integers()), max_size=9), st.booleans(),
       st.sampled_from([(), ("country",), ("country", "plän"), ("a=b", "PT")]))
def test_segments_are_judged_and_kept_as_the_contract_reads_them(pairs: Any, ascii_only: bool, keys: Any) -> None:
    inside = ", ".join(f"{json.dumps(key, ensure_ascii=ascii_only)}: {json.dumps(value, ensure_ascii=ascii_only)}"
                       for key, value in pairs)
    marker = json.dumps(GOOD | {"segment": "@@"})
    for _ in range(2):      # with keys that come twice, and the second time by known names
        agree(marker.replace('"@@"', "{" + inside + "}").encode(), keys)


def test_segments_are_read_by_known_names_as_by_the_contract() -> None:
    decoder = Decoder(Limits(), ("country", "plan"))
    for round_ in range(3):
        segments = [{"country": "PT", "plan": "pro"}, {"plan": "basic", "more": "x"}, {}, {"plan": "", "country": "PT"}]
        values = [json.dumps(GOOD | {"segment": segment}).encode() for segment in segments]
        batch = decoder(RecordBatch("t", 0, [record(value, at) for at, value in enumerate(values)]))
        assert [sorted(name for name in values_of(batch, row) if name.startswith("segment.")) for row in range(4)] == [
            ["segment.country=PT", "segment.plan=pro"], ["segment.plan=basic"], [],
            ["segment.country=PT", "segment.plan="]], round_


ODD = st.text(st.characters(codec="utf-8") | st.sampled_from(
    '"\\/\b\f\n\r\t\0\x7f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff'), max_size=130)
INSIDE = st.sampled_from([
    rb"\ud800", rb"\udc00\ud800", rb"\ud83d\ude00", rb"\uD83D\uDE00", rb"\u00E9", rb"\u00eg", rb"\u00", rb"\x",
    b"\\", rb"\/",
    *map(bytes.fromhex, ["c3a9", "c3", "c080", "e09fbf", "e0a080", "ed9fbf", "eda080", "f08fbfbf", "f0908080",
                         "f48fbfbf", "f4908080", "f5808080", "e282", "80", "1f"]),
    b"x" * 126, b"\xc3\xa9" * 126, rb"\u00e9" * 126])
PLACES = ["event_id", "model", "prediction", "label", "error", "trace_id", "unknown", "features", "metrics", "segment",
          "category", "value"]


def put(place: str, text: str) -> dict[str, Any]:
    """An event with a text somewhere."""
    if place in ("features", "metrics"):
        return GOOD | {place: {text: 1, "other": 2}}
    if place == "segment":
        return GOOD | {"segment": {text: "PT", "country": "PT"}}
    return GOOD | ({"features": {"plan": text}} if place == "category" else
                   {"segment": {"country": text}} if place == "value" else {place: text})


@settings(max_examples=1_000)
@given(st.sampled_from(PLACES), ODD, st.booleans())
def test_texts_of_any_letters_are_judged_and_read_as_by_the_contract(place: str, text: str, ascii_only: bool) -> None:
    agree(json.dumps(put(place, text), ensure_ascii=ascii_only).encode())


@settings(max_examples=1_000)
@given(st.sampled_from(PLACES), st.lists(INSIDE, min_size=1, max_size=3))
def test_texts_of_any_bytes_are_judged_and_read_as_by_the_contract(place: str, parts: list[bytes]) -> None:
    agree(json.dumps(put(place, "@@")).encode().replace(b"@@", b"".join(parts)))


NUMBER = st.integers(0, 99).map("{:02}".format)
INSTANT = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["1969", "1970", "2000", "2023", "2024", "2100", "2999", "3000", "9999", "0000"]),
    st.sampled_from(["00", "01", "02", "04", "12", "13"]), st.sampled_from(["00", "01", "28", "29", "30", "31", "32"]),
    st.sampled_from(["T", " ", "t", "_", ""]), NUMBER | st.sampled_from(["00", "23", "24"]), NUMBER | st.just("59"),
    NUMBER | st.sampled_from(["59", "60"]),
    st.sampled_from(["", ".", ",5", ".5", ".05", ".999", ".9999", ".999999", ".9999999", ".999999999", ".9999999999"]),
    st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+0530", "-08:00", "+23:59", "+24:00", "+12:60", "+05", "-0",
                     "Z ", " Z", "+5:30", "+05:3"]))


@settings(max_examples=2_000)
@given(INSTANT)
@example("2024-02-29T23:59:59.999999Z")
@example("2023-02-29T00:00:00Z")
@example("1970-01-01T00:00:00+00:01")
@example("2999-12-31T23:59:59-23:59")
def test_instants_are_judged_and_read_as_by_the_contract(text: str) -> None:
    agree(json.dumps(GOOD | {"ts": text}).encode())


def test_the_usual_instants_need_no_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TelemetryEvent, "model_validate_json", None)
    texts = ["2024-02-29T23:59:59Z", "2024-02-29 23:59:59.5+00:00", "2024-03-01T01:29:59.123456+01:30",
             "2000-03-01T00:00:00-0000"]
    batch = decode(*(json.dumps(GOOD | {"ts": text}).encode() for text in texts), limits=Limits(max_ahead_ms=0))
    assert batch.ts_ms.tolist() == [int(datetime.fromisoformat(text).timestamp() * 1000) for text in texts]


@settings(max_examples=500)
@given(JSON, st.booleans(), st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 2), st.binary(max_size=2)))
@example([[[]], {}, {"a": [{}, {"b": None}]}, [1, [2, {"c": "\ud83d\ude00"}]]], True, None)
def test_what_nobody_reads_must_be_json_all_the_same(held: Any, ascii_only: bool, change: Any) -> None:
    value = json.dumps(held, ensure_ascii=ascii_only).encode()
    if change is not None:
        at = change[0] % (len(value) + 1)
        value = value[:at] + change[2] + value[at + change[1]:]
    agree(json.dumps(GOOD | {"unknown": "@@"}).encode().replace(b'"@@"', value))


@pytest.mark.parametrize("depth", [1, 59, 60, 61, 150, 250])
def test_what_nobody_reads_may_be_deep(depth: int) -> None:
    for inside in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth + b"}" * depth):
        agree(json.dumps(GOOD | {"unknown": "@@"}).encode().replace(b'"@@"', inside))


EQUALS = st.dictionaries(st.sampled_from(["a", "a=b", "a=b=c", "b", ""]),
                         st.sampled_from(["b", "b=c", "c", "", "d=", 1.0, None]), max_size=3)


@settings(max_examples=500)
@given(st.lists(st.lists(st.tuples(EQUALS, st.sampled_from(["m", "n"]), st.sampled_from([None, "model", "c"])),
                         min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_field_has_one_number_however_its_name_came_about(batches: list[list[Any]]) -> None:
    decoder = Decoder(Limits(max_ahead_ms=0))
    for chosen in batches:
        events = [GOOD | {"features": features, "model": model} | ({"component": component} if component else {})
                  for features, model, component in chosen]
        batch = decoder(RecordBatch("t", 0, [record(json.dumps(event).encode(), at)
                                             for at, event in enumerate(events)]))
        assert len(set(batch.fields)) == len(batch.fields)
        assert len(set(batch.keys)) == len(batch.keys)
        good = [at for at, event in enumerate(events) if "" not in event["features"]]
        assert batch.offset.tolist() == good
        for row, at in enumerate(good):
            features, model, component = chosen[at]
            assert batch.keys[batch.series[row]] == ("prod", model, "3", component or "model")
            want = {f"feature.{name}={held}" if isinstance(held, str) else f"feature.{name}"
                    for name, held in features.items()}
            assert {name for name in values_of(batch, row) if name.startswith("feature.")} == want


def test_new_names_need_no_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    first, judged = Decoder(), list[bytes]()
    contract = TelemetryEvent.model_validate_json
    monkeypatch.setattr(TelemetryEvent, "model_validate_json", lambda value: (judged.append(value), contract(value))[1])
    values = [json.dumps(GOOD | {"model": f"m{at % 100}", "prediction": f"é{at}", "error": 'said "no"\n',
                                 "features": {"id": f"user {at}", f"ü{at % 30}": at}, "more": [{"a": [at]}]}).encode()
              for at in range(5_000)]
    batch = first(RecordBatch("t", 0, [record(value, at) for at, value in enumerate(values)]))
    assert len(batch) == 5_000
    assert len(judged) < 20, "only where room is made for more names"
    for row in (0, 17, 4_999):
        assert batch.keys[batch.series[row]].model == f"m{row % 100}"
        assert {f"feature.id=user {row}": 1.0, f"feature.ü{row % 30}": float(row), f"prediction=é{row}": 1.0}.items() \
            <= values_of(batch, row).items()


@given(st.binary(max_size=200))
def test_any_bytes_are_judged_as_the_contract_judges_them(value: bytes) -> None:
    if value.lstrip()[:1] != b"[" and value:
        agree(value)
