"""A change as the message that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from agents.drift.watch import Change
from schemas.base import Severity
from schemas.drift import DriftEvent, DriftKind

UNIT = "\x1f"
MOST_VERSIONS = 32


def make_event(subject: tuple[str, str, str, str], kind: DriftKind, field: str, statistic: str, change: Change,
               versions: Iterable[str], partition: int, delta: float) -> DriftEvent:
    """The message. `subject` is (environment, model, version, component).

    The id is made of what moved and of the point that showed it, so that a repeat after a crash has the same.
    """
    environment, model, version, component = subject
    parts = (*subject, field, statistic, change.state, str(change.start_ms), str(partition))
    severity: Severity = "info" if change.state == "recovered" else "critical" if change.large else "warning"
    return DriftEvent.model_validate({
        "drift_id": "d-" + hashlib.blake2b(UNIT.join(parts).encode(), digest_size=12).hexdigest(),
        "environment": environment, "model": model, "version": version, "component": component, "kind": kind,
        "state": change.state, "field": field[:128], "statistic": statistic, "before": change.before,
        "after": change.after, "scale": change.scale, "onset_ms": change.onset_ms, "detected_ms": change.detected_ms,
        "sureness": 1.0 - delta, "detector": change.detector, "severity": severity,
        "versions": sorted({version, *versions})[:MOST_VERSIONS], "windows": change.windows, "partition": partition})
