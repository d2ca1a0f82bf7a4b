"""The quick form of a window and its contract are one."""

from __future__ import annotations

import json

import msgspec
import pytest
from pydantic import ValidationError

from schemas.windows import MetricWindow, Summary
from streams import metrics
from streams.windows.record import SummaryRecord, WindowRecord, buckets, read_head, read_window, write_window

FULL = WindowRecord(
    environment="prod", model="churn", version="3", component="model", window_id="w-1-1000-0-2", start_ms=5_000,
    size_ms=1_000, partition=2, count=4, errors=1, revision=1, closed_ms=7_000,
    fields={"latency_ms": SummaryRecord(count=3, missing=1, sum=6.0, min=1.0, max=3.0, mean=2.0, m2=2.0,
                                        buckets=buckets([(-3, 1), (40, 2)])),
            "prediction=yes": SummaryRecord(count=4)})


def test_both_forms_have_the_same_fields() -> None:
    for quick, contract in ((WindowRecord, MetricWindow), (SummaryRecord, Summary)):
        assert {field.encode_name for field in msgspec.structs.fields(quick)} == set(contract.model_fields)


def test_what_one_writes_the_other_reads() -> None:
    contract = MetricWindow.model_validate_json(write_window(FULL))
    assert contract.model_dump(mode="json", exclude_unset=True) == json.loads(write_window(FULL))
    assert read_window(contract.model_dump_json(exclude_unset=True).encode()) == FULL
    assert json.loads(FULL.fields_json()) == json.loads(write_window(FULL))["fields"]


def test_that_a_sketch_is_a_sample_is_said_and_nothing_is_where_it_is_whole() -> None:
    sampled = SummaryRecord(count=9, sketched=5, buckets=buckets([(40, 8)]))
    found = msgspec.structs.replace(FULL, fields=FULL.fields | {"feature.x": sampled})
    contract = MetricWindow.model_validate_json(write_window(found))
    assert [contract.fields[name].sketched for name in found.fields] == [None, None, 5]
    assert read_window(contract.model_dump_json().encode()).fields["feature.x"] == sampled
    assert b'"sketched"' not in write_window(FULL)


def test_what_only_the_contract_reads_is_read_by_it() -> None:
    body = json.loads(write_window(FULL))
    del body["component"], body["revision"]
    body["start_ms"] = "1970-01-01T00:00:05Z"
    assert read_window(json.dumps(body).encode()) == msgspec.structs.replace(FULL, revision=0)


def test_a_sketch_is_read_when_it_is_wanted_and_a_damaged_one_is_counted() -> None:
    assert FULL.fields["latency_ms"].sketch == [(-3, 1), (40, 2)]
    assert FULL.fields["prediction=yes"].sketch == []
    before = metrics.SKIPPED.labels("sketch")._value.get()
    body = json.loads(write_window(FULL))
    body["fields"]["latency_ms"]["sketch"] = [[1, "many"]]
    assert read_window(json.dumps(body).encode()).fields["latency_ms"].sketch == []
    assert metrics.SKIPPED.labels("sketch")._value.get() == before + 1


def test_a_head_is_the_window_with_its_summaries_as_they_came() -> None:
    head = read_head(write_window(FULL))
    assert head.fields_json() == FULL.fields_json()
    assert {field.name for field in msgspec.structs.fields(head)} == set(MetricWindow.model_fields)
    assert all(getattr(head, name) == getattr(FULL, name) for name in MetricWindow.model_fields if name != "fields")
    body = json.loads(write_window(FULL)) | {"start_ms": "1970-01-01T00:00:05Z"}
    assert read_head(json.dumps(body).encode()) == head
    for wrong in (b"{", json.dumps(body | {"fields": []}).encode(), json.dumps(body | {"model": "a b"}).encode()):
        with pytest.raises(ValueError):
            read_head(wrong)


@pytest.mark.parametrize(("field", "value"), [
    ("count", -1), ("errors", 1.5), ("model", ""), ("model", "a b"), ("start_ms", -1), ("size_ms", 0), ("window_id", 7),
    ("start_ms", 10**17), ("fields", {"x": {"count": -1}}), ("fields", {"x": {"count": 1, "m2": -0.1}}),
    ("fields", {"x": {"count": 1, "sum": float("inf")}}), ("fields", []),
    ("environment", None), ("model", "x" * 129),
])
def test_what_breaks_the_contract_is_refused_with_its_error(field: str, value: object) -> None:
    body = json.loads(write_window(FULL)) | {field: value}
    with pytest.raises(ValidationError):
        read_window(json.dumps(body).encode())


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_window_at_all_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):
        read_window(value)
