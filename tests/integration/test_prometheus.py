"""Boards and rules on a real Prometheus that scrapes a running pipeline, and on the database that it fills.

Every PromQL expression of a board and every recording rule gives data; every alert rule is evaluated; every SQL panel
gives rows.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import fleet
import pytest
import yaml
from stores_world import TOKEN, database
from support import ROOT, Worker, free_port, produce, until
from websockets.asyncio.client import connect

from dashboards.grafana.boards import BOARDS
from infra.embedded.broker import TansuBroker
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings

pytestmark = pytest.mark.slow
RULES = ROOT / "infra/prometheus"
VARIABLES = {"environment": "prod", "model": "m3", "version_a": "1", "version_b": "2", "field": "feature.a",
             "size": "10000"}
START_S, DATA_S = 240.0, 90.0
SECONDS, PER_SECOND = 150, 160


@dataclass
class World:
    """A pipeline that has seen two waves of telemetry, and the Prometheus that watches it."""

    prometheus: str
    database: str
    gateway: str

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}",
                                    timeout=30) as answer:
            return json.load(answer)["data"]

    def events(self, **query: str) -> int:
        """The sum of the counts that the gateway answers with."""
        request = urllib.request.Request(f"{self.gateway}/api/metrics?{urllib.parse.urlencode(query)}",
                                         headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return sum(window["count"] for window in json.load(answer)["windows"])

    def query(self, expr: str) -> list[Any]:
        """The result of an instant query; an expression that is none raises."""
        return list(self.ask("query", query=expr)["result"])


def substituted(text: str) -> str:
    """As Grafana puts a board's variables in."""
    text = re.sub(r"\$\{(\w+):sqlstring\}", lambda found: f"'{VARIABLES[found[1]]}'", text)
    text = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 day' AND now() + interval '1 day'", text)
    return re.sub(r"\$\{?([a-z_]+)\}?", lambda found: VARIABLES[found[1]], text)


def events(start_ms: int, first_s: int, last_s: int) -> Iterator[dict[str, Any]]:
    """The fleet with a model that, in the second wave, fails, sees another world and is slow."""
    rng = random.Random(4)
    for one in fleet.stream(start_ms, SECONDS, PER_SECOND):
        at_s = (one["ts"] - start_ms) / 1000
        if not first_s <= at_s < last_s:
            continue
        if one["model"] == "m3" and first_s:
            spike = 60.0 * (rng.random() < 0.1)
            one["features"] = {name: value + 8.0 * (name == "a") + spike for name, value in one["features"].items()}
            one["error"] = "TimeoutError" if rng.random() < 0.6 else None
        yield one


def labels(start_ms: int, first_s: int, last_s: int) -> Iterator[dict[str, Any]]:
    """One event in ten is judged; a last judgement of each model closes the windows of the others."""
    some = [one for number, one in enumerate(events(start_ms, first_s, last_s)) if number % 10 == 0]
    later = start_ms + 1000 * last_s + 120_000
    for one in [*some, *(one | {"ts": later} for one in {one["model"]: one for one in some}.values())]:
        yield {name: one[name] for name in ("event_id", "environment", "model", "version", "component", "prediction",
                                            "confidence", "ts")} | {"label": "yes", "predicted_at": one["ts"]}


