"""A change as the message that says so."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agents.drift.cause import Verdict
from agents.drift.distance import jensen_shannon, kolmogorov_smirnov, moved_to, psi, wasserstein
from agents.drift.level import Change
from agents.drift.options import Statistic
from agents.drift.watch import Watch
from schemas.base import Severity
from schemas.drift import DriftEvent, DriftKind, Moved

UNIT = "\x1f"
MOST_VERSIONS, MOST_RANKED = 32, 16
#: When a test of the whole distribution is said to agree.
P_LARGEST, PSI_LARGE = 1e-4, 0.25


class About(NamedTuple):
    """What is known of a drift besides its change."""

    verdict: Verdict = Verdict("unknown")
    ranked: Sequence[Moved] = ()
    segment: Mapping[str, str] = {}
    agreeing: Sequence[str] = ()
    expected_error: tuple[float, float] | None = None


def make_event(subject: tuple[str, str, str, str], kind: DriftKind, statistic: Statistic, change: Change,
               versions: Iterable[str], partition: int, delta: float, about: About) -> DriftEvent:
    """The message. `subject` is (environment, model, version, component).

    The id is made of what moved and of the point that showed it, so that a repeat after a crash has the same.
    """
    environment, model, version, component = subject
    field, of = statistic
    parts = (*subject, field, of, change.state, str(change.start_ms), str(partition))
    severity: Severity = "info" if change.state == "recovered" else "critical" if change.large else "warning"
    expected = about.expected_error or (None, None)
    return DriftEvent.model_validate({
        "drift_id": "d-" + hashlib.blake2b(UNIT.join(parts).encode(), digest_size=12).hexdigest(),
        "environment": environment, "model": model, "version": version, "component": component, "kind": kind,
        "state": change.state, "field": field[:128], "statistic": of, "before": change.before,
        "after": change.after, "scale": change.scale, "reference": change.reference,
        "onset_ms": change.onset_ms, "detected_ms": change.detected_ms,
        "sureness": 1.0 - delta, "detector": change.detector, "severity": severity,
        "versions": sorted({version, *versions})[:MOST_VERSIONS], "windows": change.windows, "partition": partition,
        "onset_low_ms": change.onset_low_ms, "onset_high_ms": change.onset_high_ms,
        "agreeing": list(dict.fromkeys((*change.agreeing, *tests_of(change), *about.agreeing)))[:8],
        "cause": about.verdict.cause, "breakage": about.verdict.breakage,
        "broken_field": about.verdict.broken_field and about.verdict.broken_field[:128], "ranked": list(about.ranked),
        "segment": dict(about.segment), "before_sketch": list(change.before_sketch),
        "after_sketch": list(change.after_sketch), "distances": distances(change),
        "expected_error_before": expected[0], "expected_error_after": expected[1]})


def told_of(known: str, change: Change, version: str) -> str:
    """The version that an event of a statistic over all versions names: the end of a drift names that of its beginning,
    `known`, so that whoever keeps drifts by version knows which of them is over."""
    return known if known and change.state == "recovered" else version


def distances(change: Change) -> dict[str, float]:
    """Of the sketch after from the one before; empty without either."""
    before = change.before_sketch
    if not before or not change.after_sketch:
        return {}
    after = moved_to(before, change.after_sketch)
    found = {"psi": psi(before, after), "jensen_shannon": jensen_shannon(before, after),
             "ks": kolmogorov_smirnov(before, after).statistic, "wasserstein": wasserstein(before, after)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def tests_of(change: Change) -> list[str]:
    """Tests of the whole distribution that see the change too."""
    before = change.before_sketch
    if not before or not change.after_sketch:
        return []
    after = moved_to(before, change.after_sketch)
    return [name for name, sees in (("kolmogorov_smirnov", kolmogorov_smirnov(before, after).p_value < P_LARGEST),
                                    ("psi", psi(before, after) > PSI_LARGE)) if sees]


def rank(watches: Mapping[Statistic, Watch]) -> list[Moved]:
    """What is off now, most first, with its share."""
    weights = {statistic: watch.weight for statistic, watch in watches.items()}
    total = math.fsum(weight * weight for weight in weights.values())
    most = sorted((name for name, weight in weights.items() if weight > 0.0), key=lambda name: (-weights[name], name))
    found = []
    for name in most[:MOST_RANKED]:
        reference = watches[name].state.reference
        if reference is not None:
            found.append(Moved.model_validate({
                "field": name[0][:128], "statistic": name[1],
                "before": reference.level(reference.mean, reference.raw_mean),
                "after": watches[name].level, "share": min(1.0, weights[name] ** 2 / total)}))
    return found
