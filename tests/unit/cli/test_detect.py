"""`streamgauge detect`: real files from the shell, with a page, and sentences for what is wrong."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from infra.cli.main import app

ROWS, SPIKE = 3_000, 2_500


def values() -> np.ndarray:
    at = np.arange(ROWS)
    found = 50.0 + 30.0 * np.sin(2.0 * np.pi * at / 288) + np.random.default_rng(1).standard_normal(ROWS) * 2.0
    found[SPIKE] += 90.0
    return np.asarray(found)


def lines(*extra: str) -> list[dict[str, str]]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [{"timestamp": (start + timedelta(minutes=5 * i)).isoformat(), "load": repr(float(value)),
             "other": str(i % 7), **({"anomaly": str(int(i == SPIKE))} if "anomaly" in extra else {})}
            for i, value in enumerate(values())]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["detect", *map(str, words)])


def figures(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    found: dict = json.loads(result.stdout.splitlines()[-1])
    return found


def test_a_spike_in_a_csv_is_found_listed_and_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "load.csv", lines("anomaly"))
    result = run(path, "--json")
    found = figures(result)
    assert SPIKE + 1 in [each["row"] for each in found["anomalies"]]
    assert found["columns"] == ["load", "other"]
    assert found["truth"]["stretches"] == found["truth"]["found"] == 1
    assert "2026-01-09 16:20:00" in result.stdout and "load = " in result.stdout
    page = (tmp_path / "load.anomalies.html").read_text()
    drawing = ElementTree.fromstring(re.search(r"<svg.*</svg>", page, re.DOTALL)[0])      # type: ignore[index]
    kinds = [each.get("class") for each in drawing.iter()]
    assert kinds.count("line") == 2 and kinds.count("score") == 1 and kinds.count("threshold") == 1
    assert kinds.count("alarm") == len(found["anomalies"]) and kinds.count("truth") == 1
    assert "http" not in page.replace("http-equiv", "")


def test_a_picture_shows_the_anomalies_in_red(tmp_path: Path) -> None:
    from matplotlib.image import imread
    path = write(tmp_path / "load $1.csv", lines("anomaly"))
    pictures, alarms = [], []
    for name, threshold in (("found.png", []), ("quiet.PNG", ["--threshold", "1"])):
        found = figures(run(path, "--columns", "load", "--plot", name, "--json", *threshold))
        assert found["plot"] == name
        alarms.append(len(found["anomalies"]))
        pictures.append(imread(tmp_path / name, format="png")[..., :3])
    assert alarms[0] > alarms[1] == 0
    assert pictures[0].shape == pictures[1].shape and pictures[0].shape[1] == 1_680
    red = [int(((pixels[..., 0] > 0.8) & (pixels[..., 1] < 0.25)).sum()) for pixels in pictures]
    assert red[0] > red[1] + 50 * alarms[0], red


def test_without_matplotlib_a_picture_is_refused_before_anything_is_scored(tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.detect.picture.find_spec", lambda name: None)
    result = run(write(tmp_path / "load.csv", lines()), "--plot", "found.png", "--out", "scores.csv")
    assert result.exit_code == 2
    assert "pip install matplotlib" in " ".join(result.stderr.split())
    assert not (tmp_path / "scores.csv").exists()


def test_one_column_is_scored_with_its_scores_in_a_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "load.csv", lines())
    found = figures(run(path, "--columns", "load", "--out", "scores.csv", "--no-plot", "--json"))
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == ROWS and not (tmp_path / "load.anomalies.html").exists()
    assert [int(row["row"]) for row in rows if row["anomaly"] == "1"] == [each["row"] for each in found["anomalies"]]
    assert rows[SPIKE]["anomaly"] == "1" and rows[SPIKE]["pushed_by"] == "load"


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet
    rows = lines()
    parquet.write_table(arrow.table({"timestamp": [datetime.fromisoformat(row["timestamp"]) for row in rows],
                                     "load": [float(row["load"]) for row in rows]}), tmp_path / "load.parquet")
    a = figures(run("load.parquet", "--json"))
    b = figures(run(write(tmp_path / "load.csv", rows), "--columns", "load", "--json"))
    assert a["anomalies"] == b["anomalies"]


def test_bad_rows_and_values_are_counted_and_the_rest_is_scored(tmp_path: Path) -> None:
    rows = lines()
    rows[100]["timestamp"], rows[200]["load"], rows[300]["load"] = "soon", "n/a", ""
    result = run(write(tmp_path / "load.csv", rows), "--json")
    found = figures(result)
    assert found["rows"] == ROWS - 1 and found["skipped_rows"] == 1
    assert "1 rows left out; row 101: no time: 'soon'" in result.stderr
    assert "1 values are no numbers" in result.stderr
    assert SPIKE + 1 in [each["row"] for each in found["anomalies"]]


def test_a_file_without_times_is_scored_and_the_user_told(tmp_path: Path) -> None:
    path = write(tmp_path / "load.csv", [{"load": row["load"]} for row in lines()])
    result = run(path, "--json")
    assert "no column of times" in result.stderr
    assert SPIKE + 1 in [each["row"] for each in figures(result)["anomalies"]]
    timed = run(path, "--interval", "5m", "--json")
    assert "no column of times" not in timed.stderr
    assert SPIKE + 1 in [each["row"] for each in figures(timed)["anomalies"]]


@pytest.mark.parametrize("detectors", ["ensemble", "half_space_trees", "holt_winters"])
def test_other_detectors_can_be_chosen(tmp_path: Path, detectors: str) -> None:
    path = write(tmp_path / "load.csv", lines())
    found = figures(run(path, "--columns", "load", "--detectors", detectors, "--json"))
    assert SPIKE + 1 in [each["row"] for each in found["anomalies"]]


@pytest.mark.parametrize("words, said", [
    (["absent.csv"], "is not a file"),
    (["load.csv", "--columns", "nothing"], "has no column nothing; it has timestamp, load, other"),
    (["load.csv", "--time", "when"], "has no column when"),
    (["load.csv", "--plot", "plot.gif"], "plots are HTML pages or PNG pictures"),
    (["load.csv", "--detectors", "crystal_ball"], "'crystal_ball' is no detector: choose from"),
    (["load.csv", "--detectors", "time_series,loda"], "works alone"),
    (["load.csv", "--interval", "soon"], "is not a length of time"),
    (["words.csv"], "no column of numbers"),
    (["wide.csv"], "300 columns are more than a detector takes (256 with the time): name some by --columns"),
    (["wide.csv", "--detectors", "half_space_trees"], "name some by --columns"),
    (["empty.csv"], "the first line must name every column"),
])
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    write(tmp_path / "load.csv", lines())
    write(tmp_path / "words.csv", [{"word": "a"}, {"word": "b"}])
    write(tmp_path / "wide.csv", [{f"c{i}": float(i) for i in range(300)}] * 3)
    (tmp_path / "empty.csv").write_text("")
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    result = run(write(tmp_path / "load.csv", lines()), "--plot", "/proc/no/plot.html")
    assert result.exit_code == 1
    assert "/proc/no/plot.html cannot be written" in result.stderr
