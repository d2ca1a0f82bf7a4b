"""The boards: fleet, model, version compare, anomalies and drift, pipeline health."""

from __future__ import annotations

from dashboards.grafana.parts import board, choice, heatmap, lines, row, sizes, sql_choice, sql_lines, stat, table
from dashboards.grafana.pipeline import PIPELINE

_RED = (("green", None), ("orange", 0.01), ("red", 0.05))
_SOME = (("green", None), ("red", 1))
_ENVIRONMENT = choice("environment", "Environment", "label_values(streamgauge_model_events_total, environment)")
_MODEL = choice("model", "Model", 'label_values(streamgauge_model_events_total{environment="$environment"}, model)')
_ONE = 'environment="$environment",model="$model"'
_ONE_SQL = "environment = ${environment:sqlstring} AND model = ${model:sqlstring}"
_LATENCY = "histogram_quantile({q}, sum by (le{by}) (rate(streamgauge_model_latency_seconds_bucket{{{where}}}[5m])))"
_FIELD = sql_choice("field", "Field", f"""
    SELECT DISTINCT jsonb_object_keys(fields) FROM (
      SELECT fields FROM metric_windows WHERE {_ONE_SQL} AND size_ms = ${{size}} ORDER BY start_at DESC LIMIT 50) newest
    ORDER BY 1""")


def _latency(q: float, where: str = "", by: str = "") -> str:
    return _LATENCY.format(q=q, where=where, by=f", {by}" if by else "")


def _ratio(part: str, where: str, by: str) -> str:
    return (f"sum by ({by}) (rate(streamgauge_model_{part}_total{{{where}}}[5m])) / "
            f"sum by ({by}) (rate(streamgauge_model_events_total{{{where}}}[5m]))")


def _statistic(expression: str, version: str = "") -> str:
    """A statistic of the chosen field by version, from stored windows; windows of several partitions add up."""
    return f"""
        SELECT start_at AS time, version AS metric, {expression} AS value FROM metric_windows
        WHERE {_ONE_SQL} AND size_ms = ${{size}} AND $__timeFilter(start_at) AND fields ? ${{field:sqlstring}} {version}
        GROUP BY 1, 2 ORDER BY 1"""


def _judged(expression: str) -> str:
    """A figure of classes' late labels by version, from the finest windows that they have in the time shown."""
    return f"""
        SELECT start_at AS time, version AS metric, {expression} AS value FROM level_windows
        WHERE level = 'labels' AND {_ONE_SQL} AND $__timeFilter(start_at) AND fields ? 'correct'
          AND size_ms = (SELECT min(size_ms) FROM level_windows
                         WHERE level = 'labels' AND {_ONE_SQL} AND $__timeFilter(start_at))
        GROUP BY 1, 2 ORDER BY 1"""


def _part(name: str) -> str:
    return f"sum((fields -> ${{field:sqlstring}} ->> '{name}')::double precision)"


FLEET = board("streamgauge-fleet", "Fleet", [
    row("At a glance"),
    stat("Models", "count(count by (environment, model) (streamgauge_model_events_total))"),
    stat("Events per second", "sum(model:events:rate1m)"),
    stat("Failing", "sum(rate(streamgauge_model_errors_total[5m])) / sum(rate(streamgauge_model_events_total[5m]))",
         unit="percentunit", steps=_RED),
    stat("Latency, p95", _latency(0.95), unit="s"),
    stat("Open incidents", "sum(gateway_open_incidents) or vector(0)", steps=_SOME),
    stat("Anomalies, last hour", "sum(increase(streamgauge_model_anomalies_total[1h])) or vector(0)"),
    row("By model"),
    lines("Events per second", ("topk(20, model:events:rate1m)", "{{environment}} {{model}}"), unit="cps"),
    lines("Share of failed events", ("topk(20, model:error_ratio:rate5m)", "{{environment}} {{model}}"),
          unit="percentunit", low=0),
    lines("Latency, p95", ("topk(20, model:latency_seconds:p95_5m)", "{{environment}} {{model}}"), unit="s", low=0),
    lines("Share of anomalous events", ("topk(20, model:anomaly_ratio:rate5m)", "{{environment}} {{model}}"),
          unit="percentunit", low=0),
    lines("Mean confidence", ("topk(20, model:confidence:mean5m)", "{{environment}} {{model}}"), low=0),
    lines("Newest window, behind the clock", (
        "topk(20, time() - max by (environment, model) (streamgauge_model_newest_window_seconds))",
        "{{environment}} {{model}}"), unit="s"),
    row("What happened"),
    lines("Open incidents", ("sum by (severity) (gateway_open_incidents)", "{{severity}}"), low=0),
    lines("Alert transitions, last 5 min", (
        "sum by (cause, state) (increase(streamgauge_model_alerts_total[5m]))", "{{cause}} {{state}}"), low=0),
    lines("Drift events, last 5 min", ("sum by (kind, state) (increase(streamgauge_model_drift_events_total[5m]))",
                                       "{{kind}} {{state}}"), low=0),
    table("Models", """
        SELECT environment, model, count(DISTINCT version) AS versions, sum(count) AS events, sum(errors) AS errors,
          round(100.0 * sum(errors) / nullif(sum(count), 0), 3) AS failed_percent, max(start_at) AS newest
        FROM metric_windows WHERE size_ms = ${size} AND $__timeFilter(start_at)
        GROUP BY 1, 2 ORDER BY events DESC LIMIT 200"""),
], [sizes(60_000, 10_000, 600_000, 3_600_000)])

