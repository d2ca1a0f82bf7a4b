"""A page with a plot: the series, their score, its threshold, the anomalies. One file, nothing is fetched.

`picture` draws the same as a PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from infra.detect.score import Found
from infra.detect.table import Array, Series, places

WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 1_120, 74, 16, 132, 30, 26
#: A line is drawn through the lowest and highest value of so many pieces: what a screen shows.
PIECES = 1_100
BREAK = -1
MOST_PANELS, MOST_LISTED, TICKS = 8, 200, 7
#: Surprise is shown as -log10(1 - score): a score near 1 is otherwise a line at the ceiling.
MOST_NINES = 16.0

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2733;--soft:#66758a;--grid:#e3e8ee;--page:#fff;--line:#2468b2;--score:#5b6b7f;
--bad:#d4351c;--truth:#f4b94233}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf1;--soft:#93a2b5;--grid:#2b3644;--page:#131a22;--line:#6ab0f3;
--score:#9fb0c3;--bad:#ff7a62;--truth:#f4b94233}}
body{margin:24px auto;max-width:1120px;padding:0 16px;background:var(--page);color:var(--ink);
font:14px/1.45 system-ui,sans-serif}
h1{font-size:20px;margin:0 0 4px}p{margin:0 0 12px;color:var(--soft)}svg{width:100%;height:auto;display:block}
text{font:12px system-ui,sans-serif;fill:var(--soft)}.name{fill:var(--ink);font-weight:600}
.grid{stroke:var(--grid);stroke-width:1}.line{fill:none;stroke:var(--line);stroke-width:1.2}
.score{fill:none;stroke:var(--score);stroke-width:1}.threshold{stroke:var(--bad);stroke-dasharray:5 4;fill:none}
.alarm{stroke:var(--bad);stroke-width:1;opacity:.28}.dot{fill:var(--bad);stroke:var(--page);stroke-width:1.5}
.truth{fill:var(--truth)}table{border-collapse:collapse;margin-top:18px;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--grid)}th{color:var(--soft);font-weight:500}
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where rows lie from left to right: by time if there is one, else by number."""

    at: Array
    low: float
    high: float
    is_time: bool

    @classmethod
    def of(cls, series: Series) -> Axis:
        real = series.has_clock and series.time != "interval"
        at = np.maximum.accumulate(series.ts_ms) if real else series.numbers.astype(np.float64)
        return cls(at, float(at[0]), float(at[-1]) if at[-1] > at[0] else float(at[0]) + 1.0, real)

    def x(self, at: float) -> float:
        return LEFT + (at - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def label(self, row: int) -> str:
        return moment(float(self.at[row])) if self.is_time else f"row {self.at[row]:,.0f}"

    def ticks(self) -> list[tuple[float, str]]:
        values = np.linspace(self.low, self.high, TICKS).tolist()
        return [(value, moment(value, self.high - self.low) if self.is_time else f"{value:,.0f}") for value in values]


def moment(ts_ms: float, span_ms: float = 0.0) -> str:
    """An instant in UTC, as fine as a span asks for."""
    text = datetime.fromtimestamp(ts_ms / 1000, UTC)
    return text.strftime("%Y-%m-%d" if span_ms > 20 * 86_400_000 else "%m-%d %H:%M" if span_ms else "%Y-%m-%d %H:%M:%S")


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e8 else f"{value:.4g}"


def write(path: Path, title: str, series: Series, found: Found) -> None:
    """Write the page."""
    path.write_text(page(title, series, found), encoding="utf-8")


def page(title: str, series: Series, found: Found) -> str:
    """The page as HTML."""
    axis, columns = Axis.of(series), shown(series, found)
    alarms = places(found.alarms)
    height = TOP + (len(columns) + 1) * (PANEL + GAP) + 8
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}: series and scores">']
    for start, after in runs(series.labels):
        left, right = axis.x(axis.at[start]), axis.x(axis.at[after - 1])
        parts.append(f'<rect class="truth" x="{left:.1f}" y="{TOP}" width="{max(2.0, right - left):.1f}" '
                     f'height="{height - TOP - GAP}"/>')
    parts += [f'<line class="alarm" x1="{axis.x(axis.at[row]):.1f}" x2="{axis.x(axis.at[row]):.1f}" y1="{TOP}" '
              f'y2="{height - GAP - 8}"/>' for row in alarms]
    for place, column in enumerate(columns):
        parts += _panel(axis, series.columns[column], series.values[:, column], TOP + place * (PANEL + GAP), "line",
                        [row for row in alarms if pushes_alarm(found, row, column)])
    top = TOP + len(columns) * (PANEL + GAP)
    parts += _panel(axis, "surprise: -log10(1 - score)", nines(found.scores), top, "score", alarms,
                    nines(found.thresholds))
    parts += [f'<text x="{axis.x(at):.1f}" y="{height - 6}" text-anchor="{anchor}">{text}</text>'
              for (at, text), anchor in zip(axis.ticks(), ["start", *["middle"] * (TICKS - 2), "end"], strict=True)]
    parts.append("</svg>")
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
            f"<p>{note(series, found, axis)}</p>{''.join(parts)}{_list(series, found, alarms)}</html>\n")


