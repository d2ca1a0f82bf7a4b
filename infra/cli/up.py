"""`streamgauge up`: embedded services, workers, gateway and demo fleet as children of this process, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from dashboards.api.auth import TOKEN_FILE, api_token
from infra.cli import running
from infra.cli.children import Child, stop_all
from infra.cli.live import Frame, Process, clean, number, render, uptime
from infra.cli.serve import prepare
from infra.cli.sight import Row, Sight, Watcher
from infra.embedded.process import Service, check_port, disk_error, free_port
from infra.embedded.services import embedded, only_one
from streams.settings import PREFIX, Settings, settings

LOOK_S = 0.25
#: Between two lines of figures where there is no terminal to draw on.
LINE_S = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Ctrl-C, SIGTERM, or the terminal was closed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line said."""

    workers: int
    demo_rate: float | None
    plain: bool


def command(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    demo: Annotated[bool, typer.Option(help="Run the demo fleet.")] = True,
    rate: Annotated[float, typer.Option(min=1, help="Events a second of the demo fleet.")] = 120.0,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view, as without a terminal.")]
    = False,
) -> None:
    """Start everything on this machine, and show it live until Ctrl-C.

    Broker, Valkey and PostgreSQL run embedded on loopback, except those that STREAMGAUGE_KAFKA_URL,
    STREAMGAUGE_REDIS_URL or STREAMGAUGE_DATABASE_URL name. Data, logs and the token are in STREAMGAUGE_DATA_DIR. The
    embedded broker keeps its log in memory: what was in it is gone after a stop; the history in PostgreSQL stays.
    """
    raise typer.Exit(run(settings(), Plan(workers, rate if demo else None, plain)))


