"""What boards are made of: panels in Grafana's JSON model, placed from left to right on its 24 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Panel = dict[str, Any]
Query = tuple[str, str]     # PromQL, legend

FOLDER = Path(__file__).parent / "boards"
COLUMNS = 24
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "postgres"}


def row(title: str) -> Panel:
    """A headline over what follows."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": COLUMNS, "h": 1}}


def stat(title: str, expr: str, legend: str = "", *, unit: str = "short",
         steps: Sequence[tuple[str, float | None]] = (), words: dict[str, str] | None = None,
         width: int = 4) -> Panel:
    """The newest value, with a line of what was; coloured by `steps` (colour, from)."""
    defaults: dict[str, Any] = {"unit": unit}
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": color, "value": at} for color, at in steps]}
    if words:
        defaults["mappings"] = [{"type": "value", "options": {value: {"text": word} for value, word in words.items()}}]
    return _panel("stat", title, width, 4, [_promql(expr, legend)], defaults,
                  {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"})


def lines(title: str, *queries: Query, unit: str = "short", width: int = 8, help: str = "",
          low: float | None = None) -> Panel:
    """Lines over time, from Prometheus."""
    defaults = {"unit": unit} | ({} if low is None else {"min": low})
    return _panel("timeseries", title, width, 7, [_promql(*query) for query in queries], defaults, {}, help)


def sql_lines(title: str, query: str, *, unit: str = "short", width: int = 8, help: str = "") -> Panel:
    """Lines over time, from PostgreSQL: columns time, metric, value."""
    return _panel("timeseries", title, width, 7, [_sql(query, "time_series")], {"unit": unit}, {}, help)


def heatmap(title: str, expr: str, *, unit: str = "s", width: int = 8) -> Panel:
    """A classic histogram over time."""
    target = _promql(expr, "{{le}}") | {"format": "heatmap"}
    return _panel("heatmap", title, width, 7, [target], {}, {"calculate": False, "yAxis": {"unit": unit},
                                                             "color": {"scheme": "Blues", "mode": "scheme"}})


def table(title: str, query: str, *, width: int = COLUMNS, height: int = 9) -> Panel:
    """Rows from PostgreSQL."""
    return _panel("table", title, width, height, [_sql(query, "table")], {"unit": "short"}, {})


def _panel(kind: str, title: str, width: int, height: int, targets: list[dict[str, Any]], defaults: dict[str, Any],
           options: dict[str, Any], description: str = "") -> Panel:
    for target, letter in zip(targets, "ABCDEFGH", strict=False):
        target["refId"] = letter
    return {"type": kind, "title": title, "description": description, "datasource": targets[0]["datasource"],
            "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
            "gridPos": {"w": width, "h": height}}


def _promql(expr: str, legend: str) -> dict[str, Any]:
    return {"expr": expr, "legendFormat": legend, "datasource": PROMETHEUS}


def _sql(query: str, kind: str) -> dict[str, Any]:
    return {"rawSql": " ".join(query.split()), "rawQuery": True, "format": kind, "datasource": POSTGRES}


def choice(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values Prometheus knows."""
    return {"name": name, "label": label, "type": "query", "datasource": PROMETHEUS, "refresh": 2, "sort": 1,
            "query": {"query": query, "refId": "variable"}, "definition": query, "current": {}, "includeAll": False,
            "multi": False}


def sql_choice(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values PostgreSQL knows."""
    flat = " ".join(query.split())
    return {"name": name, "label": label, "type": "query", "datasource": POSTGRES, "refresh": 2, "sort": 1,
            "query": flat, "definition": flat, "current": {}, "includeAll": False, "multi": False}


def sizes(default_ms: int, *others_ms: int) -> dict[str, Any]:
    """The variable `size`: milliseconds of the windows that SQL panels read."""
    values = [str(size) for size in sorted((default_ms, *others_ms))]
    return {"name": "size", "label": "Windows, ms", "type": "custom", "query": ",".join(values), "multi": False,
            "includeAll": False, "current": {"text": str(default_ms), "value": str(default_ms)},
            "options": [{"text": value, "value": value, "selected": value == str(default_ms)} for value in values]}


def board(uid: str, title: str, panels: Sequence[Panel], variables: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A dashboard, its panels numbered and placed in reading order."""
    return {"uid": uid, "title": title, "tags": ["streamgauge"], "schemaVersion": 41, "version": 1, "editable": False,
            "timezone": "browser", "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": list(variables)}, "annotations": {"list": []},
            "links": [{"type": "dashboards", "tags": ["streamgauge"], "title": "Streamgauge", "asDropdown": True,
                       "includeVars": True, "keepTime": True}],
            "panels": _placed(panels)}


def _placed(panels: Sequence[Panel]) -> list[Panel]:
    found, x, y, deepest = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > COLUMNS:
            x, y, deepest = 0, y + deepest, 0
        found.append({"id": number} | panel | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, deepest = x + width, max(deepest, height)
    return found


def text(found: dict[str, Any]) -> str:
    """The JSON of a board, as it is kept."""
    return json.dumps(found, indent=1) + "\n"
