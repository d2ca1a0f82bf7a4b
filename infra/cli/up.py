"""`streamgauge up`: embedded services, workers, gateway and demo fleet as children of this process, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from dashboards.api.auth import api_token
from infra.cli.live import Watcher, render
from infra.embedded.process import check_port, die_with_parent, disk_error, free_port
from infra.embedded.services import embedded, only_one
from infra.migrations import FOLDER
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from streams.stores.postgres import migrate

console = Console()
LOOK_S = 1.0
LINE_S = 10.0
STOP_S = 20.0
FIRST_RESTART_S, LONGEST_RESTART_S = 1.0, 30.0
#: A child that ran for so long starts its count of restarts anew.
STEADY_S = 60.0


class Stop(Exception):
    """Ctrl-C or SIGTERM."""


@dataclass
class Child:
    """One of our own processes, started again when it ends by itself."""

    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait_s: float = FIRST_RESTART_S
    due: float = field(default=0.0)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli.main", *self.arguments], env=dict(self.environment),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()))
        self.started = time.monotonic()

    def revive(self, now: float) -> str | None:
        """Start it again, after a pause that grows, if it has ended; a note when it ends."""
        if self.process is not None and self.process.poll() is not None:
            code, self.process = self.process.returncode, None
            self.wait_s = FIRST_RESTART_S if now - self.started > STEADY_S else min(2 * self.wait_s,
                                                                                   LONGEST_RESTART_S)
            self.due = now + self.wait_s
            return f"{self.name} ended with {code}; starting it again in {self.wait_s:.0f} s ({self.log})"
        if self.process is None and now >= self.due:
            self.start()
        return None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(settings: Settings, workers: int, demo_rate: float | None) -> int:
    """Run everything; the exit code."""
    settings = _with_ports(settings, workers)
    with only_one(settings.data_dir), _stoppable(), ExitStack() as stack:
        try:
            console.print("[dim]starting services[/]")
            environment = stack.enter_context(embedded(settings))
            settings = settings.model_copy(update=_as_fields(environment))
            asyncio.run(create_topics(settings))
            asyncio.run(migrate(settings, FOLDER))
            children = _children(settings, environment, workers, demo_rate)
            for child in reversed(children):
                stack.callback(child.stop)
            for child in children:
                child.start()
            _watch(settings, children, workers)
        except Stop:
            console.print("[dim]stopping[/]")
        except OSError as error:
            raise disk_error(settings.data_dir, error) from error
    console.print("stopped")
    return 0


def _with_ports(settings: Settings, workers: int) -> Settings:
    chosen = {"port": settings.port or free_port(), "worker_port": settings.worker_port or free_port(),
              "data_dir": settings.data_dir.resolve()}
    check_port(chosen["port"], f"{PREFIX}PORT")  # type: ignore[arg-type]
    for number in range(workers):
        check_port(chosen["worker_port"] + number, f"{PREFIX}WORKER_PORT")  # type: ignore[operator]
    return settings.model_copy(update=chosen)


def _as_fields(environment: Mapping[str, str]) -> dict[str, object]:
    return Settings(**{name.removeprefix(PREFIX).lower(): value  # type: ignore[arg-type]
                       for name, value in environment.items()}).model_dump(
                           include={"kafka_url", "redis_url", "database_url"})


def _children(settings: Settings, services: Mapping[str, str], workers: int, demo_rate: float | None) -> list[Child]:
    logs = settings.data_dir / "logs"
    logs.mkdir(exist_ok=True)
    base = {**os.environ, **services, f"{PREFIX}DATA_DIR": str(settings.data_dir), f"{PREFIX}PORT": str(settings.port),
            f"{PREFIX}LOG_FORMAT": "json"}
    found = [Child("gateway", ["gateway"], base, logs / "gateway.log")]
    for number in range(workers):
        own = {**base, f"{PREFIX}WORKER_PORT": str(settings.worker_port + number)}
        found.append(Child(f"worker {number}", ["worker"], own, logs / f"worker-{number}.log"))
    if demo_rate is not None:
        found.append(Child("demo", ["demo", "--rate", str(demo_rate), "--quiet"], base, logs / "demo.log"))
    return found


def _watch(settings: Settings, children: list[Child], workers: int) -> None:
    """Draw until Stop is raised, starting again what ends."""
    host = settings.host
    watcher = Watcher([f"http://{host}:{settings.worker_port + number}" for number in range(workers)],
                      f"http://{host}:{settings.port}", api_token(settings))
    notes: list[str] = []
    _greet(settings, watcher)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                notes += _revive(children)
                found = watcher.look()
                found.notes = notes
                live.update(render(found), refresh=True)
                time.sleep(LOOK_S)
    while True:
        for note in _revive(children):
            console.print(note)
        found = watcher.look()
        rate = "–" if found.events_per_s is None else f"{found.events_per_s:,.0f}"
        console.print(f"events/s {rate}  events {found.totals.get('streamgauge_events_total', 0):,.0f}  "
                      f"lag {found.lag or 0:,.0f}  open incidents {len(found.incidents or [])}")
        for _ in range(int(LINE_S / LOOK_S)):
            time.sleep(LOOK_S)


def _greet(settings: Settings, watcher: Watcher) -> None:
    console.print(f"page    {watcher.gateway}   (token: {watcher.token})")
    console.print(f"API     {watcher.gateway}/api/docs")
    console.print(f"metrics {', '.join(f'{worker}/metrics' for worker in watcher.workers)}")
    console.print(f"data, logs and the token are in {settings.data_dir}", soft_wrap=True)
    console.print("alerts  .venv/bin/streamgauge alerts tail   (in another terminal)")


def _revive(children: list[Child]) -> list[str]:
    now = time.monotonic()
    return [note for note in (child.revive(now) for child in children) if note]


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Stop, once; a second one while stopping changes nothing."""
    def stop(number: int, frame: FrameType | None) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_IGN)
        raise Stop

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