def run(given: Settings, plan: Plan) -> int:
    """Run everything until Ctrl-C; the exit code."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    with ExitStack() as stack:
        try:
            stack.enter_context(_stoppable())
            stack.enter_context(only_one(given.data_dir))
            run_of = Run(_with_ports(given, plan.workers), plan, console)
            run_of.everything(stack)
        except Stopped:
            console.print("Stopping ...")
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            raise disk_error(given.data_dir, error) from error
    console.print(f"Stopped; no process is left. Data and logs stay in {_short(given.data_dir)}.")
    return 0


class Run:
    """One run, from the first service to the last line."""

    def __init__(self, chosen: Settings, plan: Plan, console: Console) -> None:
        self.settings = chosen
        self.plan = plan
        self.console = console
        self.children: list[Child] = []
        self.services: list[Service] = []
        self.notes: list[str] = []
        self.ready: set[str] = set()

    def everything(self, stack: ExitStack) -> None:
        """Start all, and watch until Stopped is raised; the stack stops it, last first."""
        started, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        own_broker = not self.settings.kafka_url
        open_ones = [name for name, value in (("broker", self.settings.kafka_url),
                                              ("Valkey", self.settings.redis_url.get_secret_value()),
                                              ("PostgreSQL", self.settings.database_url.get_secret_value()))
                     if not value]
        self.console.print(f"Starting {', '.join([*open_ones, 'workers, gateway'])} ...")
        environment = stack.enter_context(embedded(self.settings, self.services)) | self._own_variables()
        os.environ.update(environment)
        self.settings = Settings().model_copy(update={"worker_port": self.settings.worker_port})
        asyncio.run(prepare(self.settings))
        first = not (self.settings.data_dir / TOKEN_FILE).exists()
        token = api_token(self.settings)
        stack.enter_context(running.told(self.settings.data_dir, environment))
        self._make_children(dict(os.environ))
        watcher = Watcher([child.page for child in self.children if child.arguments == ["worker"]], self.page, token,
                          self.settings.topic("telemetry"), since_ms=began_ms if own_broker else 0)
        stack.callback(watcher.stop)
        for stage in self._stages():
            stack.callback(stop_all, stage)
        for child in self.children:
            child.begin(time.monotonic())
        watcher.start()
        self._greet(token, first, time.monotonic() - started)
        self._watch(watcher, token if first else "")

    @property
    def page(self) -> str:
        """The gateway's address."""
        return f"http://{_reachable(self.settings.host)}:{self.settings.port}"

    def _own_variables(self) -> dict[str, str]:
        return {f"{PREFIX}DATA_DIR": str(self.settings.data_dir), f"{PREFIX}PORT": str(self.settings.port)}

    def _make_children(self, environment: dict[str, str]) -> None:
        environment = environment | {f"{PREFIX}LOG_FORMAT": "json"}
        host, folder = _reachable(self.settings.host), self.settings.data_dir
        for index in range(self.plan.workers):
            port = self.settings.worker_port + index
            self.children.append(Child(f"worker-{index + 1}", ["worker"],
                                       environment | {f"{PREFIX}WORKER_PORT": str(port)}, folder,
                                       f"http://{host}:{port}"))
        self.children.append(Child("gateway", ["gateway"], environment, folder, self.page))
        if self.plan.demo_rate is not None:
            self.children.append(Child("demo", ["demo", "--rate", str(self.plan.demo_rate), "--quiet"], environment,
                                       folder))

    def _stages(self) -> list[list[Child]]:
        """In the order of starting; the last is stopped first."""
        return [[child for child in self.children if child.name != "demo"],
                [child for child in self.children if child.name == "demo"]]

    def _greet(self, token: str, first: bool, seconds: float) -> None:
        say = self.console.print
        say(f"Services run after {seconds:.1f} s; workers and gateway are starting.")
        say(f"  page     {self.page}   API {self.page}/api/docs")
        say(f"  metrics  {'  '.join(self._metrics())}")
        say(f"  token    {f'{token}   (made now)' if first else f'in {self._token_place()}'}", markup=False)
        say(f"  alerts   {_tail()}   (in another terminal)")
        say(f"  kept in  {_short(self.settings.data_dir)}: data, logs, the token")

    def _metrics(self) -> list[str]:
        return [f"{child.page}/metrics" for child in self.children if child.page]

    def _token_place(self) -> str:
        if self.settings.api_token.get_secret_value():
            return "STREAMGAUGE_API_TOKEN"
        return f"{_short(self.settings.data_dir)}/{TOKEN_FILE}"

    def _watch(self, watcher: Watcher, shown_token: str) -> None:
        """Draw, or print lines, until Stopped is raised."""
        frame = {"page": self.page, "metrics": self._metrics(), "token": f"in {self._token_place()}",
                 "data_dir": _short(self.settings.data_dir), "tail": _tail()}
        if self.plan.plain or not self.console.is_terminal:
            self._print_lines(watcher)
        if shown_token:
            self.notes.append(f"token, made now: {shown_token}")
        try:
            with Live(console=self.console, auto_refresh=False, screen=True) as live:
                while True:
                    self._tend()
                    size = self.console.size
                    live.update(render(watcher.latest, Frame(**frame, processes=self._processes(watcher.latest),  # type: ignore[arg-type]
                                                             notes=self.notes), size.width, size.height),
                                refresh=True)
                    time.sleep(LOOK_S)
        finally:
            seen = watcher.latest
            self.console.print(f"Ran {uptime(seen.uptime_s)}: {number(seen.events)} events, "
                               f"{number(seen.anomalies)} anomalies, {number(seen.alerts_total)} alerts.")

    def _print_lines(self, watcher: Watcher) -> None:
        told: set[str] = set()
        due = time.monotonic() + LINE_S
        while True:
            before = len(self.notes)
            self._tend()
            for note in self.notes[before:]:
                self._say(note)
            seen = watcher.latest
            self._say_ready(seen)
            for alert in _new(seen, told):
                self._say(f"{alert.get('state', '')} {alert.get('cause', '')}: {alert.get('title', '')}")
            if time.monotonic() >= due:
                due = time.monotonic() + LINE_S
                self._say(f"events/s {number(seen.events_per_s)}  events {number(seen.events)}  lag "
                          f"{number(seen.lag)}  refused {number(seen.rejected)}  open incidents "
                          f"{number(None if seen.incidents is None else float(len(seen.incidents)))}")
            time.sleep(LOOK_S)

    def _say_ready(self, seen: Sight) -> None:
        for child in self.children:
            if child.page and seen.ready.get(child.page) and child.name not in self.ready:
                self.ready.add(child.name)
                self._say(f"{child.name} is ready: {child.page}")

    def _say(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {clean(text)}", markup=False)

    def _tend(self) -> None:
        """Start children again that ended; raise if a service has, as what it held in memory is gone."""
        for service in self.services:
            if error := service.ended():
                raise error
        now = time.monotonic()
        for child in self.children:
            note = child.tend(now)
            if note:
                self.ready.discard(child.name)
                self.notes.append(note)
        del self.notes[:-100]

    def _processes(self, seen: Sight) -> list[Process]:
        now = time.monotonic()
        return [Process(child.name, child.state(now, seen.ready.get(child.page)), child.restarts)
                for child in self.children]


def _new(seen: Sight, told: set[str]) -> list[Row]:
    """Alerts not told of yet, oldest first."""
    found = [alert for alert in reversed(seen.alerts or ()) if alert.get("alert_id") not in told]
    told.update(str(alert.get("alert_id")) for alert in found)
    return found


def _with_ports(given: Settings, workers: int) -> Settings:
    """The settings with every port chosen and seen to be free, and the data folder absolute."""
    port, first = given.port or free_port(), given.worker_port or free_port()
    check_port(port, f"{PREFIX}PORT", given.host)
    for number_of in range(workers):
        check_port(first + number_of, f"{PREFIX}WORKER_PORT", given.host)
    return given.model_copy(update={"port": port, "worker_port": first, "data_dir": given.data_dir.resolve()})


def _reachable(host: str) -> str:
    """An address to ask on, for one to listen on."""
    plain = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{plain}]" if ":" in plain else plain


def _short(path: Path) -> str:
    """Relative to where we are, if it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)


def _tail() -> str:
    """The command that follows the alerts, as it can be typed here."""
    program = "streamgauge" if shutil.which("streamgauge") else _short(Path(sys.executable).parent / "streamgauge")
    return f"{program} alerts tail"


@contextmanager
def _stoppable() -> Iterator[None]:
    """The first of SIGNALS raises Stopped; later ones are ignored, as stopping takes a bounded time."""
    def stop(number_of: int, frame: FrameType | None) -> None:
        for again in SIGNALS:
            signal.signal(again, signal.SIG_IGN)
        raise Stopped

    before = {name: signal.signal(name, stop) for name in SIGNALS}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
