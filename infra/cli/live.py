"""The live view of `streamgauge up`, drawn for a terminal of 80 columns by 24 lines or more."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.cli.sight import Row, Sight

NONE = "–"
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
MARKS = {"open": "●", "escalated": "▲", "acknowledged": "◉", "noted": "✎", "resolved": "✔"}
_BARS = "▁▂▃▄▅▆▇█"
#: A terminal with at least so many lines gets the curve and the full table of models.
TALL = 32


@dataclass(frozen=True, slots=True)
class Process:
    """One of our processes, as the view names it."""

    name: str
    state: str
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What does not come from the pages: where things are, and how our own processes do."""

    page: str
    metrics: Sequence[str]
    token: str
    data_dir: str
    tail: str = "streamgauge alerts tail"
    processes: Sequence[Process] = ()
    notes: Sequence[str] = ()


def render(sight: Sight, frame: Frame, width: int, height: int) -> RenderableType:
    """The view, exactly as wide and at most as high as the terminal."""
    head, foot = _head(sight, width, height), _foot(frame)
    room = max(9, height - 1 - len(foot) - (5 if height >= TALL else 4))
    wanted = [max(1, len(sight.incidents or ())), max(1, len(sight.alerts or ())), _model_rows(sight, width, height)]
    rows = _share(room - 6, wanted)
    return Group(head,
                 _panel("Open incidents", _incidents(sight, rows[0]), sight.incidents),
                 _panel("Last alerts", _alerts(sight, rows[1], width), None),
                 _panel("Models", _models(sight, rows[2], width, height), sight.models),
                 *foot)


def clean(value: Any) -> str:
    """Text that came over the network, safe to print: no control characters, on one line."""
    return "".join(char if char.isprintable() else "·" for char in str(value))


def number(value: float | None) -> str:
    """1,234 · 12.3k · 4.56M; – for what is unknown."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:,.0f}{unit}" if abs(scaled) >= 99.95 else f"{scaled:.3g}{unit}"
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def age(ms: float) -> str:
    """now, 45 s, 3 min, 2 h, 4 d."""
    seconds = max(0.0, ms / 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= (2 * size if size > 1 else 1):
            return f"{seconds / size:.0f} {unit}"
    return "now"


def uptime(seconds: float) -> str:
    """0:00:00."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def curve(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars from zero to the largest."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    return "".join(_BARS[min(7, int(8 * value / most))] if most > 0 else _BARS[0] for value in shown)


def _head(sight: Sight, width: int, height: int) -> RenderableType:
    refused = sight.rejected_most or "refused"
    figures: list[tuple[str, str, str]] = [
        ("events/s", number(sight.events_per_s), "bold cyan"),
        ("events", number(sight.events), "bold"),
        ("lag", number(sight.lag), "bold yellow" if (sight.lag or 0) > 10_000 else "bold"),
        (refused, number(sight.rejected), "bold yellow" if sight.rejected else "bold"),
        ("windows", number(sight.windows), "bold"),
        ("anomalies", number(sight.anomalies), "bold"),
        ("alerts", number(sight.alerts_total), "bold"),
        ("open", number(None if sight.incidents is None else float(len(sight.incidents))),
         "bold red" if sight.incidents else "bold green"),
    ]
    if width >= 100:
        figures += [("delay", NONE if sight.delay_s is None else f"{sight.delay_s:.1f} s", "bold"),
                    ("checkpoint", NONE if sight.checkpoint_ms is None else f"{sight.checkpoint_ms:.0f} ms", "bold")]
    grid = Table.grid(expand=True)
    for _ in figures:
        grid.add_column(justify="center", ratio=1, no_wrap=True)
    grid.add_row(*(Text(value, style) for _, value, style in figures))
    grid.add_row(*(Text(clean(name), "dim") for name, _, _ in figures))
    body: list[RenderableType] = [grid]
    if height >= TALL:
        body.append(_line(("events/s  ", "dim"), (curve(sight.history, width - 16) or NONE, "cyan")))
    return Panel(Group(*body), title="[bold]Streamgauge[/]", title_align="left",
                 subtitle=f"up {uptime(sight.uptime_s)}", subtitle_align="right", border_style="blue",
                 padding=(0, 1))


def _panel(title: str, lines: Sequence[RenderableType], counted: Sequence[Any] | None) -> Panel:
    more = f" ({len(counted)})" if counted else ""
    return Panel(Group(*lines), title=f"{title}{more}", title_align="left", border_style="dim", padding=(0, 1))


def _incidents(sight: Sight, rows: int) -> list[RenderableType]:
    if sight.incidents is None:
        return [Text(f"{NONE}  the gateway does not answer yet", "dim")]
    if not sight.incidents:
        return [Text("none", "green")]
    order = {"critical": 0, "warning": 1}
    found = sorted(sight.incidents, key=lambda row: (order.get(row.get("severity", ""), 2), -_moment(row)))
    return _cut([_line((f"{MARKS.get(row.get('state', ''), '●')} ", COLOURS.get(row.get("severity", ""), "")),
                       (f"{age(sight.now_ms - _moment(row)):>6}  ", "dim"), (clean(row.get("title", "")), ""))
                 for row in found], rows)


