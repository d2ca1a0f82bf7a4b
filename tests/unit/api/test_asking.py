"""Questions about windows on real stores: joined, grouped, compared, exported."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stores_world import DAY, Gateway, a_window, an_anomaly, summary, world

from streams.settings import Settings
from streams.stores.history import History
from streams.stores.postgres import moment
from streams.stores.redis import Hot
from streams.windows.packed import unpacked
from streams.windows.record import WindowRecord

SIZES = (1_000, 10_000, 60_000, 600_000)
ASK = {"environment": "prod", "model": "churn", "from": DAY, "to": DAY + 1_800_000}


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url, granularities_ms=SIZES)


def published(values: dict[int, list[float]], closed_to_ms: int, **more: Any) -> list[WindowRecord]:
    """Every window that has closed by then, of latencies by their second after DAY."""
    found = []
    for size in SIZES:
        starts = sorted({second * 1_000 // size * size for second in values})
        for start in starts:
            inside = [value for second in sorted(values) if start <= second * 1_000 < start + size
                      for value in values[second]]
            if DAY + start + size <= closed_to_ms:
                found.append(a_window(DAY + start, len(inside), size_ms=size,
                                      fields={"latency_ms": summary(*inside)}, **more))
    return sorted(found, key=lambda window: (window.start_ms + window.size_ms, window.size_ms))


@pytest.mark.parametrize(("behind", "known_s"), [(0, 1_334), (1, 1_334), (3, 1_334), (8, 1_334), (12, 1_330)])
async def test_windows_under_way_are_told_by_their_parts_from_both_stores(api: Gateway, history: History, hot: Hot,
                                                                          behind: int, known_s: int) -> None:
    """The history lacks the last windows; the rings have them, but for those that a ring of seconds does not reach."""
    rng = np.random.default_rng(3)
    values = {second: rng.lognormal(2, 1, 3).tolist() for second in range(0, 1_500, 2)}
    closed = published(values, DAY + 1_334_000)
    await history.windows(closed[:len(closed) - behind])
    await hot.keep_recent(closed)
    answer = await api.get("/api/metrics", **ASK, points=3, field="latency_ms", quantiles="0.5,0.9")
    assert answer["granularity_ms"] == 600_000
    assert answer["windows"][-1]["events_per_s"] == pytest.approx(1.5, rel=0.02), "of what is known of the step"
    assert [(w["start_ms"], w["count"], w["open"]) for w in answer["windows"]] == [
        (DAY, 900, False), (DAY + 600_000, 900, False), (DAY + 1_200_000, 3 * (known_s - 1_200) // 2, True)]
    inside = sorted(value for second in range(1_200, known_s, 2) for value in values[second])
    last = answer["windows"][-1]["value"]
    assert last["mean"] == pytest.approx(np.mean(inside), rel=1e-9)
    assert last["std"] == pytest.approx(np.std(inside, ddof=1), rel=1e-9)
    assert (last["min"], last["max"]) == (inside[0], inside[-1])
    for name, q in (("p50", 0.5), ("p90", 0.9)):
        assert last[name] == pytest.approx(inside[int(q * (len(inside) - 1))], rel=0.0101)
    assert set(last) == {"count", "missing", "mean", "std", "min", "max", "p50", "p90"}


async def test_sums_are_the_same_at_every_granularity_and_step(api: Gateway, history: History) -> None:
    values = {second: [float(second % 7 + 1)] * (second % 5) for second in range(1_800) if second % 5}
    await history.windows(published(values, DAY + 1_800_000))
    expected = sum(map(len, values.values()))
    for query in ({"granularity_ms": size} for size in SIZES):
        answer = await api.get("/api/metrics", **ASK, **query, field="none", limit=10_000)
        assert sum(w["count"] for w in answer["windows"]) == expected, query
        assert "value" not in answer["windows"][0]
    for step in (5_000, 90_000, 1_800_000):
        answer = await api.get("/api/metrics", **ASK, step_ms=step, field="latency_ms", quantiles="none",
                               statistics="sum")
        assert sum(w["count"] for w in answer["windows"]) == expected
        assert sum(w["value"]["sum"] for w in answer["windows"]) == sum(sum(found) for found in values.values())
        assert set(answer["windows"][0]["value"]) == {"sum"}


async def test_groups_add_up_across_models_versions_and_environments(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY, 2, version="1"), a_window(DAY, 3, version="2", errors=3),
                           a_window(DAY, 4, model="fraud"), a_window(DAY, 5, environment="staging"),
                           a_window(DAY, 7, component="preprocess", version="1")])

    async def found(**query: Any) -> list[tuple[Any, ...]]:
        answer = await api.get("/api/metrics", **{"from": DAY, "to": DAY + 60_000, "granularity_ms": 60_000} | query)
        return [(*(w[key] for key in answer["group_by"]), w["count"]) for w in answer["windows"]]

    assert await found(environment="*") == [("prod", "churn", 12), ("prod", "fraud", 4), ("staging", "churn", 5)]
    assert await found(environment="*", group_by="none") == [(21,)]
    assert await found(environment="prod", model="*", group_by="environment") == [("prod", 16)]
    assert await found(environment="prod", model="churn") == [("1", "model", 2), ("1", "preprocess", 7),
                                                              ("2", "model", 3)]
    assert await found(environment="prod", model="churn", group_by="component") == [("model", 5), ("preprocess", 7)]
    assert await found(environment="prod", model="churn", version="1", component="model", group_by="none") == [(2,)]
    answer = await api.get("/api/metrics", environment="prod", model="churn", version="2", **{
        "from": DAY, "to": DAY + 60_000})
    (window,) = answer["windows"]
    assert (window["error_rate"], window["events_per_s"]) == (1.0, 0.05)


async def test_two_versions_are_compared_point_by_point_and_as_wholes(api: Gateway, history: History) -> None:
    slow, quick = [float(n) for n in range(201, 301)], [float(n) for n in range(1, 101)]
    await history.windows([
        window for version, values in (("3", quick), ("4", slow)) for minute in (0, 1)
        for window in [a_window(DAY + 60_000 * minute, 100, version=version, errors=int(version) - 3,
                                fields={"latency_ms": summary(*values)})]])
    answer = await api.get("/api/metrics", **ASK, version="4", compare_version="3", field="latency_ms",
                           granularity_ms=60_000)
    compared = answer["compare"]
    assert [(w["start_ms"], w["value"]["mean"]) for w in answer["windows"]] == [(DAY, 250.5), (DAY + 60_000, 250.5)]
    assert [(w["start_ms"], w["of_ms"], w["value"]["mean"]) for w in compared["windows"]] == [
        (DAY, DAY, 50.5), (DAY + 60_000, DAY + 60_000, 50.5)]
    assert compared["difference"]["value"]["mean"] == {"absolute": 200.0, "relative": pytest.approx(200 / 50.5)}
    assert compared["difference"]["errors"] == {"absolute": 2, "relative": None}
    assert compared["ks_distance"] == {"latency_ms": 1.0}
    assert compared["asked_total"]["count"] == 200
    same = await api.get("/api/metrics", **ASK, version="4", compare_from=DAY, field="latency_ms")
    assert same["compare"]["ks_distance"] == {"latency_ms": 0.0}


async def test_windows_stored_with_their_sketches_as_arrays_are_answered_the_same(api: Gateway,
                                                                                history: History) -> None:
    values = {second: np.random.default_rng(second).normal(0, 9, 5).tolist() for second in range(0, 900, 3)}
    await history.windows(published(values, DAY + 900_000))
    question = ASK | {"points": 20, "field": "latency_ms", "quantiles": "0.1,0.5,0.99"}
    asked = [question, question | {"compare_from": DAY - 300_000}]
    answers = [await api.get("/api/metrics", **one) for one in asked]
    assert answers[0]["windows"][0]["value"]["p50"] is not None
    for row in await history.pool.fetch("SELECT window_id, fields FROM metric_windows WHERE start_at < $1",
                                        moment(DAY + 400_000)):
        assert isinstance(json.loads(row["fields"])["latency_ms"]["sketch"], str)
        await history.pool.execute("UPDATE metric_windows SET fields = $2 WHERE window_id = $1", row["window_id"],
                                   unpacked(row["fields"]))
    assert [await api.get("/api/metrics", **one) for one in asked] == answers


async def test_a_period_is_compared_with_an_earlier_one_at_the_same_times(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY - 86_400_000 + 60_000, 4), a_window(DAY + 60_000, 6)])
    answer = await api.get("/api/metrics", **ASK, compare_from=DAY - 86_400_000, granularity_ms=60_000, field="none")
    assert [(w["start_ms"], w["of_ms"], w["count"]) for w in answer["compare"]["windows"]] == [
        (DAY + 60_000, DAY - 86_340_000, 4)]
    assert answer["compare"]["difference"]["count"] == {"absolute": 2, "relative": 0.5}


async def test_a_table_has_the_same_figures_as_the_answer(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY + 60_000 * n, n + 1, version="=1+1"[n % 2:] or "1", fields={
        "latency_ms": summary(*[1.5] * n), "prediction=a": summary(2.0)}) for n in range(4)])
    query = ASK | {"granularity_ms": 60_000}
    points = (await api.get("/api/metrics", **query))["windows"]
    text = await api.rest.get("/api/metrics", params=query | {"format": "csv"})
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [int(row["count"]) for row in rows] == [point["count"] for point in points]
    assert {row["open"] for row in rows} == {"false"}
    assert [row["version"] for row in rows if row["version"].startswith("'")] == ["'=1+1"] * 2
    binary = await api.rest.get("/api/metrics", params=query | {"format": "arrow"})
    assert binary.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(binary.content).read_all()
    assert table.schema.field("start_ms").type == pa.timestamp("ms", "UTC")
    assert table["latency_ms.p50"].to_pylist() == [point["fields"]["latency_ms"]["p50"] for point in points]
    assert table["latency_ms.count"].to_pylist() == [0, 1, 2, 3]
    assert table["version"].to_pylist() == [point["version"] for point in points]
    both = await api.rest.get("/api/metrics", params=query | {"format": "arrow", "compare_from": DAY, "field": "none"})
    assert pa.ipc.open_stream(both.content).read_all()["side"].to_pylist() == ["asked"] * 4 + ["compared"] * 4
    part = await api.rest.get("/api/metrics", params=query | {"format": "csv", "limit": 3})
    assert part.headers["X-Next-From-Ms"] == str(DAY + 180_000)
    nothing = query | {"model": "none-such", "format": "arrow"}
    assert pa.ipc.open_stream((await api.rest.get("/api/metrics", params=nothing)).content).read_all().num_rows == 0


async def test_series_are_those_of_the_history_and_of_the_hot_view(api: Gateway, history: History, hot: Hot) -> None:
    await history.windows([a_window(DAY), a_window(DAY + 60_000), a_window(DAY, size_ms=1_000),
                           a_window(DAY, model="old")])
    await hot.put_windows([a_window(DAY, model="hot", size_ms=600_000)])
    await hot.put_scores([an_anomaly(1)])
    found = {row["model"]: row for row in await api.get("/api/series", since=DAY, granularity_ms=600_000)}
    assert set(found) == {"churn", "hot", "old"}
    churn = found["churn"]
    assert (churn["first_ms"], churn["end_ms"], churn["granularities_ms"]) == (DAY, DAY + 120_000, [1_000, 60_000])
    assert (found["hot"]["fields"], found["hot"]["first_ms"]) == (["latency_ms"], None)
    assert found["churn"]["anomaly"]["score"] == 0.9
    assert [row["model"] for row in await api.get("/api/series", since=DAY, model="old")] == ["old"]


async def test_a_step_with_more_groups_than_the_limit_is_refused(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY, 1, model=f"m{number}") for number in range(4)])
    query = ASK | {"model": "*", "granularity_ms": 60_000}
    answer = await api.rest.get("/api/metrics", params=query | {"limit": 3})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_much")
    assert len((await api.get("/api/metrics", **query, limit=4))["windows"]) == 4


async def test_where_fine_windows_are_gone_the_next_coarser_ones_answer(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY, 5), a_window(DAY, 9, size_ms=600_000)])
    query = {"environment": "prod", "model": "churn", "from": DAY, "to": DAY + 60_000}
    answer = await api.get("/api/metrics", **query)
    assert (answer["granularity_ms"], [w["count"] for w in answer["windows"]]) == (60_000, [5])
    assert (await api.get("/api/metrics", **query, granularity_ms=1_000))["windows"] == []


async def test_totals_of_models_hold_what_no_coarse_window_tells_yet(api: Gateway, history: History) -> None:
    values = {second: [1.0] for second in range(0, 1_500, 2)}
    await history.windows(published(values, DAY + 1_334_000))
    (churn,) = await api.get("/api/models", since=DAY)
    assert (churn["events"], churn["last_ms"]) == (667, DAY + 1_332_000)


@pytest.mark.parametrize(("query", "says"), [
    ({"group_by": "country"}, "version"), ({"statistics": "median"}, "mean"), ({"quantiles": "2"}, "0 to 1"),
    ({"step_ms": 1_500}, "multiple"), ({"to": DAY}, "before"), ({"format": "xml"}, "format"),
    ({"compare_version": "4"}, "version"), ({"version": "4", "compare_version": "4"}, "another"),
    ({"version": "4", "compare_version": "3", "compare_from": DAY}, "not with both"),
    ({"field": [f"f{n}" for n in range(65)]}, "64"), ({"compare_from": "then"}, "ISO 8601"),
    ({"points": 0}, "points")])
async def test_a_question_that_makes_no_sense_says_what_would(api: Gateway, query: dict[str, Any], says: str) -> None:
    answer = await api.rest.get("/api/metrics", params=ASK | query)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]
