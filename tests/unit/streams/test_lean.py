"""The lean decoder against the contract: it accepts, refuses and reads exactly the same records."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lean_support import FIELD, GOOD, JSON, agree, record, values_of

from schemas.telemetry import TelemetryEvent
from streams.batch import Decoder, Limits
from streams.records import RecordBatch

RAW = st.sampled_from([b"1e400", b"-0", b"1.0", b"1700000000000.0", b"1E3", b"123456789012345678901234567890",
                       b'"\\ud800"', b"NaN", b"Infinity", b"true", b'""', b"01", b"1.", b'"2026-01-01T00:00:00Z"',
                       b'"1700000000000"', b"{}", b"[]", b'{"a":1,"a":"b"}', b'{"":1}'])
SPELLINGS = [json.dumps(GOOD).encode(), json.dumps(GOOD, separators=(",", ":")).encode(),
             json.dumps(GOOD, indent=1, ensure_ascii=False).encode(),
             json.dumps(dict(reversed(GOOD.items())) | {"more": 1, "metrics": {"tokens": -1.5e-7}}).encode()]


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
