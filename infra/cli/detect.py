"""`streamgauge detect FILE`: anomalies in a file, from the shell."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from infra.cli.duration import parse_ms
from infra.detect import picture
from infra.detect.plot import moment, write
from infra.detect.score import Found, detect
from infra.detect.table import Choice, Series, places, read
from infra.replay.sources import SourceError

_STDERR = Console(stderr=True)
_LISTED = 20


def command(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, NDJSON, Parquet or npz file, oldest row first.",
                                         metavar="FILE")],
    columns: Annotated[str, typer.Option(help="Columns to score, comma-separated. Default: all numeric ones.")] = "",
    time_column: Annotated[str, typer.Option("--time", help="Column of the time. Default: timestamp, ts, time, ... if "
                                                            "there is one.")] = "",
    time_format: Annotated[str, typer.Option(help="How times are written, as for strptime: %d/%m/%Y %H:%M.")] = "",
    interval: Annotated[str, typer.Option(help="For files without a time: rows are this far apart. 60s, 5m.")] = "",
    label: Annotated[str, typer.Option(help="Column of the truth (1, true: an anomaly), to compare with. Default: "
                                            "label, anomaly, ... if there is one.")] = "",
    array: Annotated[str | None, typer.Option(help="Array of an npz file. Default: X_test, or the only table.")] = None,
    detectors: Annotated[str, typer.Option(help="time_series, ensemble, or names of detectors, "
                                                "comma-separated.")] = "time_series",
    threshold: Annotated[float | None, typer.Option(help="Scores above it are anomalies. Default: chosen by the "
                                                         "detector.")] = None,
    quantile: Annotated[float, typer.Option(min=0.5, max=0.999999, help="For other detectors than time_series: the "
                                            "quantile of past scores that is the threshold.")] = 0.999,
    plot: Annotated[Path | None, typer.Option(help="Where to write the plot: an HTML page, or a PNG. Default: FILE's "
                                                   "name with .anomalies.html, in this folder.")] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Write no plot.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a CSV with the score of each row.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, table or notes.")] = False,
) -> None:
    """Find the anomalies in a file of numbers: each row is scored by what came before it, then learnt.

    Needs no service and no set-up. The default detector, time_series, compares each value with those of the last days
    at this time of day, and rests after each anomaly, so that one incident is one mark. Rows whose time is no time are
    left out, values that are no numbers count as missing; both are counted.
    """
    page = plot or Path(f"{file.stem}.anomalies.html")
    try:
        draw = None if no_plot else _drawing(page)
        choice = Choice(_names(columns), time_column, time_format, parse_ms(interval) if interval else 0, label, array)
        with _telling("reading", quiet) as tell:
            series = read(file, choice, tell)
        with _telling("scoring", quiet) as tell:
            found = detect(series, _names(detectors), threshold, quantile, tell)
        if out is not None:
            _write_scores(out, series, found)
        if draw:
            draw(page, file.name, series, found)
    except (SourceError, ValueError) as failure:
        _STDERR.print(f"detect: {failure}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except OSError as failure:
        _STDERR.print(f"detect: {failure.filename} cannot be written: {failure.strerror}", style="red", markup=False,
                      soft_wrap=True)
        raise typer.Exit(1) from None
    if not quiet:
        _report(series, found, None if no_plot else page, out)
    if as_json:
        print(json.dumps(summary(series, found) | {"plot": None if no_plot else str(page)}))


def _drawing(page: Path) -> Callable[[Path, str, Series, Found], None]:
    """What writes a plot of that name. Raises ValueError: it is neither a page nor a picture, or none can be drawn."""
    if page.suffix.lower() in (".html", ".htm"):
        return write
    if page.suffix.lower() != ".png":
        raise ValueError(f"{page}: plots are HTML pages or PNG pictures; name it ….html or ….png")
    picture.check()
    return picture.write


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@contextmanager
def _telling(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    if quiet or not _STDERR.is_terminal:
        yield lambda done, total: None
        return
    with Progress(TextColumn(f"{what:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_STDERR,
                  transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(done, total))


def _write_scores(path: Path, series: Series, found: Found) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "ts_ms", "score", "threshold", "anomaly", "pushed_by"))
        for i, number in enumerate(series.numbers.tolist()):
            pushed = found.pushed(i, series.columns) if found.alarms[i] else []
            ts = series.ts_ms[i]
            writer.writerow((number, "" if np.isnan(ts) else int(ts), repr(float(found.scores[i])),
                             repr(float(found.thresholds[i])), int(found.alarms[i]), pushed[0][0] if pushed else ""))


def summary(series: Series, found: Found) -> dict[str, Any]:
    """What was found, for JSON; with labels also how right it was, by rows and by labelled stretches."""
    alarms = places(found.alarms)
    line: dict[str, Any] = {
        "rows": len(series.values), "columns": list(series.columns), "skipped_rows": series.skipped.rows,
        "anomalies": [{"row": int(series.numbers[row]), "ts_ms": None if np.isnan(series.ts_ms[row]) else
                       int(series.ts_ms[row]), "score": float(found.scores[row]),
                       "pushed_by": dict(found.pushed(row, series.columns))} for row in alarms]}
    if series.labels is not None:
        line["truth"] = compare(series.labels, found.alarms)
    return line


def compare(labels: Any, alarms: Any) -> dict[str, int]:
    """Labelled stretches found, and anomalies outside all of them."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], labels.astype(np.int8), [0])))).reshape(-1, 2)
    found = sum(bool(alarms[first:after].any()) for first, after in edges.tolist())
    return {"stretches": len(edges), "found": found, "outside": int((alarms & ~labels).sum())}


def _report(series: Series, found: Found, page: Path | None, out: Path | None) -> None:
    console, alarms = Console(), places(found.alarms)
    skipped = series.skipped
    if skipped.rows:
        _note(f"{skipped.rows:,} rows left out; {skipped.first}")
    if skipped.values:
        _note(f"{skipped.values:,} values are no numbers and count as missing")
    if skipped.disordered:
        _note(f"{skipped.disordered:,} rows are earlier than the row before: sort the file by time for better scores")
    if series.labels is not None and not series.labels.any():
        _note("no label says 1, true, yes or anomaly: there is nothing to compare with")
    if not series.has_clock:
        _note("no column of times: the time of day is not looked at (--time, or --interval 5m)")
    if alarms:
        console.print(_table(series, found, alarms))
    if len(alarms) > _LISTED:
        console.print(f"and {len(alarms) - _LISTED:,} more", highlight=False)
    console.print(f"{len(alarms):,} anomalies in {len(series.values):,} rows of {len(series.columns)} "
                  f"column{'s' * (len(series.columns) != 1)}", highlight=False)
    if series.labels is not None:
        right = compare(series.labels, found.alarms)
        console.print(f"of {right['stretches']} labelled stretches {right['found']} were found; {right['outside']} "
                      "anomalies lie outside them", highlight=False)
    for path in filter(None, (page, out)):
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)


def _note(text: str) -> None:
    print(f"detect: {text}", file=sys.stderr)


def _table(series: Series, found: Found, alarms: Any) -> Table:
    real = series.has_clock and series.time != "interval"
    table = Table("row", *(["time (UTC)"] if real else []), "score", "pushed by (share)")
    for row in alarms[:_LISTED]:
        why = ", ".join(f"{name} = {series.values[row, series.columns.index(name)]:,.6g} ({share:.0%})"
                        for name, share in found.pushed(row, series.columns))
        table.add_row(f"{series.numbers[row]:,}", *([moment(float(series.ts_ms[row]))] if real else []),
                      f"{found.scores[row]:.6f}", why)
    return table
