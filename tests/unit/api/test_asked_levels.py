"""Questions about levels, segments and late labels on real stores: every level, and nothing counted twice."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from stores_world import DAY, Gateway, world

from agents.aggregation.beside import BesideLabels, of_telemetry
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.aggregation.projection import without_segments
from schemas.telemetry import Feedback
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.stores.history import History
from streams.windows.levels import read_level
from streams.windows.record import read_head
from streams.windows.written import written

SIZES = (1_000, 10_000, 60_000)
ASK: dict[str, Any] = {"environment": "*", "from": DAY, "to": DAY + 180_000}


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url, granularities_ms=SIZES, segment_keys=("country",),
                       segment_values=2)


def telemetry(number: int) -> dict[str, Any]:
    """Three models in two environments, two of them with two versions, one with two components."""
    model = ("churn", "fraud", "ads")[number % 3]
    return {"event_id": f"e{number}", "ts": DAY + number * 100, "environment": "staging" if number % 7 == 0 else "prod",
            "model": model, "version": str(1 + number % 2), "latency_ms": float(number % 50 + 1),
            "component": "ranker" if model == "ads" and number % 4 == 0 else "model", "features": {"x": float(number)},
            "error": "boom" if number % 11 == 0 else None,
            "segment": {} if number % 13 == 0 else {"country": ("PT", "DE", "FR")[number // 3 % 3]}}


EVENTS = [telemetry(number) for number in range(1_500)]


class Agents:
    """The windows of one partition as the agents make them, into the history."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.engine = AggregationEngine(AggregationOptions.from_settings(settings), written)
        self.beside, self.labels = of_telemetry(settings), BesideLabels(settings)
        codecs: Any = dict(state for one in (*self.beside, self.labels) for state in one.states())
        rows: Any = SimpleNamespace(view=lambda number, agent: {})
        self.partition = Partition(number, 1, rows, codecs | {"aggregation": self.engine.codec}, SimpleNamespace())  # type: ignore[arg-type]

    def batch(self, items: list[dict[str, Any]]) -> RecordBatch:
        return RecordBatch("telemetry", self.partition.number, [
            SimpleNamespace(offset=at, timestamp=DAY + 10_000_000, key=b"", value=msgspec.json.encode(item))
            for at, item in enumerate(items)])

    async def take(self, history: History, items: list[dict[str, Any]]) -> None:
        batch = self.batch(items)
        events = Decoder(Limits(), ("country",))(batch)
        assert not events.rejected
        states = self.partition.states("aggregation")
        windows = self.engine.run(without_segments(events), states, "telemetry", 1).windows
        windows += self.engine.idle(states, 200_000)
        levels = [window for one in self.beside for window in one.run(events, self.partition, "telemetry", 1).windows]
        levels += [window for one in self.beside for window in one.idle(self.partition, 200_000)]
        await history.windows([read_head(window.value) for window in windows])
        await history.levels([read_level(window.value) for window in levels])

    async def judge(self, history: History, found: list[Feedback]) -> None:
        batch = self.batch([{} for _ in found])
        windows, late, ahead = self.labels.run(batch, list(enumerate(found)), self.partition, 1)
        assert (late, ahead) == ([], [])
        await history.levels([read_level(window.value)
                              for window in [*windows, *self.labels.idle(self.partition, 10_000_000)]])


@pytest.fixture
async def two_partitions(settings: Settings, history: History) -> None:
    """Half of the events in each of two partitions, whatever their model."""
    for number in range(2):
        await Agents(settings, number).take(history, EVENTS[number::2])


async def counted(api: Gateway, **query: Any) -> dict[tuple[str, ...], int]:
    answer = await api.get("/api/metrics", **ASK | {"granularity_ms": 60_000, "field": "none"} | query)
    found: dict[tuple[str, ...], int] = {}
    for window in answer["windows"]:
        key = tuple(window[name] for name in answer["group_by"])
        found[key] = found.get(key, 0) + window["count"]
    return found


def expected(*names: str) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for event in EVENTS:
        key = tuple(event[name] for name in names)
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(("level", "names"), [
    ("component", ("environment", "model", "version", "component")), ("version", ("environment", "model", "version")),
    ("model", ("environment", "model")), ("environment", ("environment",)), ("fleet", ())])
@pytest.mark.parametrize("size", SIZES)
async def test_every_level_counts_every_event_once_at_every_size(api: Gateway, two_partitions: None, level: str,
                                                                 names: tuple[str, ...], size: int) -> None:
    assert await counted(api, level=level, granularity_ms=size, limit=10_000) == expected(*names)


