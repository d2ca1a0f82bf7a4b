"""REST on real stores: lists, pages, series, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stores_world import (
    DAY,
    Gateway,
    a_drift,
    a_request,
    a_window,
    an_alert,
    an_anomaly,
    database,
    eventually,
    gateway,
    summary,
    world,
)

from streams.settings import Settings
from streams.stores.history import History
from streams.stores.redis import Hot

HOUR = {"environment": "prod", "model": "churn", "from": DAY, "to": DAY + 3_600_000}


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str) -> Settings:
    return await world(tmp_path, postgres_url, valkey_url)


async def pages(api: Gateway, path: str, key: str, **query: Any) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        answer = await api.rest.get(path, params=query | {"cursor": cursor})
        assert answer.status_code == 200, answer.text
        found.append([row[key] for row in answer.json()])
        cursor = answer.headers.get("X-Next-Cursor", "")
        if not cursor:
            return found


async def test_incidents_by_state_environment_model_and_severity(api: Gateway, history: History, hot: Hot) -> None:
    sent = [an_alert(1), an_alert(2, environment="staging", severity="critical"), an_alert(3, model="fraud"),
            an_alert(1, alert_id="over", state="resolved", ts=DAY + 9)]
    await history.alerts(sent)
    for alert in sent:
        await hot.append_alert(alert)

    async def found(**query: Any) -> list[str]:
        return [row["alert_id"] for row in await api.get("/api/incidents", **query)]

    assert await found() == ["over", "alert-3", "alert-2"]
    assert await found(state="open") == ["alert-3", "alert-2"]
    assert await found(state="resolved") == ["over"]
    for state in ("", "open"):
        assert await found(state=state, environment="staging") == ["alert-2"]
        assert await found(state=state, model="fraud") == ["alert-3"]
        assert await found(state=state, severity="critical") == ["alert-2"]
    assert await found(state="open", limit=1) == ["alert-3"]


async def test_an_incident_shows_all_its_transitions_in_order(api: Gateway, history: History) -> None:
    await history.alerts([an_alert(1, alert_id="z"), an_alert(1, alert_id="m", state="escalated", severity="critical"),
                          an_alert(1, alert_id="a", state="resolved"), an_alert(2)])
    assert [row["state"] for row in await api.get("/api/incidents/incident-1")] == ["open", "escalated", "resolved"]
    answer = await api.rest.get("/api/incidents/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_incident")


async def test_pages_hold_every_row_once_even_of_one_moment(api: Gateway, history: History) -> None:
    moments = [DAY, DAY, DAY, DAY + 1, DAY + 1, DAY + 2, DAY + 2]
    await history.alerts([an_alert(n, ts=ts) for n, ts in enumerate(moments)])
    await history.anomalies([an_anomaly(n, ts=ts) for n, ts in enumerate(moments)])
    await history.drift([a_drift(n, detected_ms=ts) for n, ts in enumerate(moments)])
    await history.requests([a_request(n, ts=ts) for n, ts in enumerate(moments)])
    for path, key in (("/api/alerts", "alert_id"), ("/api/anomalies", "anomaly_id"), ("/api/drift", "drift_id"),
                      ("/api/retraining-requests", "request_id")):
        found = await pages(api, path, key, limit=2)
        assert [len(page) for page in found] == [2, 2, 2, 1], path
        numbers = [int(name.rsplit("-", 1)[1]) for page in found for name in page]
        assert numbers == [6, 5, 4, 3, 2, 1, 0], path
        assert await pages(api, path, key, before=DAY + 1) == [[f"{name.rsplit('-', 1)[0]}-{n}" for n in (2, 1, 0)]
                                                               for name in found[0][:1]]
        assert await pages(api, path, key, model="fraud") == [[]]
        assert len((await pages(api, path, key, environment="prod"))[0]) == 7


async def test_a_page_can_begin_after_an_id_of_any_letters(api: Gateway, history: History) -> None:
    names = ["a:b", "ü/?#&=+ %", "日本 🌊"]
    await history.alerts([an_alert(n, alert_id=name, ts=DAY + n) for n, name in enumerate(names)])
    assert await pages(api, "/api/alerts", "alert_id", limit=1) == [[name] for name in names[::-1]]


async def test_windows_of_several_partitions_add_up_to_one(api: Gateway, history: History) -> None:
    low, high = [float(n) for n in range(1, 51)], [float(n) for n in range(51, 101)]
    await history.windows([
        a_window(DAY, 50, 0, errors=1, fields={"latency_ms": summary(*low), "prediction=a": summary()}),
        a_window(DAY, 52, 1, errors=2, fields={"latency_ms": summary(*high, missing=2)}),
        a_window(DAY + 60_000, 4), a_window(DAY, 7, version="4"), a_window(DAY, 9, size_ms=1_000),
        a_window(DAY, 9, environment="staging"), a_window(DAY + 3_600_000, 9)])
    found = await api.get("/api/metrics", **HOUR, field="latency_ms")
    assert [(w["start_ms"], w["version"], w["count"], w["errors"], w["partitions"]) for w in found["windows"]] == [
        (DAY, "3", 102, 3, 2), (DAY, "4", 7, 0, 1), (DAY + 60_000, "3", 4, 0, 1)]
    value = found["windows"][0]["value"]
    assert (value["count"], value["missing"], value["min"], value["max"], value["mean"]) == (100, 2, 1, 100, 50.5)
    assert value["std"] == pytest.approx(29.0115, abs=1e-4)
    assert value["p50"] == pytest.approx(50, rel=0.011)
    assert value["p95"] == pytest.approx(95, rel=0.011)
    everything = await api.get("/api/metrics", **HOUR)
    assert list(everything["windows"][0]["fields"]) == ["latency_ms", "prediction=a"]
    assert everything["windows"][0]["fields"]["latency_ms"] == value
    absent = await api.get("/api/metrics", **HOUR, field="feature.none")
    assert [w["value"] for w in absent["windows"]] == [None, None, None]
    assert len((await api.get("/api/metrics", **HOUR, version="4"))["windows"]) == 1
    assert (await api.get("/api/metrics", **HOUR, granularity_ms=1_000))["windows"][0]["count"] == 9


async def test_a_long_series_comes_in_parts_that_join(api: Gateway, history: History) -> None:
    await history.windows([a_window(DAY + 60_000 * n, n + 1, p, version=version) for n in range(5) for p in (0, 1)
                           for version in ("3", "4")])
    found, start = [], DAY
    while start is not None:
        part = await api.get("/api/metrics", **HOUR | {"from": start}, granularity_ms=60_000, limit=3)
        assert 0 < len(part["windows"]) <= 3
        found += [(w["start_ms"], w["version"], w["count"]) for w in part["windows"]]
        start = part["next_from_ms"]
    assert found == [(DAY + 60_000 * n, version, 2 * (n + 1)) for n in range(5) for version in ("3", "4")]


@pytest.mark.parametrize("moment", ["2026-05-01T00:00:00Z", "2026-05-01T02:00:00+02:00", str(DAY)])
async def test_an_instant_may_be_milliseconds_or_iso(api: Gateway, history: History, moment: str) -> None:
    await history.windows([a_window(DAY)])
    found = await api.get("/api/metrics", **HOUR | {"from": moment})
    assert (found["from_ms"], len(found["windows"])) == (DAY, 1)


async def test_the_overview_counts_and_names(api: Gateway, history: History, hot: Hot) -> None:
    await history.windows([a_window(DAY, 3, errors=1), a_window(DAY, 4, 1, version="4"), a_window(DAY, model="fraud")])
    await history.anomalies([an_anomaly(1), an_anomaly(2)])
    await history.drift([a_drift(1), a_drift(2, state="recovered")])
    await history.alerts([an_alert(1)])
    await hot.append_alert(an_alert(1))
    found = await api.get("/api/overview", since=DAY - 1)
    assert [a["incident_id"] for a in found["open_incidents"]] == ["incident-1"]
    assert found["counts"] == {"anomalies": 2, "drifts": 1, "incidents": 1, "retraining_requests": 0}
    churn = found["models"][0]
    assert (churn["model"], churn["versions"], churn["events"], churn["errors"]) == ("churn", ["3", "4"], 7, 1)
    assert found["models"] == await api.get("/api/models", since=DAY - 1)


async def test_the_hot_view_shows_newest_windows_and_anomalies(api: Gateway, hot: Hot) -> None:
    await hot.put_windows([a_window(DAY), a_window(DAY + 60_000, 5), a_window(DAY, model="fraud")])
    await hot.put_scores([an_anomaly(1)])
    churn, fraud = await api.get("/api/series")
    assert (churn["model"], churn["windows"][0]["count"], churn["anomaly"]["score"]) == ("churn", 5, 0.9)
    assert (fraud["model"], fraud["anomaly"]) == ("fraud", None)
    assert await api.get("/api/series", model="fraud") == [fraud]


async def test_a_stretch_of_the_stream_is_fetched_by_its_ids(api: Gateway, hot: Hot) -> None:
    places = [str(await hot.append_alert(an_alert(n))) for n in range(6)]
    found = await api.get("/api/alerts/stream", from_id=places[2], to_id=places[4])
    assert [(row["id"], row["alert"]["alert_id"]) for row in found["alerts"]] == [
        (places[n], f"alert-{n}") for n in (2, 3, 4)]
    assert not found["trimmed"]
    assert len((await api.get("/api/alerts/stream"))["alerts"]) == 6
    assert len((await api.get("/api/alerts/stream", limit=2))["alerts"]) == 2


@pytest.mark.parametrize(("path", "code", "says"), [
    ("/api/metrics", 422, "environment"), ("/api/metrics?environment=prod&model=a&granularity_ms=7", 422, "60000"),
    ("/api/metrics?environment=prod&model=a&from=yesterday", 422, "ISO 8601"),
    ("/api/metrics?environment=prod&model=a&from=2026-05-01T00:00:00", 422, "with a zone"),
    ("/api/metrics?environment=prod&model=a&to=99999999999999999", 422, "outside"),
    ("/api/metrics?environment=prod&model=a&to=" + "9" * 5_000, 422, "ISO 8601"),
    ("/api/metrics?environment=prod&model=a&field=%00", 422, "character"),
    ("/api/incidents?state=closed", 422, "state"), ("/api/incidents?severity=bad", 422, "severity"),
    ("/api/incidents/%00", 422, "character"), ("/api/alerts?limit=0", 422, "limit"),
    ("/api/alerts?limit=1001", 422, "limit"), ("/api/alerts?cursor=x", 422, "X-Next-Cursor"),
    ("/api/alerts?cursor=%C3%BC", 422, "X-Next-Cursor"), ("/api/alerts?model=%00", 422, "character"),
    ("/api/alerts?before=-1", 422, "outside"), ("/api/alerts/stream?from_id=x", 422, "MILLISECONDS"),
    ("/api/alerts/stream?to_id=99999999999999999999", 422, "MILLISECONDS"), ("/api/nothing", 404, "openapi.json"),
    ("/nothing", 404, "openapi.json")])
async def test_a_question_that_makes_no_sense_is_told_what_would(api: Gateway, path: str, code: int,
                                                                 says: str) -> None:
    answer = await api.rest.get(path)
    assert answer.status_code == code, answer.text
    assert set(answer.json()) == {"code", "message"}
    assert says in answer.json()["message"], answer.text


async def test_another_method_is_refused_in_the_same_shape(api: Gateway) -> None:
    answer = await api.rest.post("/api/alerts")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


async def test_every_answer_is_guarded_and_counted_by_its_route(api: Gateway) -> None:
    answer = await api.rest.get("/api/incidents/none-such")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    await api.rest.get("/no/such/path")
    page = (await api.rest.get("/metrics")).text
    assert 'gateway_requests_total{route="/api/incidents/{incident_id}",status="404"}' in page
    assert 'gateway_request_seconds_count{route="/api/incidents/{incident_id}"}' in page
    assert 'route="other",status="404"' in page
    assert "none-such" not in page


async def test_a_database_that_was_never_set_up_is_not_ready_and_says_why(tmp_path: Path, postgres_url: str,
                                                                         valkey_url: str) -> None:
    settings = (await world(tmp_path, postgres_url, valkey_url)).model_copy(
        update={"database_url": Settings(database_url=await database(postgres_url, migrated=False)).database_url})
    async with gateway(settings) as running:
        async def said() -> bool:
            answer = await running.rest.get("/readyz")
            return answer.status_code == 503 and "streamgauge setup" in answer.text
        await eventually(said, "readyz says what to run")
