"""The board about the pipeline itself."""

from __future__ import annotations

from dashboards.grafana.parts import Query, board, lines, row, stat, table


def _quantile(q: float, name: str, by: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) (rate({name}_bucket[5m])))"


def _median_and_p99(name: str, by: str = "") -> tuple[Query, Query]:
    legend = f"{{{{{by}}}}} " if by else ""
    return (_quantile(0.5, name, by), f"{legend}median"), (_quantile(0.99, name, by), f"{legend}p99")


PIPELINE = board("streamgauge-pipeline", "Pipeline health", [
    row("At a glance"),
    stat("Workers", 'sum(up{job="worker"})', steps=(("red", None), ("green", 1))),
    stat("Events per second", "sum(rate(streamgauge_events_total[1m]))"),
    stat("Records behind", "sum(streamgauge_consumer_lag)",
         steps=(("green", None), ("orange", 10_000), ("red", 100_000))),
    stat("Refused, last hour", "sum(increase(streamgauge_rejected_total[1h])) or vector(0)",
         steps=(("green", None), ("orange", 1))),
    stat("Stores taking writes", "min by (sink) (sink_up)", "{{sink}}", steps=(("red", None), ("green", 1)),
         words={"0": "away", "1": "up"}),
    stat("Open sockets", "sum(gateway_sockets)"),
    row("The way in"),
    lines("Taken in", ("sum(rate(streamgauge_events_total[1m]))", "events"),
          ("sum(rate(streamgauge_feedback_total[1m]))", "late labels"), unit="cps"),
    lines("Refused, by reason", ("sum by (reason) (rate(streamgauge_rejected_total[1m]))", "{{reason}}"), unit="cps"),
    lines("Records behind, by topic and partition", ("sum by (topic, partition) (streamgauge_consumer_lag)",
                                                     "{{topic}}/{{partition}}")),
    lines("Newest event, behind the clock", ("max by (partition) (streamgauge_watermark_delay_seconds)",
                                             "partition {{partition}}"), unit="s"),
    lines("Records a batch", *_median_and_p99("streamgauge_batch_events", "topic")),
    lines("Time of a batch in a stage, p99", (_quantile(0.99, "streamgauge_stage_seconds", "stage"), "{{stage}}"),
          unit="s"),
    row("State"),
    lines("Time of a checkpoint", *_median_and_p99("streamgauge_snapshot_seconds"),
          (_quantile(0.99, "streamgauge_snapshot_freeze_seconds"), "holds the loop, p99"), unit="s"),
    lines("Size of a checkpoint", ("streamgauge_snapshot_bytes", "{{instance}}"), unit="bytes"),
    lines("Partitions a worker owns", ("streamgauge_partitions", "{{instance}}")),
    lines("Held in memory", ("sum(streamgauge_open_windows)", "panes"), ("sum(streamgauge_detectors)", "detectors")),
    lines("Windows closed, events too late", ("sum(rate(streamgauge_windows_closed_total[1m]))", "windows"),
          ("sum(rate(streamgauge_too_late_total[1m]))", "events too late"),
          ("sum(rate(streamgauge_too_late_labels_total[1m]))", "labels too late"), unit="cps"),
    lines("Kept out by bounds on windows", ("sum by (what) (rate(streamgauge_bounded_total[1m]))", "{{what}}"),
          unit="cps"),
    lines("Memory of the workers", ('process_resident_memory_bytes{job="worker"}', "{{instance}}"), unit="bytes"),
    row("What comes out"),
    lines("Anomalies and drift", ("sum(rate(streamgauge_anomalies_total[5m]))", "anomalies"),
          ("sum by (kind) (rate(streamgauge_drift_events_total[5m]))", "drift: {{kind}}"),
          ("sum(rate(streamgauge_retraining_requests_total[5m]))", "retraining requests"), unit="cps"),
    lines("Alert transitions, by cause", ("sum by (cause, state) (increase(streamgauge_alerts_total[5m]))",
                                          "{{cause}} {{state}}")),
    lines("Sent to sockets", ("sum by (stream) (rate(gateway_messages_sent_total[1m]))", "{{stream}}"),
          ("sum by (stream) (rate(gateway_messages_missed_total[1m]))", "{{stream}}, missed by slow sockets"),
          unit="cps"),
    lines("Written to the stores", ("sum by (sink, topic) (rate(sink_records_total[1m]))", "{{sink}}: {{topic}}"),
          unit="cps"),
    lines("Not in the stores yet", ("sum by (sink, topic) (sink_lag_records)", "{{sink}}: {{topic}}")),
    lines("Writes tried again", ("sum by (sink) (increase(sink_retries_total[5m]))", "{{sink}}")),
    lines("Requests to the gateway, p99", (_quantile(0.99, "gateway_request_seconds", "route"), "{{route}}"),
          unit="s"),
    lines("Series told as <other>", ("sum(increase(streamgauge_model_folded_windows_total[5m]))", "windows")),
    row("History"),
    table("Last alerts", """
        SELECT at, environment, model, severity, cause, state, body->>'title' AS title FROM alerts
        WHERE $__timeFilter(at) ORDER BY at DESC LIMIT 100"""),
])
