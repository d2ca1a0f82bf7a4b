"""The plot as a PNG, for where no page can be shown. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from infra.detect.plot import BREAK, Axis, nines, note, outline, pushes_alarm, runs, shown
from infra.detect.score import Found
from infra.detect.table import Array, Series, places

#: Inches, and dots an inch.
WIDTH, PANEL, HEAD, DPI = 11.2, 1.6, 0.65, 150
INK, SOFT, GRID, LINE, SCORE, BAD, TRUTH = "#1d2733", "#66758a", "#e3e8ee", "#2468b2", "#5b6b7f", "#d4351c", "#f4b942"


def check() -> None:
    """Raises ValueError if there is nothing to draw with; the text says what to install."""
    if find_spec("matplotlib") is None:
        raise ValueError("a PNG is drawn by matplotlib, which is not installed: pip install matplotlib, or name "
                         "an HTML page")


def write(path: Path, title: str, series: Series, found: Found) -> None:
    """Write the picture: the series that pushed alarms most, their score and its threshold, one below the other."""
    from matplotlib.figure import Figure

    axis, columns, alarms = Axis.of(series), shown(series, found), places(found.alarms)
    x = axis.at.astype("datetime64[ms]") if axis.is_time else axis.at
    height = HEAD + PANEL * (len(columns) + 1)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", rect=(0.0, 0.0, 1.0, 1.0 - HEAD / height))
    figure.text(0.01, 1.0 - 0.3 / height, _plain(title), fontsize=13, fontweight="bold", color=INK)
    figure.text(0.01, 1.0 - 0.55 / height, note(series, found, axis), fontsize=9, color=SOFT)
    panels = figure.subplots(len(columns) + 1, 1, sharex=True, squeeze=False)[:, 0]
    for panel, column in zip(panels, columns, strict=False):
        values = series.values[:, column]
        _curve(panel, x, values, LINE, series.columns[column])
        _dots(panel, x, values, [row for row in alarms if pushes_alarm(found, row, column)])
    _curve(panels[-1], x, nines(found.scores), SCORE, "surprise: -log10(1 - score)")
    _curve(panels[-1], x, nines(found.thresholds), BAD, "", "--")
    _dots(panels[-1], x, nines(found.scores), alarms)
    for panel in panels:
        for start, after in runs(series.labels):
            panel.axvspan(x[start], x[after - 1], color=TRUTH, alpha=0.25, linewidth=2)
        for row in alarms:
            panel.axvline(x[row], color=BAD, alpha=0.28, linewidth=0.8)
    if axis.is_time:
        _dates(panels[-1])
    figure.savefig(path, format="png")


def _plain(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar begins no formula."""
    return text.replace("$", r"\$")


def _curve(panel: Any, x: Any, values: Array, colour: str, name: str, style: str = "-") -> None:
    rows = np.array(outline(values))
    panel.plot(x[rows], np.where(rows == BREAK, np.nan, values[rows]), color=colour, linewidth=0.9, linestyle=style)
    if name:
        panel.set_title(_plain(name), loc="left", fontsize=9, fontweight="bold", color=INK)
    panel.grid(color=GRID, linewidth=0.7)
    panel.tick_params(labelsize=8, colors=SOFT, length=0)
    panel.margins(x=0.01)
    for side in panel.spines.values():
        side.set_visible(False)


def _dots(panel: Any, x: Any, values: Array, rows: Sequence[int]) -> None:
    at = list(rows)
    panel.plot(x[at], values[at], "o", color=BAD, markersize=5, markeredgecolor="white", markeredgewidth=0.8)


def _dates(panel: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