MODEL = board("streamgauge-model", "Model", [
    row("At a glance"),
    stat("Events per second", f"sum(rate(streamgauge_model_events_total{{{_ONE}}}[1m]))"),
    stat("Failing", f"sum(rate(streamgauge_model_errors_total{{{_ONE}}}[5m])) / "
                    f"sum(rate(streamgauge_model_events_total{{{_ONE}}}[5m]))", unit="percentunit", steps=_RED),
    stat("Latency, median", _latency(0.5, _ONE), unit="s"),
    stat("Latency, p99", _latency(0.99, _ONE), unit="s"),
    stat("Mean confidence", f"sum(rate(streamgauge_model_confidence_total{{{_ONE}}}[5m])) / "
                            f"sum(rate(streamgauge_model_confidences_total{{{_ONE}}}[5m]))"),
    stat("Open incidents", f"sum(gateway_open_incidents{{{_ONE}}}) or vector(0)", steps=_SOME),
    row("By version and component"),
    lines("Events per second", (f"sum by (version, component) (rate(streamgauge_model_events_total{{{_ONE}}}[1m]))",
                                "{{version}} {{component}}"), unit="cps", low=0),
    lines("Share of failed events", (_ratio("errors", _ONE, "version, component"), "{{version}} {{component}}"),
          unit="percentunit", low=0),
    lines("Latency, p95", (_latency(0.95, _ONE, "version, component"), "{{version}} {{component}}"), unit="s", low=0),
    lines("Latency, quantiles", *((_latency(q, _ONE), name) for q, name in ((0.5, "median"), (0.95, "p95"),
                                                                           (0.99, "p99"))), unit="s", low=0),
    heatmap("Latency", f"sum by (le) (increase(streamgauge_model_latency_seconds_bucket{{{_ONE}}}[1m]))"),
    lines("Anomalous events per second", (
        f"sum by (version, component) (rate(streamgauge_model_anomalies_total{{{_ONE}}}[5m]))",
        "{{version}} {{component}}"), unit="cps", low=0),
    row("The chosen field, from stored windows"),
    sql_lines("Mean, by version", _statistic(f"{_part('sum')} / nullif({_part('count')}, 0)")),
    sql_lines("Least and most", f"""
        SELECT start_at AS time, edge.name AS metric, edge.value FROM metric_windows
        CROSS JOIN LATERAL (VALUES ('least', (fields -> ${{field:sqlstring}} ->> 'min')::double precision),
                                   ('most', (fields -> ${{field:sqlstring}} ->> 'max')::double precision))
          AS edge (name, value)
        WHERE {_ONE_SQL} AND size_ms = ${{size}} AND $__timeFilter(start_at) AND edge.value IS NOT NULL
        ORDER BY 1"""),
    sql_lines("Missing, share", _statistic(f"{_part('missing')} / nullif({_part('missing')} + {_part('count')}, 0)"),
              unit="percentunit"),
    row("By late labels, at the time of the prediction"),
    sql_lines("Accuracy, by version", _judged("sum((fields -> 'correct' ->> 'sum')::double precision) / "
                                              "sum((fields -> 'correct' ->> 'count')::double precision)"),
              unit="percentunit"),
    sql_lines("Labels, by version", _judged("sum(count)")),
    row("What happened"),
    table("Alerts", f"""
        SELECT at, severity, cause, state, body->>'title' AS title FROM alerts
        WHERE {_ONE_SQL} AND $__timeFilter(at) ORDER BY at DESC LIMIT 100""", width=12),
    table("Drift", f"""
        SELECT at, kind, state, body->>'field' AS field, body->>'before' AS before, body->>'after' AS after
        FROM drift_events WHERE {_ONE_SQL} AND $__timeFilter(at) ORDER BY at DESC LIMIT 100""", width=12),
], [_ENVIRONMENT, _MODEL, sizes(60_000, 10_000, 600_000, 3_600_000), _FIELD])

_VERSIONS = [choice(f"version_{side}", f"Version {side.upper()}",
                    f"label_values(streamgauge_model_events_total{{{_ONE}}}, version)") for side in "ab"]
_BOTH = f'{_ONE},version=~"$version_a|$version_b"'
_BOTH_SQL = "AND version IN (${version_a:sqlstring}, ${version_b:sqlstring})"


def _of(side: str) -> str:
    return f'{_ONE},version="$version_{side}"'


def _share(part: str, side: str) -> str:
    """Of a side's events; 0 where none is so."""
    return (f"((sum(rate(streamgauge_model_{part}_total{{{_of(side)}}}[5m])) or vector(0)) / "
            f"sum(rate(streamgauge_model_events_total{{{_of(side)}}}[5m])))")


