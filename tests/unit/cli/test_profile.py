"""`streamgauge profile`: a file's columns as a profile, and what it says where there is none to be made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agents.drift.profiles import body_of
from infra.cli.main import app
from infra.profile import BUCKETS, Choice, make
from infra.replay.sources import SourceError
from schemas.alerts import LifecycleEvent
from schemas.profiles import MAX_CLASSES, Profile

RUN = CliRunner()
ROWS = 10_000


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(3)
    ages = rng.normal(40, 10, ROWS)
    lines = [f"{i},{'' if i % 10 == 0 else age},{rng.choice(['basic', 'pro'], p=[0.7, 0.3])},c{i},{i % 4 == 0},"
             f"{'yes' if i % 5 == 0 else 'no'},{i % 3},0.9"
             for i, age in enumerate(ages)]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["ts,age,plan,customer,flag,label,kind,sure", *lines]) + "\n")
    return path, ages[np.arange(ROWS) % 10 != 0]


def test_columns_become_numbers_or_classes_and_nothing_else_is_kept(table: tuple[Path, np.ndarray]) -> None:
    path, ages = table
    made = make(path, Choice(prediction="label", confidence="sure"))
    profile = made.profile
    assert list(profile.features) == ["age", "plan", "flag", "kind"]
    age = profile.features["age"]
    assert (profile.rows, age.missing_share) == (ROWS, 0.1)
    assert age.mean == pytest.approx(ages.mean())
    assert age.sd == pytest.approx(ages.std())
    assert sum(count for _, count in age.sketch) == len(ages)
    assert len(age.sketch) <= BUCKETS
    assert profile.features["flag"].classes == {"True": ROWS / 4, "False": ROWS * 3 / 4}     # text, as in a CSV
    assert profile.features["kind"].mean == pytest.approx(np.mean(np.arange(ROWS) % 3))
    assert profile.prediction is not None
    assert profile.prediction.classes == {"yes": ROWS / 5, "no": ROWS * 4 / 5}
    assert profile.confidence is not None
    assert profile.confidence.mean == pytest.approx(0.9)
    assert any("customer: left out" in note for note in made.notes)
    assert any(note.endswith("left out: ts (--columns says otherwise)") for note in made.notes)
    assert all(math.isfinite(known.reference.mean) for known in body_of(profile).known.values())


def test_predictions_that_look_like_numbers_may_be_classes(table: tuple[Path, np.ndarray]) -> None:
    made = make(table[0], Choice(features=("age",), prediction="kind", classes=True))
    assert made.profile.prediction is not None
    assert set(made.profile.prediction.classes) == {"0", "1", "2"}


def test_booleans_are_numbers_as_in_telemetry_and_mixed_columns_say_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text("\n".join(json.dumps({"a": i % 2 == 0, "b": "x" if i < 5 else i, "c": None}) for i in range(100)))
    made = make(path, Choice())
    assert made.profile.features["a"].mean == 0.5
    assert made.profile.features["b"].missing_share == 0.05
    assert made.profile.features["c"].missing_share == 1.0
    assert any("b: 5 texts among the others count as missing" in note for note in made.notes)


def test_many_classes_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("city\n" + "\n".join(f"c{min(i % 1000, 700 if i % 3 else 1)}" for i in range(9_000)))
    classes = make(path, Choice()).profile.features["city"].classes
    assert len(classes) == MAX_CLASSES
    assert sum(classes.values()) == 9_000
    assert classes["<other>"] > 0


def test_the_event_goes_out_as_the_contract_has_it_and_comes_in_again(table: tuple[Path, np.ndarray], tmp_path: Path
                                                                      ) -> None:
    base = ["profile", str(table[0]), "--model", "churn", "--version", "3", "-q"]
    done = RUN.invoke(app, base)
    assert done.exit_code == 0
    event = LifecycleEvent.model_validate_json(done.stdout)
    assert (event.model, event.version, event.action) == ("churn", "3", "registered")
    out = tmp_path / "event.json"
    assert RUN.invoke(app, [*base, "--out", str(out)]).stdout == ""
    assert LifecycleEvent.model_validate_json(out.read_text()).profile == event.profile
    again = RUN.invoke(app, ["profile", str(out), "--model", "churn", "--version", "4", "-q"])
    assert LifecycleEvent.model_validate_json(again.stdout).profile == event.profile
    assert event.profile is not None
    bare = tmp_path / "bare.json"
    bare.write_text(event.profile.model_dump_json())
    again = RUN.invoke(app, ["profile", str(bare), "--model", "churn", "--version", "4", "-q"])
    assert LifecycleEvent.model_validate_json(again.stdout).profile == Profile.model_validate_json(bare.read_text())


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.json", "{", "Invalid JSON"), ("a.json", "", "is empty"), ("a.json", '{"rows": 5}', "an empty profile"),
    ("a.json", '{"rows": 5, "features": {"a": {"mean": 1}}}', "features.a: "), ("a.txt", "x", "what is it?"),
    ("a.csv", "a,b\n", "no row"), ("a.json", '{"lifecycle_id": "x"}', "environment: Field required"),
])
def test_what_makes_no_profile_says_why_and_ends_with_2(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    done = RUN.invoke(app, ["profile", str(path), "--model", "m", "--version", "1"])
    assert done.exit_code == 2
    assert message in done.stderr


def test_too_many_columns_and_unknown_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{i}" for i in range(300)) + "\n" + ",".join("1" * 300) + "\n")
    with pytest.raises(SourceError, match="300 columns"):
        make(path, Choice())
    assert len(make(path, Choice(features=("c1", "c2"))).profile.features) == 2
    with pytest.raises(SourceError, match="no column nope"):
        make(path, Choice(leave_out=("nope",)))
