"""Folders of labelled data that are not as the benchmarks would have them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from tests.bench import accuracy, multivariate
from tests.bench.__main__ import _known
from tests.bench.data import read, shuffled, tables, whole

X, Y = load_breast_cancer(return_X_y=True)
Y = 1 - Y


def put(folder: Path, name: str, **arrays: Any) -> None:
    np.savez(folder / f"{name}.npz", **arrays)


def test_what_can_be_used_is_found_and_what_cannot_is_named(tmp_path: Path) -> None:
    put(tmp_path, "12_breast cancer", X=X, y=Y)
    put(tmp_path, "3_breast cancer", X=X, y=Y)
    put(tmp_path, "flags", X=X.astype(np.float32), y=Y.astype(bool)[:, None])
    put(tmp_path, "vector", X=X[:, 0], y=Y)
    put(tmp_path, "empty", X=X[:0], y=Y[:0])
    put(tmp_path, "other", data=X)
    put(tmp_path, "short", X=X, y=Y[:-1])
    put(tmp_path, "classes", X=X, y=Y + 1)
    put(tmp_path, "words", X=np.array([["a", "b"]]), y=[1])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "nothing.npz").write_bytes(b"")
    (tmp_path / "README.md").write_text("what this is")
    found, left_out = tables(tmp_path)
    assert sorted(found) == ["3_breast cancer", "breast cancer", "flags", "vector"]
    assert sorted(left_out) == ["broken", "classes", "empty", "nothing", "other", "short", "words"]
    assert left_out["short"] == f"y has {len(Y) - 1} labels for {len(Y)} rows"
    assert left_out["other"] == "it has no X, y"
    assert read(found["vector"])[0].shape == (len(X), 1)
    assert set(shuffled(found["flags"], 1, 40)[1].tolist()) == {0, 1}


def test_a_folder_without_a_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    put(tmp_path, "other", data=X)
    with pytest.raises(SystemExit, match=r"no \.npz with X and y in .*; other: it has no X, y"):
        tables(tmp_path)


def test_missing_values_are_the_columns_mean_for_peers() -> None:
    x = np.array([[1.0, np.nan, 5.0], [3.0, np.nan, np.nan], [np.nan, np.nan, 7.0]])
    assert whole(x).tolist() == [[1.0, 0.0, 5.0], [3.0, 0.0, 6.0], [2.0, 0.0, 7.0]]


@pytest.mark.parametrize("case", ["few rows", "one class", "constant", "missing", "infinite", "wide"])
def test_our_detectors_score_tables_of_any_kind(tmp_path: Path, case: str) -> None:
    rng = np.random.default_rng(1)
    x, y = {
        "few rows": (X[:5], Y[:5]), "one class": (X, np.zeros(len(X))), "constant": (np.ones_like(X), Y),
        "missing": (np.where(rng.random(X.shape) < 0.3, np.nan, X), Y),
        "infinite": (np.where(rng.random(X.shape) < 0.01, np.inf, X), Y),
        "wide": (rng.standard_normal((60, 300)), np.arange(60) % 9 == 0)}[case]
    put(tmp_path, "odd", X=x, y=y)
    spent = {name: [0, 0.0] for name in accuracy.OURS}
    areas, precisions = accuracy._ours(tmp_path / "odd.npz", True, spent)
    assert set(areas) == set(precisions) == set(accuracy.OURS)
    both = 0 < np.sum(y) < len(y)
    assert all((0.0 <= area <= 1.0) if both and area is not None else area is None for area in areas.values())
    assert both == (areas["ensemble"] is not None)


def test_servers_of_any_kind_are_measured_or_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    train, test, labels = rng.standard_normal((300, 3)), rng.standard_normal((200, 3)), np.zeros(200, int)
    labels[90:100], test[90:100, 1] = 1, 9.0
    gaps = np.where(rng.random(test.shape) < 0.2, np.nan, test)
    put(tmp_path, "a", X_train=train, X_test=gaps, y_test=labels, interval_s=60)
    put(tmp_path, "constant", X_train=train * 0, X_test=test * 0, y_test=labels)
    put(tmp_path, "one kind", X_train=train, X_test=test, y_test=labels * 0)
    put(tmp_path, "no train", X_train=train[:0], X_test=test, y_test=labels)
    put(tmp_path, "narrow", X_train=train[:, :2], X_test=test, y_test=labels)
    (tmp_path / "notes.txt").write_text("what this is")
    figures = multivariate.main(False, tmp_path)
    at = tmp_path.name
    assert set(figures["sets"]["time_series"]) == {f"{at}/a", f"{at}/constant"}
    assert set(figures["left_out"]) == {f"{at}/one kind", f"{at}/no train", f"{at}/narrow"}
    assert figures["sets"]["time_series"][f"{at}/a"]["roc_auc"] > 0.8
    json.dumps(_known(figures), allow_nan=False)


def test_json_has_no_infinity() -> None:
    assert _known({"a": [math.inf, 1.5, (math.nan, 2)], "b": None}) == {"a": [None, 1.5, [None, 2]], "b": None}
