"""Pace, durations and the ground-truth file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.cli.duration import parse_ms
from infra.demo.incidents import Incident
from infra.demo.run import Pace
from infra.demo.truth import GroundTruth, read

NOW = 1_700_000_000_500
ONE = Incident("i-0000", "unit_change", "prod", "m", "", "model", "feature.x", "x in another unit", 1_000, 2_000)


@pytest.mark.parametrize(("text", "ms"), [("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000),
                                          ("45", 45_000), ("250ms", 250), (" 1.5 m ", 90_000)])
def test_lengths_of_time_are_read_as_people_write_them(text: str, ms: int) -> None:
    assert parse_ms(text) == ms


@pytest.mark.parametrize("text", ["", "ten", "10x", "-5s", "0s", "m10", "10m5"])
def test_what_is_not_a_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        parse_ms(text)


def test_a_timed_run_starts_in_the_past_and_ends_now_without_running_ahead() -> None:
    pace = Pace.starting(NOW, 20.0, 60_000)
    assert pace.length_ms == 1_200_000
    for elapsed in (0, 1_000, 59_999, 60_000, 61_000):
        assert pace.due_ms(elapsed, NOW + elapsed) <= NOW + elapsed
    assert pace.due_ms(61_000, NOW + 61_000) == pace.end_ms


def test_at_speed_one_event_time_is_the_clock() -> None:
    pace = Pace.starting(NOW, 1.0, None)
    assert pace.origin_ms == NOW // 1000 * 1000
    assert pace.due_ms(10_000, NOW + 10_000) == pace.origin_ms + 10_000


def test_an_endless_accelerated_run_catches_up_with_the_clock_and_stays_with_it() -> None:
    pace = Pace.starting(NOW, 5.0, None)
    half, after = 1_800_000, 7_200_000
    assert pace.due_ms(half, NOW + half) == pace.origin_ms + 5 * half < NOW + half
    assert pace.due_ms(after, NOW + after) == NOW + after


def test_the_truth_is_there_from_an_incidents_start_and_closed_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "ground-truth.ndjson"
    truth = GroundTruth(path)
    assert read(path) == []
    truth.note([ONE])
    assert read(path) == [ONE]
    other = replace(ONE, incident_id="i-0001", kind="null_column")
    truth.note([replace(ONE, end_ms=1_500, closed=True), other])
    assert read(path) == [replace(ONE, end_ms=1_500, closed=True), other]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_new_run_begins_an_empty_truth(tmp_path: Path) -> None:
    GroundTruth(tmp_path / "t.ndjson").note([ONE])
    GroundTruth(tmp_path / "t.ndjson")
    assert read(tmp_path / "t.ndjson") == []