async def test_environments_are_read_from_their_own_windows_and_say_what_the_series_say(
        api: Gateway, two_partitions: None) -> None:
    query = ASK | {"granularity_ms": 60_000, "field": "latency_ms", "quantiles": "0.5,0.99",
                   "statistics": "count,sum,max"}
    own = await api.get("/api/metrics", **query, level="environment")
    series = await api.get("/api/metrics", **query, group_by="environment")
    assert (own["level"], series["level"]) == ("environment", None)
    assert own["windows"] == [window | {"partitions": 2} for window in series["windows"]]
    feature = await api.get("/api/metrics", **query | {"field": "feature.x"}, level="fleet")
    assert feature["level"] is None, "only the series know features"
    assert sum(window["value"]["count"] for window in feature["windows"]) == len(EVENTS)
    model = await api.get("/api/metrics", **query, level="environment", model="ads")
    assert sum(window["count"] for window in model["windows"]) == expected("model")["ads",]


async def test_segments_are_told_by_value_and_add_up(api: Gateway, two_partitions: None) -> None:
    found = await counted(api, level="segment", segment="country")
    assert sum(found.values()) == len(EVENTS)
    for (environment, model), many in expected("environment", "model").items():
        values = {key[2]: count for key, count in found.items() if key[:2] == (environment, model)}
        assert sum(values.values()) == many
        assert "country=<other>" in values, "of three values each partition names two"
    by_value = await counted(api, level="segment", segment="country", group_by="segment")
    assert by_value["country=<none>",] == sum("country" not in event["segment"] for event in EVENTS)
    one = await counted(api, level="segment", segment="country=PT", group_by="segment", model="churn")
    assert set(one) <= {("country=PT",)}
    answer = await api.get("/api/metrics", **ASK, level="segment", segment="country", group_by="segment",
                           step_ms=180_000)
    assert {name for window in answer["windows"] for name in window["fields"]} == {"latency_ms"}


