"""Refused records sent again: which ones, how mended, and what is left out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from infra.cli.rejected import _change, since_ms
from infra.cli.resubmit import Choice, key_of, mended, payload_of, prepare
from schemas.rejected import RejectedRecord
from streams.settings import Settings

NOW = 1_767_225_600_000
EVENT = {"event_id": "e1", "ts": NOW, "environment": "prod", "model": "churn", "version": "3", "latency_ms": 4.0}
SETTINGS = Settings(kafka_url="x:1")


def refused(payload: bytes | dict[str, Any], reason: str = "wrong_type", key: bytes = b"churn",
            topic: str = "telemetry", offset: int = 0, **fields: Any) -> RejectedRecord:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return RejectedRecord(rejected_id=f"r-{topic}-0-{offset}", reason=reason, field="", message="m", topic=topic,
                          partition=0, offset=offset, ts=NOW, key_base64=base64.b64encode(key).decode(),
                          payload_base64=base64.b64encode(raw).decode(), payload_size_bytes=len(raw), **fields)


def test_a_mended_record_is_ready_and_one_that_is_still_wrong_is_left_out() -> None:
    wrong = refused(EVENT | {"latency_ms": "4"})
    assert prepare([wrong], {}, SETTINGS, now_ms=NOW).ready == []
    plan = prepare([wrong], {"latency_ms": 4.0}, SETTINGS, now_ms=NOW)
    assert [json.loads(payload) for _, payload in plan.ready] == [EVENT]
    (_, text), = prepare([wrong], {}, SETTINGS, now_ms=NOW).left_out
    assert "would be refused again: wrong_type" in text


def test_without_changes_the_original_bytes_are_sent_untouched() -> None:
    raw = b' {"ts":%d,  "event_id":"e1","environment":"prod","model":"churn","version":"3","x":1e5} ' % NOW
    plan = prepare([refused(raw, "from_future")], {}, SETTINGS, now_ms=NOW)
    assert [payload for _, payload in plan.ready] == [raw]
    assert key_of(plan.ready[0][0]) == b"churn"


def test_force_sends_what_would_be_refused_again() -> None:
    record = refused(b"\xff\x00 not json", "not_json")
    assert [payload for _, payload in prepare([record], {}, SETTINGS, force=True).ready] == [payload_of(record)]


def test_a_record_that_was_cut_short_is_never_sent() -> None:
    plan = prepare([refused(EVENT, "too_large", truncated=True)], {}, SETTINGS, force=True)
    assert (plan.ready, len(plan.left_out)) == ([], 1)


def test_labels_are_tried_against_their_own_contract() -> None:
    label = {"event_id": "e1", "ts": NOW, "environment": "prod", "model": "churn", "version": "3", "prediction": "a",
             "label": "b"}
    assert prepare([refused(label, topic="feedback")], {}, SETTINGS).ready
    assert prepare([refused(label, topic="feedback")], {"label": None}, SETTINGS).left_out


def test_what_the_clock_refused_is_tried_against_the_clock_of_now() -> None:
    future = refused(EVENT | {"ts": NOW + 10_000_000}, "from_future")
    assert prepare([future], {}, SETTINGS, now_ms=NOW).left_out
    assert prepare([future], {}, SETTINGS, now_ms=NOW + 10_000_000).ready


def test_a_dot_leads_into_an_object_and_never_into_something_else() -> None:
    assert json.loads(mended(b'{"a": {"b": 1}}', {"a.b": 2, "c.d": None})) == {"a": {"b": 2}, "c": {"d": None}}
    for raw in (b"[1]", b'{"a": 1}', b"nonsense", b"[" * 100_000):
        with pytest.raises(ValueError, match="set"):
            mended(raw, {"a.b": 2})


@pytest.mark.parametrize(("choice", "takes"), [
    (Choice(), True), (Choice(reason="wrong_type"), True), (Choice(reason="not_json"), False),
    (Choice(model="churn"), True), (Choice(model="chur"), False), (Choice(since_ms=NOW), True),
    (Choice(since_ms=NOW + 1), False), (Choice(ids=frozenset({"r-telemetry-0-0"})), True),
    (Choice(ids=frozenset({"x"})), False), (Choice(reason="wrong_type", model="other"), False)])
def test_filters_choose(choice: Choice, takes: bool) -> None:
    assert choice.takes(refused(EVENT)) is takes


def test_a_model_is_found_in_the_bytes_when_the_key_is_another() -> None:
    assert Choice(model="churn").takes(refused(EVENT, key=b""))
    assert not Choice(model="churn").takes(refused(b"churn", "not_json", key=b""))


@pytest.mark.parametrize(("text", "change"), [
    ("version=3", ("version", 3)), ('version="3"', ("version", "3")), ("environment=prod", ("environment", "prod")),
    ("features.age=null", ("features.age", None)), ("error=a=b", ("error", "a=b"))])
def test_a_change_is_json_or_else_text(text: str, change: tuple[str, Any]) -> None:
    assert _change(text) == change


@pytest.mark.parametrize(("text", "ms"), [
    ("", 0), ("10m", NOW - 600_000), ("1767225600001", NOW + 1), ("2026-01-01T00:00:00Z", NOW)])
def test_since_is_an_age_or_an_instant(text: str, ms: int) -> None:
    assert since_ms(text, NOW) == ms


def test_since_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        since_ms("2026-01-01T00:00:00", NOW)
