"""Streams of a folder that nobody has seen: other names and lengths are taken, what is no stream says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.drift import taken
from tests.bench.drift_streams import LEAST_ROWS, ROWS, drawn, episodes, stationary


def stream(path: Path, rows: int, changes: list[float]) -> None:
    """Labels by the sign of a feature; the other one counts from each change to the next."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 2))
    which = np.searchsorted(np.array(changes) * rows, np.arange(rows), side="right") % 2
    np.savez(path, X=x, y=(x[np.arange(rows), which] > 0).astype(np.int64))


@pytest.mark.parametrize(("name", "rows", "changes", "episodes"), [
    ("new_abrupt_0123", ROWS // 4, [0.25, 0.5, 0.75], 3), ("new_abrupt_3210", ROWS, [0.25, 0.5, 0.75], 3),
    ("other_gradual_10", ROWS // 2, [0.25, 0.5125, 0.775], 3), ("plain", LEAST_ROWS, [0.6], 1)])
def test_streams_of_other_names_and_lengths_have_their_changes(name: str, rows: int, changes: list[float],
                                                               episodes: int, tmp_path: Path) -> None:
    stream(tmp_path / f"{name}.npz", rows, changes)
    found, left_out = taken(tmp_path, quick=False)
    assert (len(found), left_out) == (episodes, {})
    for one in found:
        assert np.mean(one.calm) < 0.15 < 0.3 < np.mean(one.changed)
        before, after = drawn(one, np.random.default_rng(2))
        assert len(before) and len(after) and len(stationary(one, np.random.default_rng(3), 100)) == 100


def test_the_known_lengths_have_their_changes_at_the_known_rows(tmp_path: Path) -> None:
    for name, rows, begin, length in (("a_0123_abrupto", 40_000, 13_000, 7_000),
                                      ("a_0123_gradual", 41_000, 14_000, 5_500)):
        np.savez(tmp_path / f"{name}.npz", X=np.zeros((rows, 1)), y=np.arange(rows) % 7 == 0)
        second = list(episodes(tmp_path, name))[1]
        assert len(second.calm) == length
        np.testing.assert_array_equal(second.calm, np.arange(begin, begin + length) % 7 == 0)
        assert len(second.changed) == 5_000


def test_what_is_no_stream_is_left_out_with_its_reason_and_a_folder_of_none_is_an_error(tmp_path: Path,
                                                                                        capsys: Any) -> None:
    (tmp_path / "bytes.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "short.npz", X=np.zeros((10, 2)), y=np.zeros(10))
    np.savez(tmp_path / "shape.npz", X=np.zeros((5_000, 2)), y=np.zeros(4_999))
    np.savez(tmp_path / "nan.npz", X=np.full((5_000, 2), np.nan), y=np.zeros(5_000))
    np.savez(tmp_path / "text.npz", X=np.array([["a"] * 2] * 5_000), y=np.zeros(5_000))
    with pytest.raises(SystemExit, match="no drift streams"):
        taken(tmp_path, quick=False)
    said = capsys.readouterr().err
    for name, why in (("bytes", "cannot be read"), ("empty", "no array"), ("short", "10 rows"), ("shape", "X is"),
                      ("nan", "not finite"), ("text", "cannot be read")):
        assert any(name in line and why in line for line in said.splitlines()), (name, said)
    stream(tmp_path / "plain.npz", 4_000, [0.6])
    found, left_out = taken(tmp_path, quick=False)
    assert [one.stream for one in found] == ["plain"]
    assert set(left_out) == {"bytes", "empty", "short", "shape", "nan", "text"}