def _alerts(sight: Sight, rows: int, width: int) -> list[RenderableType]:
    if sight.alerts is None:
        return [Text(NONE, "dim")]
    if not sight.alerts:
        return [Text("none yet", "dim")]
    lines: list[RenderableType] = []
    for row in sight.alerts[:max(rows, 1)]:
        state = row.get("state", "")
        style = "green" if state == "resolved" else COLOURS.get(row.get("severity", ""), "")
        lines.append(_line((f"{MARKS.get(state, '●')} ", style), (f"{age(sight.now_ms - _moment(row)):>6}  ", "dim"),
                           (f"{clean(state):<10}" if width >= 100 else "", style),
                           (f"{clean(row.get('cause', '')):<13}", style), (clean(row.get("title", "")), "")))
    return lines


def _models(sight: Sight, rows: int, width: int, height: int) -> list[RenderableType]:
    if sight.models is None:
        return [Text(NONE, "dim")]
    if not sight.models:
        return [Text("none has sent a minute of telemetry yet", "dim")]
    troubled = Counter((row.get("environment"), row.get("model")) for row in sight.incidents or ())
    if height >= TALL and rows > 2:
        return _model_table(sight.models, troubled, rows)
    across = _across(width)
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in range(across):
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    shown = list(sight.models)
    if len(shown) > rows * across:
        shown = shown[:rows * across - 1]
    cells = [_model_cell(row, troubled[row.get("environment"), row.get("model")]) for row in shown]
    if len(shown) < len(sight.models):
        cells.append(Text(f"and {len(sight.models) - len(shown)} more", "dim"))
    for start in range(0, len(cells), across):
        grid.add_row(*cells[start:start + across])
    return [grid]


def _model_table(models: Sequence[Row], troubled: Mapping[Any, int], rows: int) -> list[RenderableType]:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", show_edge=False)
    for name in ("", "model", "versions", "components", "events", "errors", "open"):
        table.add_column(name, justify="right" if name in ("events", "errors", "open") else "left", no_wrap=True,
                         overflow="ellipsis", ratio=3 if name == "model" else None)
    shown = models if len(models) <= rows - 1 else models[:rows - 2]
    for row in shown:
        count, events = troubled[row.get("environment"), row.get("model")], row.get("events") or 0
        table.add_row(Text("●", "red" if count else "green"), Text(clean(_name(row))),
                      Text(_listed(row, "versions")), Text(_listed(row, "components")),
                      number(float(events)), _share_of(row.get("errors"), events),
                      Text(str(count), "red") if count else Text("0", "dim"))
    more = len(models) - len(shown)
    return [table, *([Text(f"and {more} more", "dim")] if more else [])]


def _model_cell(row: Row, count: int) -> Text:
    return _line(("● ", "red" if count else "green"), (clean(_name(row)), ""), (f" {_listed(row, 'versions')}", "dim"),
                 (f" {number(float(row.get('events') or 0))}", ""))


def _model_rows(sight: Sight, width: int, height: int) -> int:
    count = len(sight.models or ())
    return max(1, count + 1 if height >= TALL else math.ceil(count / _across(width)))


def _across(width: int) -> int:
    return max(1, min(4, (width - 4) // 36))


def _foot(frame: Frame) -> list[RenderableType]:
    lines = [
        _line(("open     ", "dim"), (frame.page, "bold"), ("   API ", "dim"), ("/api/docs", ""), ("   logs ", "dim"),
              (clean(f"{frame.data_dir}/logs"), "")),
        _line(("metrics  ", "dim"), ("  ".join(frame.metrics), "")),
        _line(("alerts   ", "dim"), (clean(frame.tail), ""), ("   token ", "dim"), (clean(frame.token), "")),
        _line(*_process_parts(frame.processes), ("Ctrl-C stops all of it", "dim")),
    ]
    if frame.notes:
        lines.append(_line(("note     ", "yellow"), (clean(frame.notes[-1]), "yellow")))
    return [Padding(line, (0, 0, 0, 1)) for line in lines]


def _process_parts(processes: Sequence[Process]) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    for process in processes:
        style = "green" if process.state in ("ready", "running", "done") else "yellow"
        again = f" ({process.restarts} restarts)" if process.restarts else ""
        parts += [(f"{process.name} ", "dim"), (f"{process.state}{again}   ", style)]
    return parts


def _line(*parts: tuple[str, str]) -> Text:
    """Parts of (text, style) on one line that is cut where the terminal ends."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _cut(lines: list[RenderableType], rows: int) -> list[RenderableType]:
    if len(lines) <= rows:
        return lines
    kept = max(0, rows - 1)
    return [*lines[:kept], Text(f"and {len(lines) - kept} more", "dim")]


def _share(room: int, wanted: Sequence[int]) -> list[int]:
    """Rows for each, fairly: one after the other gets one more while it wants it and there is room."""
    given = [1] * len(wanted)
    while sum(given) < room and any(have < want for have, want in zip(given, wanted, strict=True)):
        for index, want in enumerate(wanted):
            if given[index] < want and sum(given) < room:
                given[index] += 1
    return given


def _moment(row: Row) -> float:
    """When it was published, by the wall clock; its event time where that is not known."""
    return float(row.get("published_ms") or row.get("ts") or 0)


def _name(row: Row) -> str:
    return f"{row.get('environment', '')}/{row.get('model', '')}"


def _listed(row: Row, name: str) -> str:
    found = row.get(name)
    if isinstance(found, str):
        found = json.loads(found) if found.startswith("[") else [found]
    return clean(", ".join(str(part) for part in found or ()))


def _share_of(part: Any, whole: Any) -> str:
    return f"{100 * float(part or 0) / float(whole):.1f}%" if whole else NONE
