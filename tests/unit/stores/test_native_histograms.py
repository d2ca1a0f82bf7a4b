"""The page in protobuf form, read by a real Prometheus: what it says as text, and native histograms beside it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest
from stores_world import DAY, a_window, summary
from support import free_port, until

from streams import protobuf
from streams.stores.exposition import ModelMetrics
from streams.windows.record import read_head, write_window

LATENCY_MS = np.random.default_rng(5).lognormal(3.0, 1.5, 400)
LABELS = '{environment="prod",model="churn",version="3",component="model"}'


def filled() -> CollectorRegistry:
    """A registry with every kind of metric that a worker has, and models that were told windows."""
    registry, models = CollectorRegistry(), ModelMetrics()
    registry.register(models)
    Counter("things", "Things", ["kind"], registry=registry).labels('a "quoted"\\\n\u00e9').inc(3.5)
    Gauge("level", "Level", registry=registry).set(-math.pi)
    took = Histogram("took_seconds", "Time", ["stage"], buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.5, 5.0):
        took.labels("x").observe(value)
    Info("build", "Build", registry=registry).info({"version": "1"})
    Summary("size", "Size", registry=registry).observe(7.0)
    for at, part in enumerate(np.split(LATENCY_MS, 4)):
        models.window(read_head(write_window(a_window(DAY + 10_000 * at, len(part), fields={
            "latency_ms": summary(*part.tolist(), *([0.0] * at))}))))
    models.window(read_head(write_window(a_window(DAY, 1, model="quiet", fields={}))))
    return registry


class Page(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    asked: list[str]

    def do_GET(self) -> None:
        accept = self.headers.get("Accept", "")
        native = protobuf.wanted(accept) and self.path == "/native"
        self.asked.append(accept)
        body = protobuf.generate(self.registry) if native else generate_latest(self.registry)
        self.send_response(200)
        self.send_header("Content-Type", protobuf.CONTENT_TYPE if native else "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Queries of a Prometheus that scrapes one registry twice: as text (job text) and in protobuf form (job native)."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian, Ubuntu: apt install prometheus)")
    folder: Path = tmp_path_factory.mktemp("native")
    Page.registry, Page.asked = filled(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [
        {"job_name": job, "scrape_interval": "1s", "scrape_timeout": "1s", "metrics_path": f"/{job}",
         "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]} for job in ("text", "native")]}))
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=native-histograms"], stdout=out, stderr=out)

    def query(expr: str) -> list[Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?"
                                    f"{urllib.parse.urlencode({'query': expr})}", timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])

    def scraped() -> bool:
        try:
            return len(query("up == 1")) == 2 and bool(query('things_total{job="native"}'))
        except OSError:
            return False

    try:
        until(scraped, 60, f"both jobs are up: {folder / 'log'}", 0.5)
        yield query
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()


def told(found: list[Any]) -> dict[Any, float]:
    return {tuple(sorted((key, value) for key, value in one["metric"].items() if key != "job")): float(one["value"][1])
            for one in found}


def test_the_protobuf_form_says_what_the_text_says(ask: Any) -> None:
    ours = '__name__!~"up|scrape_.*|.*_native_.*"'
    text, native = (told(ask(f'{{job="{job}",{ours}}}')) for job in ("text", "native"))
    assert len(text) > 40
    assert native == text
    assert any(protobuf.wanted(accept) for accept in Page.asked)


def value(found: list[Any]) -> float:
    assert len(found) == 1
    return float(found[0]["value"][1])


def test_a_native_histogram_has_the_quantiles_of_the_values_within_its_buckets(ask: Any) -> None:
    name = f"streamgauge_model_latency_native_seconds{LABELS}"
    exact = np.sort(np.concatenate((LATENCY_MS, np.zeros(6)))) / 1000
    assert value(ask(f"histogram_count({name})")) == len(exact)
    assert value(ask(f"histogram_sum({name})")) == pytest.approx(exact.sum())
    for q in (0.1, 0.5, 0.9, 0.99):
        low, high = exact[int(q * len(exact)) - 2], exact[min(len(exact) - 1, int(q * len(exact)) + 1)]
        assert low / 1.11 <= value(ask(f"histogram_quantile({q}, {name})")) <= high * 1.11
    assert value(ask(f"histogram_quantile(0.005, {name})")) <= protobuf._ZERO, "six of them took no time at all"
    assert value(ask(f"histogram_count({name.replace('churn', 'quiet')})")) == 0


def test_only_who_takes_it_gets_it() -> None:
    prometheus = ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
                  "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert protobuf.wanted(prometheus)
    assert not any(map(protobuf.wanted, ("", "*/*", "text/plain", "application/vnd.google.protobuf",
                                         "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
                                         "encoding=text")))
