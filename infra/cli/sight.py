"""What the live view shows: asked from the workers' pages and the gateway, in a thread of its own."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

TIMEOUT_S = 2.0
EVERY_S = 1.0
#: Models and their totals are a larger question to the database.
MODELS_EVERY_S = 5.0
#: The rate is taken over so long.
RATE_S = 5.0
HISTORY = 120
ALERTS = 20

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')

#: Asks an address; the body, or None if there is no answer. 503 counts as none.
Ask = Callable[[str], str | None]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a /metrics page."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known at one moment. None is unknown: not answered, or not counted yet."""

    uptime_s: float = 0.0
    now_ms: int = 0
    events_per_s: float | None = None
    history: tuple[float, ...] = ()
    events: float | None = None
    lag: float | None = None
    rejected: float | None = None
    rejected_most: str = ""
    windows: float | None = None
    anomalies: float | None = None
    alerts_total: float | None = None
    delay_s: float | None = None
    checkpoint_ms: float | None = None
    incidents: Sequence[Row] | None = None
    alerts: Sequence[Row] | None = None
    models: Sequence[Row] | None = None
    ready: Mapping[str, bool] = field(default_factory=dict)


class Watcher:
    """Asks once a second; `latest` is what it knew last. Remembers enough to tell a rate."""

    def __init__(self, workers: Sequence[str], gateway: str, token: str, telemetry: str = "telemetry",
                 ask: Ask | None = None, clock: Callable[[], float] = time.monotonic,
                 wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, since_ms: int = 0) -> None:
        """`since_ms`: alerts published before are left out, as those of a broker that is gone with all it held."""
        self.workers = workers
        self.gateway = gateway
        self.telemetry = telemetry
        self.latest = Sight()
        self._ask = ask or _asker(token)
        self._clock = clock
        self._wall_ms = wall_ms
        self._began = clock()
        self._since_ms = since_ms
        self._seen: dict[str, float] = {}
        self._counted = 0.0
        self._marks: deque[tuple[float, float]] = deque()
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._models: tuple[float, Sequence[Row] | None] = (float("-inf"), None)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sight", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(EVERY_S)

    def look(self) -> Sight:
        """Ask once."""
        pages = {worker: page for worker in self.workers if (page := self._ask(f"{worker}/metrics"))}
        samples = {worker: parse(page) for worker, page in pages.items()}
        every = [sample for found in samples.values() for sample in found]
        ready = {page: self._ask(f"{page}/readyz") is not None for page in (*self.workers, self.gateway)}
        rate = self._rate(samples)
        rejected = _sum_by(every, "streamgauge_rejected_total", "reason")
        too_late = _total(every, "streamgauge_too_late_total")      # kept as rejected too, by another agent
        if too_late:
            rejected["too_old"] = rejected.get("too_old", 0.0) + too_late
        self.latest = Sight(
            uptime_s=self._clock() - self._began, now_ms=self._wall_ms(), events_per_s=rate,
            history=tuple(self._history), events=self._counted if samples else None,
            lag=_total(every, "streamgauge_consumer_lag", {"topic": self.telemetry}),
            rejected=sum(rejected.values()) if samples else None,
            rejected_most=max(rejected, key=rejected.__getitem__) if any(rejected.values()) else "",
            windows=_total(every, "streamgauge_windows_closed_total"),
            anomalies=_total(every, "streamgauge_anomalies_total"),
            alerts_total=_total(every, "streamgauge_alerts_total") or (0.0 if samples else None),
            delay_s=max((s.value for s in every if s.name == "streamgauge_watermark_delay_seconds"), default=None),
            checkpoint_ms=_mean_ms(every, "streamgauge_snapshot_seconds"),
            incidents=self._rows("/api/incidents?state=open&limit=200"),
            alerts=self._alerts(), models=self._known_models(), ready=ready)
        return self.latest

    def _rate(self, samples: Mapping[str, Sequence[Sample]]) -> float | None:
        """Events a second over the last few seconds. A counter that fell belongs to a worker that was started again."""
        now = self._clock()
        for worker, found in samples.items():
            value = _total(found, "streamgauge_events_total") or 0.0
            before = self._seen.get(worker, 0.0)
            self._counted += value - before if value >= before else value
            self._seen[worker] = value
        if not samples:
            self._marks.clear()
            return None
        self._marks.append((now, self._counted))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_S:
            self._marks.popleft()
        (then, had) = self._marks[0]
        if now <= then:
            return None
        rate = (self._counted - had) / (now - then)
        self._history.append(rate)
        return rate

    def _alerts(self) -> Sequence[Row] | None:
        found = self._rows(f"/api/alerts?limit={ALERTS}")
        return found if found is None else [row for row in found if (row.get("published_ms") or self._since_ms)
                                            >= self._since_ms]

    def _known_models(self) -> Sequence[Row] | None:
        asked, found = self._models
        if self._clock() - asked >= MODELS_EVERY_S or found is None:
            found = self._rows("/api/models")
            self._models = (self._clock(), found)
        return found

    def _rows(self, path: str) -> Sequence[Row] | None:
        body = self._ask(self.gateway + path)
        if body is None:
            return None
        try:
            found = json.loads(body)
        except ValueError:
            return None
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else None


def parse(page: str) -> list[Sample]:
    """The samples of a page in Prometheus's text format; lines that are none are passed over."""
    found = []
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match:
            try:
                found.append(Sample(match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
            except ValueError:
                continue
    return found


def _total(samples: Sequence[Sample], name: str, labels: Mapping[str, str] | None = None) -> float | None:
    values = [s.value for s in samples
              if s.name == name and all(s.labels.get(key) == value for key, value in (labels or {}).items())]
    return sum(values) if values else None


def _sum_by(samples: Sequence[Sample], name: str, label: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in samples:
        if sample.name == name:
            key = sample.labels.get(label, "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def _mean_ms(samples: Sequence[Sample], name: str) -> float | None:
    count, total = _total(samples, f"{name}_count"), _total(samples, f"{name}_sum")
    return 1000 * total / count if count and total is not None else None


def _asker(token: str) -> Ask:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))       # the pages are this machine's

    def ask(url: str) -> str | None:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode(errors="replace"))
        except (OSError, HTTPException, ValueError):
            return None

    return ask