VERSIONS = board("streamgauge-versions", "Version compare", [
    row("B against A"),
    stat("Share of events in B", f"sum(rate(streamgauge_model_events_total{{{_of('b')}}}[5m])) / "
                                 f"sum(rate(streamgauge_model_events_total{{{_BOTH}}}[5m]))", unit="percentunit",
         width=6),
    stat("Failing, B less A", f"{_share('errors', 'b')} - {_share('errors', 'a')}", unit="percentunit", width=6),
    stat("Latency p95, B over A", f"{_latency(0.95, _of('b'))} / {_latency(0.95, _of('a'))}", width=6),
    stat("Anomalous, B less A", f"{_share('anomalies', 'b')} - {_share('anomalies', 'a')}", unit="percentunit",
         width=6),
    row("Side by side"),
    lines("Events per second", ("version:events:rate5m{" + _BOTH + "}", "{{version}}"), unit="cps", low=0),
    lines("Share of failed events", ("version:error_ratio:rate5m{" + _BOTH + "}", "{{version}}"), unit="percentunit",
          low=0),
    lines("Latency, p95", ("version:latency_seconds:p95_5m{" + _BOTH + "}", "{{version}}"), unit="s", low=0),
    lines("Latency, median", (_latency(0.5, _BOTH, "version"), "{{version}}"), unit="s", low=0),
    lines("Share of anomalous events", (_ratio("anomalies", _BOTH, "version"), "{{version}}"), unit="percentunit",
          low=0),
    lines("Mean confidence", (f"sum by (version) (rate(streamgauge_model_confidence_total{{{_BOTH}}}[5m])) / "
                              f"sum by (version) (rate(streamgauge_model_confidences_total{{{_BOTH}}}[5m]))",
                              "{{version}}"), low=0),
    row("The chosen field, from stored windows"),
    sql_lines("Mean", _statistic(f"{_part('sum')} / nullif({_part('count')}, 0)", _BOTH_SQL), width=12),
    sql_lines("Missing, share", _statistic(f"{_part('missing')} / nullif({_part('missing')} + {_part('count')}, 0)",
                                           _BOTH_SQL), unit="percentunit", width=12),
    table("Totals", f"""
        SELECT version, component, sum(count) AS events, sum(errors) AS errors,
          {_part('sum')} / nullif({_part('count')}, 0) AS mean,
          min((fields -> ${{field:sqlstring}} ->> 'min')::double precision) AS least,
          max((fields -> ${{field:sqlstring}} ->> 'max')::double precision) AS most
        FROM metric_windows WHERE {_ONE_SQL} AND size_ms = ${{size}} AND $__timeFilter(start_at) {_BOTH_SQL}
        GROUP BY 1, 2 ORDER BY 1, 2"""),
], [_ENVIRONMENT, _MODEL, *_VERSIONS, sizes(60_000, 10_000, 600_000, 3_600_000), _FIELD])

ANOMALIES = board("streamgauge-anomalies", "Anomalies and drift", [
    row("Anomalies"),
    lines("Anomalous events per second, by model", (
        "topk(20, sum by (environment, model) (rate(streamgauge_model_anomalies_total[5m])))",
        "{{environment}} {{model}}"), unit="cps", low=0, width=12),
    lines("Share of anomalous events, by model", ("topk(20, model:anomaly_ratio:rate5m)", "{{environment}} {{model}}"),
          unit="percentunit", low=0, width=12),
    table("Newest anomalies", """
        SELECT at, environment, model, version, component, score, (body->>'threshold')::double precision AS threshold,
          body->>'event_id' AS event_id
        FROM anomalies WHERE $__timeFilter(at) ORDER BY at DESC LIMIT 200"""),
    row("Drift"),
    lines("Drift events, last 15 min", (
        "sum by (environment, model, kind, state) (increase(streamgauge_model_drift_events_total[15m]))",
        "{{environment}} {{model}}: {{kind}} {{state}}"), low=0, width=12),
    sql_lines("Drift events, by hour", """
        SELECT date_trunc('hour', at) AS time, kind || ' ' || state AS metric, count(*) AS value FROM drift_events
        WHERE $__timeFilter(at) GROUP BY 1, 2 ORDER BY 1""", width=12),
    table("Drift, newest first", """
        SELECT at, environment, model, kind, state, body->>'field' AS field, body->>'before' AS before,
          body->>'after' AS after, (body->>'sureness')::double precision AS sureness
        FROM drift_events WHERE $__timeFilter(at) ORDER BY at DESC LIMIT 200"""),
    row("What followed"),
    table("Alerts", """
        SELECT at, environment, model, severity, cause, state, body->>'title' AS title FROM alerts
        WHERE $__timeFilter(at) ORDER BY at DESC LIMIT 200""", width=12),
    table("Retraining requests", """
        SELECT at, environment, model, body->>'reason' AS reason, body->>'severity' AS severity
        FROM retraining_requests WHERE $__timeFilter(at) ORDER BY at DESC LIMIT 100""", width=12),
])

BOARDS = {"fleet": FLEET, "model": MODEL, "version-compare": VERSIONS, "anomalies-and-drift": ANOMALIES,
          "pipeline-health": PIPELINE}
