"""A version's profile from training: what is let in, what is refused, and what is kept of it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from drift_trained import TRAINED, Trained, event, known, shifted
from drift_world import Serving, moved, summary, window
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.drift.level import pairs
from agents.drift.options import Statistic
from agents.drift.profiles import MOST_STATISTICS, body_of
from schemas.profiles import FieldProfile, Profile
from streams.batch import Limits, decode_lifecycle
from streams.records import RecordBatch
from streams.wire import WireRecord

DRAWN = np.random.default_rng(7).lognormal(3.0, 0.6, 50_000)


def test_every_way_to_say_a_distribution_says_the_same() -> None:
    shares = [0.0, *np.linspace(0.005, 0.995, 60).tolist(), 0.999, 0.9999, 1.0]
    counts, edges = np.histogram(DRAWN, bins=250)
    exact = {"mean": float(DRAWN.mean()), "sd": float(DRAWN.std())}
    ways = [{"quantiles": [[share, float(np.quantile(DRAWN, share))] for share in shares]},
            {"histogram": {"edges": edges.tolist(), "counts": [float(count) for count in counts]}},
            exact | {"sketch": summary(DRAWN).sketch}]
    wanted = None
    for way in ways:
        for more in ({}, exact):
            body = body_of(event({"features": {"x": way | more}}).profile)      # type: ignore[arg-type]
            found = known(body, "feature.x", "mean")
            log = np.log(DRAWN)
            assert found.reference.raw_mean == pytest.approx(exact["mean"], rel=0.03)
            assert found.reference.raw_spread == pytest.approx(exact["sd"], rel=0.06)
            if found.reference.log:
                assert found.reference.mean == pytest.approx(log.mean(), abs=0.03)
                assert found.reference.spread == pytest.approx(log.std(), rel=0.06)
            assert sum(count for _, count in pairs(found.sketch)) == pytest.approx(50_000, rel=0.001)
            wanted = wanted or found.reference.log
            assert found.reference.log == wanted


def test_a_distribution_that_is_narrower_than_a_bucket_has_its_own_mean_and_spread() -> None:
    """Buckets are 1% wide: of 1,000 +- 1 they know next to nothing."""
    values = np.random.default_rng(2).normal(1_000.0, 1.0, 20_000)
    quantiles = [[share, float(np.quantile(values, share))] for share in np.linspace(0.0, 1.0, 101).tolist()]
    world = Trained()
    world.learn(event({"features": {"level": {"quantiles": quantiles}}}))
    assert world.give(Serving(1).windows(400)) == []
    assert moved(world.give(Serving(2).windows(60, shifted("feature.level", 1.0), first=400))) == {
        ("feature.level", "mean")}


BAD: list[tuple[Any, str, str]] = [
    ({}, "", "an empty profile"),
    ({"rows": 0, "features": TRAINED}, "rows", "greater than or equal to 1"),
    ({"features": {"a": {}}}, "features.a", "say what its values are"),
    ({"features": {"a": {"mean": 1.0}}}, "features.a", "need both mean and sd"),
    ({"features": {"a": {"mean": 1.0, "sd": -1.0}}}, "features.a.sd", "greater than or equal to 0"),
    ({"features": {"a": {"mean": 1.0, "sd": 1.0, "classes": {"b": 1}}}}, "features.a", "numbers or classes"),
    ({"features": {"a": {"mean": 1.0, "sd": 1.0, "missing_share": 1.5}}}, "features.a.missing_share", "less than or"),
    ({"features": {"a": {"classes": {"b": 0.0}}}}, "features.a", "all shares are 0"),
    ({"features": {"a": {"classes": {f"c{i}": 1 for i in range(257)}}}}, "features.a.classes", "at most 256"),
    ({"features": {"a": {"quantiles": [[0.5, 1.0]]}}}, "features.a", "two at least"),
    ({"features": {"a": {"quantiles": [[0.5, 1.0], [0.4, 2.0]]}}}, "features.a", "ascend"),
    ({"features": {"a": {"quantiles": [[0.1, 1.0], [0.4, 0.5]]}}}, "features.a", "ascend"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 1.0], "counts": [1.0, 2.0]}}}}, "features.a.histogram", "edges"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 0.0], "counts": [1.0]}}}}, "features.a.histogram", "ascend"),
    ({"features": {"a": {"histogram": {"edges": [0.0, 1.0], "counts": [0.0]}}}}, "features.a.histogram", "all its"),
    ({"features": {"a": {"mean": 1, "sd": 1, "sketch": [[5, 1], [5, 1]]}}}, "features.a", "ascend, each once"),
    ({"features": {"a": {"sketch": [[5, 1]]}}}, "features.a", "comes with mean and sd"),
    ({"features": {"a": {"sketch": [[10**9, 1]]}}}, "features.a.sketch", "less than or equal"),
    ({"features": {"a": {"sketch": [[1, 1]] * 1_025}}}, "features.a.sketch", "at most 1024"),
    ({"features": {f"f{i}": {"mean": 1.0, "sd": 1.0} for i in range(257)}}, "features", "at most 256"),
    ({"features": [1]}, "features", "object"),
    ({"prediction": {"mean": float("nan"), "sd": 1.0}}, "prediction.mean", "finite"),
    ({"rows": 10**30, "features": TRAINED}, "rows", "less than or equal"),
]


@pytest.mark.parametrize(("profile", "field", "message"), BAD)
def test_a_profile_that_breaks_the_contract_is_kept_with_its_reason(profile: Any, field: str, message: str) -> None:
    good = event({"features": TRAINED}).model_dump(mode="json")
    bad = json.dumps(good | {"profile": {"rows": 50, **profile}}).encode()
    records = [WireRecord(at, 0, b"m", value) for at, value in enumerate([json.dumps(good).encode(), bad, b"", b"{"])]
    found = decode_lifecycle(RecordBatch("lifecycle-events", 0, records), Limits())
    assert [offset for offset, _ in found.events] == [0]
    assert [record.offset for record in found.rejected] == [1, 2, 3]
    assert found.rejected[0].field.startswith(f"profile.{field}".rstrip("."))
    assert message in found.rejected[0].message
    assert found.rejected[0].payload_size_bytes == len(bad)


NUMBER = st.floats(allow_nan=False, allow_infinity=False)
FIELD = st.one_of(
    st.builds(lambda mean, sd: {"mean": mean, "sd": abs(sd)}, NUMBER, NUMBER),
    st.builds(lambda values: {"quantiles": [[i / len(values), value] for i, value in enumerate(sorted(values))]},
              st.lists(NUMBER, min_size=2, max_size=9)),
    st.builds(lambda edges, count: {"histogram": {"edges": sorted(edges), "counts": [count] * (len(edges) - 1)}},
              st.lists(NUMBER, min_size=2, max_size=9, unique=True), st.floats(1e-300, 1e12)),
    st.builds(lambda codes: {"mean": 1.0, "sd": 2.0, "sketch": [[code, 10**12] for code in sorted(codes)]},
              st.lists(st.integers(-131_000, 131_000), min_size=1, max_size=9, unique=True)),
    st.builds(lambda classes, share: {"classes": classes, "missing_share": share},
              st.dictionaries(st.text(max_size=9), st.floats(0, 1e12), min_size=1, max_size=40), st.floats(0, 1)))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=12), FIELD, min_size=1, max_size=3), st.integers(1, 10**12))
def test_whatever_the_contract_lets_in_serves_as_a_reference(features: dict[str, Any], rows: int) -> None:
    try:
        profile = Profile.model_validate_json(json.dumps({"rows": rows, "features": features}))
    except ValidationError:
        return
    body = body_of(profile)
    for found in body.known.values():
        assert all(math.isfinite(value) for value in msgspec.structs.astuple(found.reference))
        assert found.reference.error(1) > 0.0
        assert len(pairs(found.sketch)) <= 64
    world = Trained()
    world.learn(event({"rows": rows, "features": features}))
    for second in range(30):        # nothing that comes may raise
        fields = {f"feature.{name}": summary([1.0, -1e308, 1e308, 0.0, math.nan]) for name in features}
        fields |= {f"feature.{name}=x": summary([1.0] * 20) for name in features}
        world.give([window(second, fields, 25)])
        world.restart()


def test_a_wide_profile_is_kept_as_far_as_there_is_room() -> None:
    wide = {f"f{i}": {"classes": {f"c{j}" + "x" * 100: 1 for j in range(256)}} for i in range(250)}
    wide["narrow"] = {"mean": 1.0, "sd": 1.0}       # type: ignore[assignment, dict-item]
    profile = Profile(rows=5, features={name: FieldProfile.model_validate(field) for name, field in wide.items()})
    body = body_of(profile)
    assert MOST_STATISTICS - 40 < len(body.known) <= MOST_STATISTICS
    assert len(msgspec.msgpack.encode(body)) < 1_000_000
    unseen: Statistic = ("feature.f0=never", "rate")
    assert known(body, *unseen).reference.mean == 0.0
