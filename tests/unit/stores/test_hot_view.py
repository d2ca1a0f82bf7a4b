"""The hot view: an alert once, incidents that are open, the newest window whatever comes late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from stores_world import DAY, SUBJECT, a_window, an_alert, an_anomaly, opened, summary

from streams.settings import Settings
from streams.windows.record import read_window, write_window
from streams.stores import redis
from streams.stores.redis import HOT_SECONDS, RECENT, Hot

SERIES = "prod|churn|3|model"


class Clock:
    now_ms = DAY

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def settings(valkey_url: str, request: pytest.FixtureRequest) -> Settings:
    return Settings(redis_url=valkey_url, topic_prefix=f"{request.node.name}-", alert_stream_length=100)


@pytest.fixture
async def hot(settings: Settings) -> AsyncIterator[Hot]:
    async with opened(settings) as found:
        yield found


async def on_stream(hot: Hot) -> list[str]:
    return [json.loads(entry["alert"])["alert_id"] for _, entry in await hot.client.xrange(hot.alerts.key)]


async def test_an_alert_is_appended_once_by_its_id(hot: Hot) -> None:
    places = [await hot.append_alert(an_alert(number)) for number in (1, 2, 1, 2)]
    assert places[2:] == [None, None]
    assert [entry[0] for entry in await hot.client.xrange(hot.alerts.key)] == places[:2]
    assert await on_stream(hot) == ["alert-1", "alert-2"]


async def test_many_who_append_the_same_alert_at_once_append_it_once(hot: Hot) -> None:
    done = await asyncio.gather(*(hot.append_alert(an_alert(1)) for _ in range(20)))
    assert sum(place is not None for place in done) == 1
    assert await on_stream(hot) == ["alert-1"]


async def test_an_incident_is_open_until_it_is_resolved_and_a_repeat_does_not_open_it_again(hot: Hot) -> None:
    await hot.append_alert(an_alert(1))
    await hot.append_alert(an_alert(2))
    await hot.append_alert(an_alert(1, alert_id="worse", state="escalated", severity="critical"))
    assert {a["incident_id"]: a["severity"] for a in await hot.open_alerts()} == {"incident-1": "critical",
                                                                                  "incident-2": "warning"}
    await hot.append_alert(an_alert(1, alert_id="over", state="resolved"))
    await hot.append_alert(an_alert(1))
    assert [a["incident_id"] for a in await hot.open_alerts()] == ["incident-2"]


async def test_the_stream_is_bounded(hot: Hot) -> None:
    for number in range(500):
        await hot.append_alert(an_alert(number))
    assert 100 <= await hot.client.xlen(hot.alerts.key) <= 300
    assert (await on_stream(hot))[-1] == "alert-499"


async def test_an_alerts_id_is_forgotten_in_time(hot: Hot) -> None:
    await hot.append_alert(an_alert(1))
    assert 0 < await hot.client.ttl(f"{hot.prefix}seen:alert-1") <= redis.DEDUPE_SECONDS


async def test_another_prefix_sees_nothing(hot: Hot, settings: Settings) -> None:
    await hot.append_alert(an_alert(1))
    async with opened(settings.model_copy(update={"topic_prefix": "other-"})) as other:
        assert await on_stream(other) == []
        assert await other.open_alerts() == []


async def test_a_late_amendment_of_an_older_window_changes_nothing(hot: Hot) -> None:
    await hot.put_windows([a_window(DAY, count=2), a_window(DAY + 60_000, count=5)])
    await hot.put_windows([a_window(DAY, count=3, revision=1)])
    await hot.put_windows([a_window(DAY + 60_000, count=4)])
    (found,) = await hot.newest([SERIES], 60_000)
    assert [(w["start_ms"], w["count"]) for w in found["windows"]] == [(DAY + 60_000, 5)]
    await hot.put_windows([a_window(DAY + 60_000, count=6, revision=1)])
    (found,) = await hot.newest([SERIES], 60_000)
    assert [w["count"] for w in found["windows"]] == [6]


async def test_partitions_granularities_and_versions_are_apart(hot: Hot) -> None:
    await hot.put_windows([a_window(DAY, count=1), a_window(DAY, count=2, partition=1),
                           a_window(DAY, count=3, size_ms=1_000), a_window(DAY, count=4, version="4")])
    third, fourth = await hot.newest([SERIES, "prod|churn|4|model"], 60_000)
    assert [(w["partition"], w["count"]) for w in third["windows"]] == [(0, 1), (1, 2)]
    assert [w["count"] for w in fourth["windows"]] == [4]
    (second,) = await hot.newest([SERIES], 1_000)
    assert [w["count"] for w in second["windows"]] == [3]


async def test_figures_stand_in_the_place_of_sketches(hot: Hot) -> None:
    await hot.put_windows([a_window(fields={"latency_ms": summary(*map(float, range(1, 101))),
                                            "prediction=yes": summary()})])
    (found,) = await hot.newest([SERIES], 60_000)
    latency = found["windows"][0]["fields"]["latency_ms"]
    assert "sketch" not in latency
    assert (latency["count"], latency["min"], latency["max"], latency["mean"]) == (100, 1, 100, 50.5)
    assert latency["p95"] == pytest.approx(95, rel=0.011)
    assert found["windows"][0]["fields"]["prediction=yes"]["p50"] is None


async def test_the_newest_anomaly_of_a_series_is_kept(hot: Hot) -> None:
    await hot.put_scores([an_anomaly(2, score=0.7), an_anomaly(1, score=0.5)])
    (found,) = await hot.newest([SERIES], 60_000)
    assert (found["windows"], found["anomaly"]["anomaly_id"], found["anomaly"]["score"]) == ([], "anomaly-2", 0.7)


async def test_a_series_without_windows_leaves_in_time(settings: Settings) -> None:
    clock = Clock()
    hot = Hot(redis.connect(settings), settings, clock)
    await hot.put_windows([a_window()])
    assert await hot.series() == {SERIES: DAY}
    assert 0 < await hot.client.ttl(f"{hot.prefix}window:60000:{SERIES}") <= HOT_SECONDS
    clock.now_ms += 1_000 * HOT_SECONDS + 1
    assert await hot.series() == {}
    await hot.put_windows([a_window(version="4")])
    assert await hot.client.zrange(hot.known_series, 0, -1) == ["prod|churn|4|model"]
    await hot.client.aclose()


def test_no_name_may_hold_what_parts_a_series() -> None:
    for name in SUBJECT:
        with pytest.raises(ValueError, match=name):
            read_window(write_window(a_window(**{name: "a|b"})))


async def test_anomalies_are_appended_once_by_their_ids_in_order(hot: Hot) -> None:
    await hot.append_anomalies([an_anomaly(number) for number in (3, 1)])
    await hot.append_anomalies([an_anomaly(number) for number in (1, 2, 3, *range(10, 700))])
    found = [json.loads(entry["anomaly"])["anomaly_id"] for _, entry in await hot.client.xrange(hot.anomalies.key)]
    assert found == [f"anomaly-{number}" for number in (3, 1, 2, *range(10, 700))]
    assert await on_stream(hot) == []


async def test_a_ring_holds_the_last_windows_and_the_newer_copy_of_each(hot: Hot) -> None:
    windows = [a_window(DAY + 60_000 * number, number + 1, partition) for number in range(RECENT + 4)
               for partition in (0, 1)]
    await hot.keep_recent(windows[:20])
    await hot.keep_recent(windows[10:])
    await hot.keep_recent([a_window(DAY + 60_000 * (RECENT + 3), 99), a_window(DAY + 60_000 * (RECENT + 2), 1),
                           a_window(DAY, 500), a_window(DAY + 60_000 * (RECENT + 1), RECENT + 2, revision=3, errors=1)])
    (ring,) = await hot.recent(["prod|churn|3|model"], [60_000, 1_000])
    of_first = {(found.start_ms - DAY) // 60_000: (found.count, found.revision) for found in ring
                if found.partition == 0}
    assert of_first == {number: (number + 1, 0) for number in range(4, RECENT + 4)} | {
        RECENT + 3: (99, 0), RECENT + 1: (RECENT + 2, 3)}
    assert len(ring) == 2 * RECENT
    assert set(json.loads(bytes(ring[0].fields["latency_ms"]))) >= {"count", "sketch"}
    assert await hot.recent(["prod|none|3|model"], [60_000]) == [[]]


async def test_windows_are_on_their_stream_each_time_they_are_sent(hot: Hot) -> None:
    await hot.append_windows([a_window(count=2), a_window(count=3)])
    entries = await hot.client.xrange(hot.windows.key)
    bodies = [json.loads(entry[1]["window"]) for entry in entries]
    assert [(body["model"], body["version"], body["size_ms"], body["count"]) for body in bodies] == [
        ("churn", "3", 60_000, 2), ("churn", "3", 60_000, 3)]


async def test_many_alerts_go_onto_the_stream_in_order_each_once(hot: Hot) -> None:
    some = [an_alert(number) for number in range(450)]
    await hot.append_alerts(some)
    await hot.append_alerts([*some[-3:], an_alert(450)])
    kept = await on_stream(hot)
    assert len(kept) >= 100
    assert kept == [f"alert-{number}" for number in range(451 - len(kept), 451)]
