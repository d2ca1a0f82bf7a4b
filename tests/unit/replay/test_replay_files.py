"""People's own files as telemetry: what is read, what is meant by it, and what is said of the rest."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from infra.replay.mapping import Faults, Mapper, Mapping, instant_ms
from infra.replay.play import Choice, merged, restamped, shift_to_now_ms
from infra.replay.refused import Refused
from infra.replay.sources import SourceError, open_source
from schemas.telemetry import TelemetryEvent
from streams.settings import Settings

T0_MS = 1_700_000_000_000
NOW_MS = T0_MS + 86_400_000
RUN = CliRunner()


def mapped(path: Path, start: int = 0, limit: int | None = None,
           **said: Any) -> tuple[list[dict[str, Any]], Faults, Mapper]:
    mapper, faults = Mapper(open_source(path), Mapping(**said), NOW_MS), Faults()
    return [event for _, event in mapper.events(faults, start, limit)], faults, mapper


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(count: int = 5) -> list[dict[str, Any]]:
    return [{"ts": T0_MS + 60_000 * i, "cpu": 0.5 * i, "host": "web 1", "y": i % 2} for i in range(count)]


def as_csv(folder: Path, delimiter: str = ",", ending: str = ".csv") -> Path:
    lines = [delimiter.join(rows()[0]), *(delimiter.join(str(value) for value in row.values()) for row in rows())]
    return written(folder, f"table{ending}", "\n".join(lines) + "\n")


def as_ndjson(folder: Path) -> Path:
    return written(folder, "table.ndjson", "".join(json.dumps(row) + "\n" for row in rows()))


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows()), folder / "table.parquet")
    return folder / "table.parquet"


@pytest.mark.parametrize("make", [as_csv, as_ndjson, as_parquet, lambda folder: as_csv(folder, ";"),
                                  lambda folder: as_csv(folder, "\t", ".tsv")],
                         ids=["csv", "ndjson", "parquet", "csv with semicolons", "tsv"])
def test_the_same_table_gives_the_same_events_whatever_its_form(make: Any, tmp_path: Path) -> None:
    events, faults, _ = mapped(make(tmp_path), label="y", segment=("host",), classes=True)
    assert faults.total == 0
    assert events == [{"event_id": f"table-{i + 1}", "ts": T0_MS + 60_000 * i, "environment": "replay",
                       "model": "table", "version": "v1", "component": "model", "features": {"cpu": 0.5 * i},
                       "segment": {"host": "web 1"}, "label": str(i % 2)} for i in range(5)]
    for event in events:
        TelemetryEvent.model_validate(event)


@pytest.mark.parametrize(("value", "ms"), [
    (1_700_000_000, T0_MS), ("1700000000.5", T0_MS + 500), (T0_MS, T0_MS), (T0_MS * 1000, T0_MS),
    (T0_MS * 1_000_000, T0_MS), ("2023-11-14T22:13:20Z", T0_MS), ("2023-11-15T03:43:20+05:30", T0_MS),
    ("2023-11-14 22:13:20", T0_MS), (dt.datetime.fromtimestamp(T0_MS / 1000, dt.UTC), T0_MS),
    (dt.date(2023, 11, 14), T0_MS - 80_000_000)], ids=str)
def test_an_instant_is_read_in_every_form_that_files_have(value: Any, ms: int) -> None:
    assert instant_ms(value)[0] == ms


def test_a_time_without_a_zone_is_utc_and_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "timestamp,x\n14/11/2023 22:13,1\n14/11/2023 22:14,2\n")
    assert mapped(path)[1].shown[0].endswith("say how it is written with --time-format")
    events, _, mapper = mapped(path, time_format="%d/%m/%Y %H:%M")
    assert [event["ts"] for event in events] == [T0_MS - 20_000, T0_MS + 40_000]
    assert mapper.without_zone == 2


def test_rows_that_cannot_be_an_event_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, "t.ndjson", '{"ts": 1, "x": 1}\nnot json\n[1]\n{"x": 2}\n{"ts": 2, "x": NaN}\n'
                                         '{"ts": 3, "x": 1, "c": 7}\n')
    events, faults, _ = mapped(path, confidence="c")
    assert [(event["ts"], event["features"]) for event in events] == [(1_000, {"x": 1.0}), (2_000, {"x": None})]
    assert (faults.total, len(faults.shown)) == (4, 4)


def test_rows_earlier_than_any_before_them_are_counted_not_only_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "ts,x\n" + "".join(f"{T0_MS + 1000 * i},1\n" for i in (5, 6, 2, 3, 4, 7)))
    assert mapped(path)[2].disordered == 3


@pytest.mark.parametrize(("name", "content", "said"), [
    ("t.csv", "", "first line must name every column"), ("t.csv", "a,a\n1,2\n", "each once"),
    ("t.csv", "when,x\n1,2\n", "Give --time"), ("t.parquet", "PAR1 is not all", "is not a Parquet file"),
    ("t.ndjson", "x\n", "no row with columns"), ("t.txt", "x", "Known endings"),
    ("t.npz", "x", "not a readable npz file")])
def test_a_file_that_cannot_be_replayed_is_one_sentence_and_2(name: str, content: str, said: str,
                                                              tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(SourceError, match=said):
        Mapper(open_source(path), Mapping(), NOW_MS)
    answer = RUN.invoke(app, ["replay", str(path), "--dry-run"])
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no column nope; it has ts, cpu, host, y"):
        Mapper(open_source(as_csv(tmp_path)), Mapping(label="nope"), NOW_MS)


def test_an_array_has_no_time_and_gets_one_by_interval(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", X_test=np.arange(6.0).reshape(3, 2), y=np.zeros(3))
    events, _, _ = mapped(tmp_path / "m.npz", interval_ms=60_000)
    assert [event["ts"] for event in events] == [NOW_MS - 120_000, NOW_MS - 60_000, NOW_MS]
    assert events[2]["features"] == {"x00": 4.0, "x01": 5.0}


def test_several_files_are_merged_by_time_within_the_chosen_rows(tmp_path: Path) -> None:
    one = written(tmp_path, "one.csv", "ts,x\n" + "".join(f"{T0_MS + i},1\n" for i in (0, 20, 40, 60)))
    two = written(tmp_path, "two.csv", "ts,x\n" + "".join(f"{T0_MS + i},1\n" for i in (10, 30, 50, 70)))
    mappers = [Mapper(open_source(path), Mapping(), NOW_MS) for path in (one, two)]
    found = [ts - T0_MS for ts, _ in merged(mappers, Choice(start=1, limit=2), Faults())]
    assert found == [20, 30, 40, 50]


def test_restamped_events_keep_their_distances_divided_by_the_speed() -> None:
    events = [(T0_MS + at, {"ts": T0_MS + at, "model": "m"}) for at in (0, 60_000, 50_000, 180_000)]
    found = list(restamped(iter(events), 60.0, NOW_MS))
    assert [ts - NOW_MS for ts, _ in found] == [0, 1_000, 833, 3_000]
    assert all(event["ts"] == ts for ts, event in found)


def test_times_shifted_to_now_end_when_the_replay_does() -> None:
    for speed in (0.0, 1.0, 60.0):
        shift = shift_to_now_ms((T0_MS, T0_MS + 600_000), speed, NOW_MS)
        takes = 600_000 / speed if speed else 0
        assert T0_MS + 600_000 + shift == NOW_MS + takes


class TestWhatThePipelineWillRefuse:
    """Said by the replay itself, as nobody looks for it elsewhere."""

    SETTINGS = Settings(grace_ms=30_000, watermark_delay_ms=1_000, max_ahead_ms=10_000)

    def counted(self, times: list[int], newest_ms: dict[str, int]) -> Refused:
        refused = Refused(self.SETTINGS, newest_ms, clock_ms=lambda: NOW_MS)
        assert len(list(refused.watch((ts, {"model": "m"}) for ts in times))) == len(times)
        return refused

    def test_events_older_than_the_grace_of_what_it_has_had(self) -> None:
        newest = T0_MS + 31_000         # panes that end at T0 or before are gone
        refused = self.counted([T0_MS - 1, T0_MS, T0_MS + 1], {"m": newest})
        assert (refused.late, refused.outside) == (1, 0)
        assert "--restamp" in refused.texts()[0]

    def test_nothing_on_a_pipeline_that_has_had_nothing(self) -> None:
        refused = self.counted([T0_MS - 1, T0_MS], {})
        assert refused.texts() == []

    def test_rows_of_the_file_itself_that_come_too_late(self) -> None:
        assert self.counted([T0_MS + 40_000, T0_MS], {}).late == 1

    def test_events_from_the_future(self) -> None:
        refused = self.counted([NOW_MS + 10_001, NOW_MS], {})
        assert (refused.late, refused.outside) == (0, 1)
        assert "STREAMGAUGE_MAX_AHEAD_MS" in refused.texts()[0]


def test_restamp_needs_a_speed(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["replay", str(as_csv(tmp_path)), "--restamp"]).exit_code == 2


def test_a_dry_run_shows_events_and_needs_no_broker(tmp_path: Path) -> None:
    answer = RUN.invoke(app, ["replay", str(as_csv(tmp_path)), "--restamp", "--speed", "60", "--dry-run", "-q"])
    assert answer.exit_code == 0, answer.output
    times = [int(line.split(":")[1].strip(" ,")) for line in answer.output.splitlines() if '"ts"' in line]
    assert [b - a for a, b in pairwise(times)] == [1_000, 1_000]
