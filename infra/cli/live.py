"""The live view of `streamgauge up`: what the worker's metrics and the gateway say, drawn for a terminal."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

NONE = "–"
TIMEOUT_S = 1.0
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(slots=True)
class Snapshot:
    """What is known at one moment; None is not known."""

    uptime_s: float = 0.0
    events_per_s: float | None = None
    totals: dict[str, float] = field(default_factory=dict)
    lag: float | None = None
    incidents: list[dict[str, Any]] | None = None
    alerts: list[dict[str, Any]] | None = None
    models: list[dict[str, Any]] | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Watcher:
    """Asks the workers and the gateway; remembers enough to tell a rate."""

    def __init__(self, workers: list[str], gateway: str, token: str) -> None:
        self.workers = workers
        self.gateway = gateway
        self.token = token
        self.started = time.monotonic()
        self._before: tuple[float, float] | None = None

    def look(self) -> Snapshot:
        """Ask once; what does not answer is left unknown."""
        found = Snapshot(uptime_s=time.monotonic() - self.started)
        pages = [page for page in (_get(f"{worker}/metrics") for worker in self.workers) if page]
        if pages:
            self._counters(found, pages)
        found.incidents = self._ask("/api/incidents?state=open")
        found.alerts = self._ask("/api/alerts?limit=8")
        found.models = self._ask("/api/models")
        found.addresses = {"page": self.gateway, "API": f"{self.gateway}/api/docs",
                           "metrics": ", ".join(f"{worker}/metrics" for worker in self.workers)}
        return found

    def _counters(self, found: Snapshot, pages: list[str]) -> None:
        for page in pages:
            for name, value in totals(page).items():
                found.totals[name] = found.totals.get(name, 0.0) + value
        found.lag = found.totals.get("streamgauge_consumer_lag")
        now, events = time.monotonic(), found.totals.get("streamgauge_events_total", 0.0)
        if self._before is not None and now > self._before[0]:
            found.events_per_s = max(0.0, (events - self._before[1]) / (now - self._before[0]))
        self._before = (now, events)

    def _ask(self, path: str) -> Any:
        page = _get(self.gateway + path, self.token)
        return json.loads(page) if page else None


def totals(page: str) -> dict[str, float]:
    """Each sample's name -> the sum over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _get(url: str, token: str = "") -> str | None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310  (loopback)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text
    except (OSError, urllib.error.URLError):
        return None


def render(found: Snapshot) -> RenderableType:
    """The view; fits 80 columns by 24 lines."""
    return Group(_head(found), _incidents(found), _alerts(found), _models(found), _foot(found))


def _head(found: Snapshot) -> RenderableType:
    numbers = {"events/s": found.events_per_s, "events": found.totals.get("streamgauge_events_total"),
               "lag": found.lag, "refused": found.totals.get("streamgauge_rejected_total"),
               "windows": found.totals.get("streamgauge_windows_closed_total"),
               "anomalies": found.totals.get("streamgauge_anomalies_total"),
               "open": None if found.incidents is None else float(len(found.incidents))}
    grid = Table.grid(expand=True)
    for _ in numbers:
        grid.add_column(justify="center")
    grid.add_row(*(Text(NONE if value is None else f"{value:,.0f}", style="bold") for value in numbers.values()))
    grid.add_row(*(Text(name, style="dim") for name in numbers))
    minutes, seconds = divmod(int(found.uptime_s), 60)
    return Panel(grid, title="[bold]Streamgauge[/]", subtitle=f"up {minutes}:{seconds:02d}", border_style="blue")


def _incidents(found: Snapshot) -> RenderableType:
    lines = [f"[{COLOURS.get(alert['severity'], '')}]●[/] {escape(alert['title'])} [dim]{_age(alert['onset_ms'])}[/]"
             for alert in (found.incidents or [])[:5]]
    empty = "[dim]the gateway does not answer yet[/]" if found.incidents is None else "[green]none open[/]"
    more = len(found.incidents or []) - 5
    if more > 0:
        lines.append(f"[dim]and {more} more[/]")
    return Panel("\n".join(lines) or empty, title="Open incidents", title_align="left", border_style="dim")


def _alerts(found: Snapshot) -> RenderableType:
    lines = []
    for alert in (found.alerts or [])[:5]:
        mark = "[green]✔[/]" if alert["state"] == "resolved" else f"[{COLOURS.get(alert['severity'], '')}]●[/]"
        lines.append(f"{mark} {time.strftime('%H:%M:%S', time.localtime(alert['ts'] / 1000))} {alert['cause']:<12} "
                     f"{escape(alert['title'])}")
    return Panel("\n".join(lines) or f"[dim]{NONE}[/]", title="Last alerts", title_align="left", border_style="dim")


def _models(found: Snapshot) -> RenderableType:
    if not found.models:
        return Text("")
    names = [f"{row['environment']}/{row['model']} [dim]{', '.join(row['versions'])}[/]" for row in found.models]
    return Panel("  ".join(names), title=f"{len(names)} models", title_align="left", border_style="dim")


def _foot(found: Snapshot) -> RenderableType:
    lines = [f"[dim]{name}[/] {address}" for name, address in found.addresses.items()]
    lines += [f"[yellow]{escape(note)}[/]" for note in found.notes[-2:]]
    lines.append("[dim]alerts in another terminal:[/] .venv/bin/streamgauge alerts tail   [dim]Ctrl-C stops all[/]")
    return "\n".join(lines)


def _age(timestamp_ms: int) -> str:
    seconds = max(0.0, time.time() - timestamp_ms / 1000)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
