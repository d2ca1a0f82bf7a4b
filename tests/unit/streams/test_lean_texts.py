"""Texts, instants and what nobody reads: judged and read by the lean decoder as by the contract."""

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lean_support import GOOD, JSON, agree, decode

from schemas.telemetry import TelemetryEvent
from streams.batch import Limits

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
