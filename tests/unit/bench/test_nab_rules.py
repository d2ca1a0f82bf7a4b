"""NAB's rules, by hand and on a corpus of their own form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.bench.nab_rules import NONE, Corpus, Profile, Series, probation, read, sigmoid, worth

STANDARD, LOW_FP, LOW_FN = Profile(1.0, 0.11, 1.0), Profile(1.0, 0.22, 1.0), Profile(1.0, 0.11, 2.0)
BEST = 2.0 / (1.0 + math.exp(-5.0)) - 1.0


def series(rows: int, *windows: tuple[int, int]) -> Series:
    return Series(f"a/{rows}.csv", np.arange(rows) * 3e5, np.zeros(rows), windows)


def scores(rows: int, *alarms: int) -> np.ndarray:
    found = np.zeros(rows)
    found[list(alarms)] = 1.0
    return found


CORPUS = Corpus([series(1_000, (400, 499), (700, 799)), series(300), series(500, (200, 249))])
SIZES = (1_000, 300, 500)


def corpus_scores(*alarms: tuple[int, int]) -> list[np.ndarray]:
    return [scores(rows, *(row for place, row in alarms if place == number)) for number, rows in enumerate(SIZES)]


@pytest.mark.parametrize("position, expected", [(-1.0, 0.98661), (-0.5, 0.84828), (0.0, 0.0), (1.0, -0.98661),
                                                (2.9, -1.0), (3.0, -1.0), (50.0, -1.0)])
def test_the_sigmoid_is_that_of_the_paper(position: float, expected: float) -> None:
    assert sigmoid(position) == pytest.approx(expected, abs=1e-5)


def test_the_first_row_of_a_window_is_worth_one_and_its_last_row_little() -> None:
    value, window = worth(1_000, [(400, 499)])
    assert value[400] == 1.0
    assert value[449] == pytest.approx(sigmoid(-51 / 100) / BEST)
    assert value[499] == pytest.approx(sigmoid(-1 / 100) / BEST)
    assert window[399] == NONE and window[400] == window[499] == 0 and window[500] == NONE


def test_an_alarm_outside_costs_less_the_nearer_it_follows_a_window() -> None:
    value, _ = worth(1_000, [(400, 499)])
    assert (value[:400] == -1.0).all()
    assert value[500] == pytest.approx(sigmoid(1 / 99))
    assert value[598] == pytest.approx(-0.98661, abs=1e-5)
    assert (value[499 + 3 * 99:] == -1.0).all()
    assert (np.diff(value[500:]) <= 0.0).all()


@pytest.mark.parametrize("rows, expected", [(1_000, 150), (1_127, 169), (5_000, 750), (22_695, 750)])
def test_probation_is_fifteen_percent_and_750_rows_at_most(rows: int, expected: int) -> None:
    assert probation(rows) == expected


@pytest.mark.parametrize("profile", [STANDARD, LOW_FP, LOW_FN])
def test_no_alarm_scores_0_and_a_perfect_detector_100(profile: Profile) -> None:
    assert CORPUS.best(corpus_scores(), profile).score == pytest.approx(0.0)
    assert CORPUS.best([np.full(rows, 0.5) for rows in SIZES], profile).score == pytest.approx(0.0)
    perfect = CORPUS.best(corpus_scores((0, 400), (0, 700), (2, 200)), profile)
    assert perfect.score == pytest.approx(100.0)
    assert (perfect.found, perfect.false_alarms, perfect.threshold) == (3, 0, 1.0)


def test_one_found_in_the_middle_one_late_one_missed_and_two_false_alarms_by_hand() -> None:
    found = corpus_scores((0, 449), (0, 460), (2, 249), (1, 100), (0, 509))
    raw = sigmoid(-51 / 100) / BEST + sigmoid(-1 / 50) / BEST - 1.0 + 0.11 * (-1.0 + sigmoid(10 / 99))
    assert CORPUS.at(found, STANDARD, 1.0).score == pytest.approx(100.0 * (raw + 3.0) / 6.0)
    raw = sigmoid(-51 / 100) / BEST + sigmoid(-1 / 50) / BEST - 2.0 + 0.11 * (-1.0 + sigmoid(10 / 99))
    assert CORPUS.at(found, LOW_FN, 1.0).score == pytest.approx(100.0 * (raw + 6.0) / 9.0)


def test_alarms_in_probation_do_not_count() -> None:
    early = corpus_scores((0, 10), (0, 149), (1, 44), (0, 400))
    assert CORPUS.at(early, STANDARD, 1.0).false_alarms == 0
    assert CORPUS.at(corpus_scores((0, 150)), STANDARD, 1.0).false_alarms == 1


def test_the_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        found = [rng.integers(0, 40, rows) / 40.0 * rng.random() for rows in SIZES]
        best = CORPUS.best(found, STANDARD)
        tried = [CORPUS.at(found, STANDARD, threshold).score for threshold in np.unique(np.concatenate(found))]
        assert best.score == pytest.approx(max(0.0, *tried))


def write(folder: Path, windows: list[list[str]]) -> Path:
    for name in ("config", "labels", "data/a"):
        (folder / name).mkdir(parents=True)
    (folder / "config" / "profiles.json").write_text(json.dumps(
        {"standard": {"CostMatrix": {"tpWeight": 1.0, "fnWeight": 1.0, "fpWeight": 0.11, "tnWeight": 1.0}}}))
    (folder / "labels" / "combined_windows.json").write_text(json.dumps({"a/b.csv": windows}))
    lines = [f"2014-04-01 {hour:02d}:00:00,{hour}" for hour in range(24)]
    (folder / "data" / "a" / "b.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    return folder


def test_a_folder_of_nabs_form_is_read(tmp_path: Path) -> None:
    profiles, found, left_out = read(write(tmp_path, [["2014-04-01 03:00:00.000000", "2014-04-01 05:00:00.000000"]]))
    assert profiles == {"standard": STANDARD} and not left_out
    assert found[0].windows == ((3, 5),)
    assert found[0].values.tolist() == list(range(24))
    assert np.diff(found[0].ts_ms).tolist() == [3.6e6] * 23


def test_a_window_that_is_not_in_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"a/b\.csv: it has a window without rows"):
        read(write(tmp_path, [["2015-04-01 03:00:00.000000", "2015-04-01 05:00:00.000000"]]))


def test_windows_between_rows_are_those_of_the_rows_in_them(tmp_path: Path) -> None:
    _, found, _ = read(write(tmp_path, [["2014-04-01T02:30:00Z", "2014-04-01T05:59:00+00:00"]]))
    assert found[0].windows == ((3, 5),)


def test_without_profiles_those_of_the_paper_count(tmp_path: Path) -> None:
    folder = write(tmp_path, [])
    (folder / "config" / "profiles.json").unlink()
    assert read(folder)[0] == {"standard": STANDARD, "reward_low_FP_rate": LOW_FP, "reward_low_FN_rate": LOW_FN}


@pytest.mark.parametrize("text, said", [
    (None, "cannot be read"), ("", "no rows"), ("timestamp,value\n", "no rows"), ("value\n3\n", "row 2 is no time"),
    ("timestamp,value\n2014-04-01 00:00:00,7\n2014-04-01 01:00:00,many\n", "row 3 is no time and value"),
])
def test_a_file_that_cannot_be_used_is_left_out_and_named(tmp_path: Path, text: str | None, said: str) -> None:
    folder = write(tmp_path, [])
    (folder / "labels" / "combined_windows.json").write_text(json.dumps({"a/b.csv": [], "odd.csv": []}))
    if text is not None:
        (folder / "data" / "odd.csv").write_text(text)
    _, found, left_out = read(folder)
    assert [each.name for each in found] == ["a/b.csv"]
    assert said in left_out["odd.csv"]


def test_missing_values_other_columns_and_their_order_do_no_harm(tmp_path: Path) -> None:
    folder = write(tmp_path, [])
    (folder / "data" / "a" / "b.csv").write_text(
        '\ufeffvalue,note,timestamp\r\n,x,2014-04-01 00:00:00\r\nNaN,"x,y",2014-04-01 01:00:00\r\n'
        '7,,2014-04-01 02:00:00\r\n')
    _, found, _ = read(folder)
    assert np.isnan(found[0].values).tolist() == [True, True, False] and found[0].values[2] == 7.0


@pytest.mark.parametrize("labels", ["[1, 2]", "{", '{"a/b.csv": [["soon", "late"]]}', '{"a/b.csv": 7}'])
def test_labels_of_another_form_are_refused_in_a_sentence(tmp_path: Path, labels: str) -> None:
    folder = write(tmp_path, [])
    (folder / "labels" / "combined_windows.json").write_text(labels)
    with pytest.raises(SystemExit, match=r"NAB's form|no pairs of times"):
        read(folder)