@contextmanager
def prometheus(folder: Path, targets: dict[str, int]) -> Iterator[str]:
    """Prometheus with our rules, scraping these ports twice a second; it takes native histograms, so workers answer in
    protobuf form and the gateway as text."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian, Ubuntu: apt install prometheus)")
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    config["scrape_configs"] = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                                for job, port in targets.items()]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as out:
        process = subprocess.Popen([program, f"--config.file={folder / 'prometheus.yml'}",
                                    f"--storage.tsdb.path={folder / 'data'}",
                                    f"--web.listen-address=127.0.0.1:{port}",
                                    "--enable-feature=native-histograms"], stdout=out, stderr=out)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[World]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian, Ubuntu: apt install prometheus)")
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as held:
        broker = held.enter_context(TansuBroker(folder / "broker"))
        settings = Settings(kafka_url=broker.url, redis_url=valkey_url, topic_prefix="prom-", partitions=2,
                            database_url=asyncio.run(database(postgres_url)), data_dir=folder / "data")
        asyncio.run(create_topics(settings))
        environment = {f"{PREFIX}KAFKA_URL": broker.url, f"{PREFIX}REDIS_URL": valkey_url, f"{PREFIX}PARTITIONS": "2",
                       f"{PREFIX}DATABASE_URL": settings.database_url.get_secret_value(), f"{PREFIX}API_TOKEN": TOKEN,
                       f"{PREFIX}TOPIC_PREFIX": "prom-", f"{PREFIX}DATA_DIR": str(settings.data_dir),
                       f"{PREFIX}RETRAINING_PERSISTENCE_MS": "1000"}     # a wave lasts for less than a minute
        gateway_port = free_port()
        worker = Worker(environment, folder / "worker.log").start()
        held.callback(worker.stop)
        gateway = Worker(environment | {f"{PREFIX}PORT": str(gateway_port)}, folder / "gateway.log",
                         ["-m", "infra.cli.main", "gateway"]).start()
        gateway.port = gateway_port
        held.callback(gateway.stop)
        worker.wait_ready(START_S)
        gateway.wait_ready(START_S)
        page = held.enter_context(prometheus(folder, {"worker": worker.port, "gateway": gateway_port}))
        found = World(page, settings.database_url.get_secret_value(), f"http://127.0.0.1:{gateway_port}")
        asyncio.run(_waves(found, settings, gateway_port))
        yield found


async def _waves(world: World, settings: Settings, gateway_port: int) -> None:
    """Telemetry in two waves, each told to Prometheus before the next, so that rates have something to rise from."""
    start_ms = int(time.time() * 1000) - 1000 * SECONDS
    start_ms -= start_ms % 60_000
    address = f"ws://127.0.0.1:{gateway_port}/ws"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (connect(f"{address}/alerts?last_id=0", additional_headers=headers, proxy=None) as _,
                connect(f"{address}/windows", additional_headers=headers, proxy=None) as windows):
        told = 0.0
        for first, last in ((0, 100), (100, SECONDS)):
            await produce(settings, "telemetry", [*events(start_ms, first, last), b"no json"])
            await produce(settings, "feedback", labels(start_ms, first, last))
            await produce(settings, "telemetry", fleet.flush(settings, start_ms + 1000 * last + 60_000 * bool(first)),
                          partition=lambda item: item.get("partition_"))
            await asyncio.to_thread(until, lambda told=told: _told(world) > told + 1_000, DATA_S,
                                    "windows told to Prometheus", 0.5)
            told = _told(world)
        assert json.loads(await asyncio.wait_for(windows.recv(), 30))["type"] == "hello"
        await asyncio.to_thread(until, lambda: world.query("gateway_open_incidents") and
                                world.query('streamgauge_model_anomalies_total{model="m3"}') and
                                world.query("streamgauge_model_drift_events_total"), DATA_S, "incidents and drift", 0.5)
        await asyncio.sleep(5)


def _told(world: World) -> float:
    try:
        found = world.query("sum(streamgauge_model_events_total)")
    except OSError:
        return 0.0
    return float(found[0]["value"][1]) if found else 0.0


def panels(kind: str) -> list[tuple[str, str]]:
    """(board: panel, what it asks) of every target of a kind."""
    return [(f"{board['title']}: {panel['title']}", target[kind]) for board in BOARDS.values()
            for panel in board["panels"] for target in panel.get("targets", []) if kind in target]


def empty(world: World, asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(where, expr) for where, expr in asked if not world.query(substituted(expr))]


def test_a_native_histogram_has_what_the_one_with_fixed_edges_has(world: World) -> None:
    def both() -> tuple[list[str], list[str]]:
        exprs = ("sum by (model) (histogram_count(streamgauge_model_latency_native_seconds))",
                 "sum by (model) (streamgauge_model_latency_seconds_count)")
        native, fixed = (sorted(f"{one['metric']['model']} {one['value'][1]}" for one in world.query(expr))
                         for expr in exprs)
        return native, fixed

    until(lambda: both()[0] == both()[1] != [], DATA_S, "both histograms with the same counts", 0.5)
    slow = world.query("histogram_quantile(0.5, sum(streamgauge_model_latency_native_seconds))")
    assert 0 < float(slow[0]["value"][1]) < 10


def test_every_expression_of_a_board_gives_data(world: World) -> None:
    asked = panels("expr")
    assert len(asked) > 60
    deadline = time.monotonic() + DATA_S / 2
    while (left := empty(world, asked)) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == []


def test_every_recording_rule_gives_data_and_every_rule_is_evaluated(world: World) -> None:
    rules = [rule for group in world.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    until(lambda: all(rule["health"] == "ok" for group in world.ask("rules")["groups"] for rule in group["rules"]),
          DATA_S, "every rule is evaluated without an error")
    assert [rule["name"] for rule in rules if rule["type"] == "recording" and not world.query(rule["name"])] == []


def test_every_variable_of_a_board_has_values(world: World) -> None:
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", ""))
            if found:
                assert world.ask(f"label/{found[2]}/values", **{"match[]": substituted(found[1])}), variable


def test_prometheus_counts_what_the_history_has(world: World) -> None:
    """Event for event: the counters are of windows of ten seconds, as are these rows."""
    async def stored() -> int:
        connection = await asyncpg.connect(world.database)
        try:
            return int(await connection.fetchval("SELECT sum(count) FROM metric_windows WHERE size_ms = 10000"))
        finally:
            await connection.close()

    until(lambda: _told(world) == asyncio.run(stored()) > SECONDS * PER_SECOND * 0.9, DATA_S, "the same count", 1.0)


def test_the_gateway_answers_with_every_event_at_every_granularity(world: World) -> None:
    now = int(time.time() * 1000)
    span = {"environment": "prod", "model": "*", "field": "none", "limit": "10000", "from": str(now - 3_600_000),
            "to": str(now + 600_000)}
    queries = (("granularity_ms", "1000"), ("granularity_ms", "10000"), ("granularity_ms", "60000"),
               ("step_ms", "300000"), ("group_by", "none"), ("group_by", "version,component"))
    until(lambda: {world.events(**span, **dict([query])) for query in queries} == {int(_told(world))}, DATA_S,
          "the same sum whatever is asked, and as Prometheus has it", 1.0)


@pytest.fixture
async def connection(world: World) -> AsyncIterator[Any]:
    found = await asyncpg.connect(world.database)
    yield found
    await found.close()


async def test_every_sql_panel_gives_rows(connection: Any) -> None:
    variables = [(f"{board['title']}: {variable['name']}", variable["definition"]) for board in BOARDS.values()
                 for variable in board["templating"]["list"]
                 if variable.get("datasource", {}).get("uid") == "postgres"]
    asked = [*panels("rawSql"), *variables]
    assert len(asked) > 15
    found = {where: len(await connection.fetch(substituted(query))) for where, query in asked}
    assert [where for where, rows in found.items() if not rows] == []
