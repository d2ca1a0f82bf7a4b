"""What the pipeline found, against what was done: incidents found, missed, false alerts, delay. Pure.

An alert belongs to an incident if it is about the same environment and model and opened between the incident's start
and `tolerance_ms` after its end: closed windows, late labels (up to 20 s) and the way back to normal come after it.
Only alerts opened within the run count; the silence after it is no fault of the fleet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from infra.demo.incidents import Incident
from schemas.alerts import Alert

TOLERANCE_MS = 60_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Row:
    """An incident and the first alert about it, if any. `delay_s`: from its true start to the alert, event time."""

    incident: Incident
    alert: Alert | None
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of a run. `false_alerts` are the opening records of incidents that nothing had caused."""

    rows: list[Row]
    false_alerts: list[Alert]
    model_days: float

    @property
    def found(self) -> int:
        return sum(row.alert is not None for row in self.rows)

    @property
    def median_delay_s(self) -> float | None:
        delays = [row.delay_s for row in self.rows if row.delay_s is not None]
        return round(median(delays), 3) if delays else None

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """kind -> (incidents, found), in order of first appearance."""
        kinds: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            total, found = kinds.get(row.incident.kind, (0, 0))
            kinds[row.incident.kind] = (total + 1, found + (row.alert is not None))
        return kinds

    def summary(self) -> dict[str, Any]:
        """The line that `--json` prints."""
        false = len(self.false_alerts)
        return {
            "incidents": len(self.rows), "found": self.found, "false_alerts": false,
            "false_alerts_per_model_day": round(false / self.model_days, 3) if self.model_days else None,
            "median_delay_s": self.median_delay_s,
        }


def score(incidents: Sequence[Incident], alerts: Iterable[Alert], start_ms: int, end_ms: int, deployments: int,
          tolerance_ms: int = TOLERANCE_MS) -> Score:
    """Match alerts with incidents. `deployments` is the number of (environment, model) pairs watched.

    Alerts may come in any order and more than once.
    """
    first: dict[str, Alert] = {}
    for alert in sorted(_openings(alerts, start_ms, end_ms), key=lambda alert: alert.ts):
        first.setdefault(alert.incident_id, alert)
    best: dict[str, Alert] = {}
    false = []
    for alert in first.values():
        incident = _cause(incidents, alert, tolerance_ms)
        if incident is None:
            false.append(alert)
        elif incident.incident_id not in best or alert.ts < best[incident.incident_id].ts:
            best[incident.incident_id] = alert
    rows = [Row(incident, best.get(incident.incident_id), _delay_s(incident, best.get(incident.incident_id)))
            for incident in sorted(incidents, key=lambda incident: incident.start_ms)]
    return Score(rows, false, deployments * max(0, end_ms - start_ms) / DAY_MS)


def _openings(alerts: Iterable[Alert], start_ms: int, end_ms: int) -> list[Alert]:
    return [alert for alert in alerts
            if alert.state in ("open", "escalated") and start_ms <= alert.opened_ms <= end_ms]


def _cause(incidents: Sequence[Incident], alert: Alert, tolerance_ms: int) -> Incident | None:
    """The incident an alert belongs to; the later one where two would do."""
    fitting = [incident for incident in incidents
               if (incident.environment, incident.model) == (alert.environment, alert.model)
               and incident.start_ms <= alert.opened_ms <= incident.end_ms + tolerance_ms]
    return max(fitting, key=lambda incident: incident.start_ms, default=None)


def _delay_s(incident: Incident, alert: Alert | None) -> float | None:
    return None if alert is None else max(0, alert.ts - incident.start_ms) / 1000