def note(series: Series, found: Found, axis: Axis) -> str:
    """What is shown, in a line."""
    more = max(0, len(series.columns) - MOST_PANELS)
    text = f"{len(series.values):,} rows, {len(places(found.alarms)):,} anomalies (red)"
    text += "; times in UTC" if axis.is_time else "; by row number"
    text += f"; {more} more columns were scored" if more else ""
    return text + ("; labelled anomalies are shaded" if series.labels is not None else "")


def nines(scores: Array) -> Array:
    """-log10(1 - score), 16 at most; scores that are not in [0, 1] as they are."""
    if not len(scores) or np.nanmax(scores) > 1.0:
        return scores
    return np.asarray(np.minimum(-np.log10(np.maximum(1.0 - scores, 10.0 ** -MOST_NINES)), MOST_NINES))


def shown(series: Series, found: Found) -> list[int]:
    """The columns (at most 8) to draw: those that pushed alarms most, in their order in the file."""
    totals = found.pushes[found.alarms].sum(axis=0)
    return sorted(np.argsort(-totals, kind="stable")[:MOST_PANELS].tolist())


def pushes_alarm(found: Found, row: int, column: int) -> bool:
    pushes = found.pushes[row]
    return bool(pushes[column] >= 0.2 * pushes.sum() > 0.0)


def _panel(axis: Axis, name: str, values: Array, top: float, kind: str, alarms: Sequence[int],
           threshold: Array | None = None) -> list[str]:
    """One curve with its scale, its dots and, if given, the threshold (n,)."""
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    if threshold is not None and np.isfinite(threshold).any():
        usual = float(np.median(threshold[np.isfinite(threshold)]))
        low, high = 0.0, max(high, 1.15 * usual)
    if high <= low:
        low, high = low - 0.5, high + 0.5

    def y(value: float) -> float:
        return top + PANEL - (min(max(value, low), high) - low) / (high - low) * PANEL

    parts = [f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(name)}</text>']
    for value in (low, (low + high) / 2, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                     f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    parts += [f'<path class="{kind}" d="{path}"/>' for path in [_path(axis, values, y)] if path]
    if threshold is not None:
        parts.append(f'<path class="threshold" d="{_path(axis, threshold, y)}"/>')
    parts += [f'<circle class="dot" cx="{axis.x(axis.at[row]):.1f}" cy="{y(values[row]):.1f}" r="4.5">'
              f"<title>{axis.label(row)}: {values[row]:,.6g}</title></circle>"
              for row in alarms if np.isfinite(values[row])]
    return parts


def _path(axis: Axis, values: Array, y: object) -> str:
    """The outline as a path."""
    assert callable(y)
    steps = []
    drawing = False
    for row in outline(values):
        if row != BREAK:
            steps.append(f"{'L' if drawing else 'M'}{axis.x(axis.at[row]):.1f} {y(float(values[row])):.1f}")
        drawing = row != BREAK
    return "".join(steps)


def outline(values: Array) -> list[int]:
    """The rows of the lowest and highest value of each piece, in order; BREAK where a piece has none."""
    rows: list[int] = []
    for piece in np.array_split(np.arange(len(values)), min(PIECES, len(values))):
        seen = piece[np.isfinite(values[piece])]
        ends = (np.argmin(values[seen]), np.argmax(values[seen])) if len(seen) else ()
        rows += sorted({int(seen[end]) for end in ends}) or [BREAK]
    return rows


def runs(labels: object) -> list[tuple[int, int]]:
    if labels is None:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(labels, np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _list(series: Series, found: Found, alarms: Sequence[int]) -> str:
    if not alarms:
        return "<p>No anomaly.</p>"
    rows = []
    for row in alarms[:MOST_LISTED]:
        when = moment(float(series.ts_ms[row])) if series.has_clock and series.time != "interval" else ""
        why = ", ".join(f"{escape(name)} = {series.values[row, series.columns.index(name)]:,.6g} ({share:.0%})"
                        for name, share in found.pushed(row, series.columns))
        rows.append(f"<tr><td>{series.numbers[row]:,}<td>{when}<td>{found.scores[row]:.6f}<td>{why}")
    left = len(alarms) - MOST_LISTED
    more = f"<p>and {left:,} more</p>" if left > 0 else ""
    return f"<table><tr><th>row<th>time<th>score<th>pushed by (share)</tr>{''.join(rows)}</table>{more}"