async def test_late_labels_are_told_at_the_time_of_the_prediction(api: Gateway, settings: Settings, history: History
                                                                  ) -> None:
    said = [("yes", "yes", 0.9), ("yes", "no", 0.6), ("no", "no", 0.8), ("no", "no", 0.7), ("no", "yes", 0.55),
            ("yes", "yes", 0.95)]
    subject = {"environment": "prod", "model": "churn", "version": "1"}
    labels = [Feedback(event_id=f"e{at}", ts=DAY + 5_000_000 + at, predicted_at=DAY + at * 20_000, prediction=predicted,
                       label=label, confidence=sure, **subject) for at, (predicted, label, sure) in enumerate(said)]
    await Agents(settings, 0).judge(history, labels)
    answer = await api.get("/api/metrics", **ASK | {"environment": "prod", "model": "churn"}, level="labels",
                           step_ms=120_000, group_by="none")
    (point,) = answer["windows"]
    assert point["count"] == 6
    quality = point["quality"]
    assert quality["accuracy"] == pytest.approx(4 / 6)
    assert point["classes"]["yes"] == {"labels": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    assert point["classes"]["no"] == {"labels": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    # P(yes): true yes 0.9, 0.45, 0.95; true no 0.6, 0.2, 0.3. Of nine pairs eight are in order.
    assert quality["roc_auc"] == pytest.approx(8 / 9)
    by_minute = await api.get("/api/metrics", **ASK | {"environment": "prod", "model": "churn"}, level="labels",
                              granularity_ms=60_000)
    assert [(w["start_ms"] - DAY, w["count"]) for w in by_minute["windows"]] == [(0, 3), (60_000, 3)]
    text = await api.rest.get("/api/metrics", params=ASK | {"environment": "prod", "model": "churn", "level": "labels",
                                                            "step_ms": 120_000, "format": "csv"})
    (row,) = csv.DictReader(io.StringIO(text.text))
    assert float(row["accuracy"]) == pytest.approx(4 / 6)
    assert float(row["roc_auc"]) == pytest.approx(8 / 9)
    assert not [name for name in row if "yes" in name], "classes are columns of no table"


async def test_windows_of_levels_are_no_series(api: Gateway, two_partitions: None) -> None:
    assert await counted(api) == expected("environment", "model")
    models = await api.get("/api/models", since=DAY)
    assert {row["model"]: row["events"] for row in models if row["environment"] == "prod"} == {
        model: many for (environment, model), many in expected("environment", "model").items() if environment == "prod"}
    assert {row["model"] for row in await api.get("/api/series", since=DAY)} == {"churn", "fraud", "ads"}


@pytest.mark.parametrize(("query", "says"), [
    ({"level": "segment"}, "a key"), ({"segment": "country"}, "level=segment"),
    ({"group_by": "segment"}, "level=segment"),
    ({"level": "galaxy"}, "fleet"), ({"level": "labels", "granularity_ms": 1_000}, "60000")])
async def test_a_question_of_no_level_says_what_would(api: Gateway, query: dict[str, Any], says: str) -> None:
    answer = await api.rest.get("/api/metrics", params=ASK | query)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]


async def counts_of(api: Gateway, **query: Any) -> list[tuple[int, int]]:
    answer = await api.get("/api/metrics", **ASK | {"group_by": "none", "field": "none"} | query)
    return [((window["start_ms"] - DAY) // 1_000, window["count"]) for window in answer["windows"]]


async def test_a_sliding_point_tells_of_the_time_before_its_end(api: Gateway, two_partitions: None) -> None:
    query = {"from": DAY + 20_000, "to": DAY + 60_000, "step_ms": 10_000, "sliding_ms": 30_000}
    assert await counts_of(api, **query) == [(20, 300), (30, 300), (40, 300), (50, 300)]
    assert await counts_of(api, **query | {"from": DAY, "to": DAY + 20_000}) == [(0, 100), (10, 200)]
    assert await counts_of(api, **query, limit=2) == [(20, 300), (30, 300)]
    of_end = {"from": DAY + 150_000, "to": DAY + 180_000, "step_ms": 10_000, "sliding_ms": 20_000}
    assert await counts_of(api, **of_end) == [(150, 100)], "the last second with events is the 149th"
    answer = await api.get("/api/metrics", **ASK | query, group_by="none", field="latency_ms", statistics="count,max")
    rates = [window["events_per_s"] for window in answer["windows"]]
    assert rates == [10.0] * 4
    inside = [event["latency_ms"] for event in EVENTS if DAY + 30_000 <= event["ts"] < DAY + 60_000]
    assert answer["windows"][-1]["value"]["max"] == max(inside)


async def test_sessions_are_the_times_with_events(api: Gateway, settings: Settings, history: History) -> None:
    times = [0, 400, 2_100, 9_000, 9_500, 40_000]
    await Agents(settings, 0).take(history, [telemetry(0) | {"ts": DAY + at, "event_id": f"e{at}", "model": "m"}
                                             for at in times])
    assert await counts_of(api, session_gap_ms=3_000, model="m") == [(0, 3), (9, 2), (40, 1)]
    answer = await api.get("/api/metrics", **ASK, session_gap_ms=3_000, model="m", group_by="none", field="latency_ms")
    assert answer["granularity_ms"] == 1_000
    assert [(w["end_ms"] - w["start_ms"], w["open"]) for w in answer["windows"]] == [
        (3_000, False), (1_000, False), (1_000, True)]
    assert await counts_of(api, session_gap_ms=60_000, granularity_ms=1_000, model="m") == [(0, 6)]


async def test_sessions_come_all_at_once_or_not_at_all(api: Gateway, settings: Settings, history: History) -> None:
    """A next page would begin within a session of another group, and count its end once more."""
    await Agents(settings, 0).take(history, [
        telemetry(0) | {"ts": DAY + 1_000 * second, "event_id": f"{model}{second}", "model": model}
        for model, second in [*(("b", second) for second in range(10)), ("a", 5), ("b", 60)]])
    query = ASK | {"session_gap_ms": 2_000, "model": "*", "group_by": "model", "to": DAY + 30_000}
    answer = await api.rest.get("/api/metrics", params=query | {"limit": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_much")
    both = await api.get("/api/metrics", **query, limit=2)
    assert [(w["model"], w["count"]) for w in both["windows"]] == [("b", 10), ("a", 1)]
    assert both["next_from_ms"] is None


async def test_sliding_points_that_would_merge_windows_too_often_are_refused(
        api: Gateway, two_partitions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    query = ASK | {"granularity_ms": 1_000, "step_ms": 1_000, "model": "*"}
    whole = await api.get("/api/metrics", **query)
    monkeypatch.setattr("dashboards.api.asking.stored.MOST_ROWS", 10 * sum(w["partitions"] for w in whole["windows"]))
    assert (await api.rest.get("/api/metrics", params=query | {"sliding_ms": 5_000})).status_code == 200
    answer = await api.rest.get("/api/metrics", params=query | {"sliding_ms": 100_000})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_much")
    assert "slide" in answer.json()["message"]


@pytest.mark.parametrize(("query", "says"), [
    ({"sliding_ms": 15_000, "step_ms": 10_000}, "multiple"), ({"session_gap_ms": 500}, "at least"),
    ({"sliding_ms": 60_000, "session_gap_ms": 60_000}, "not both"),
    ({"session_gap_ms": 60_000, "compare_from": DAY}, "not compared")])
async def test_a_view_that_makes_no_sense_says_what_would(api: Gateway, query: dict[str, Any], says: str) -> None:
    answer = await api.rest.get("/api/metrics", params=ASK | query)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["message"]
