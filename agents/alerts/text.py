"""Titles and details: short English sentences for people on phones."""

from __future__ import annotations

from schemas.base import MAX_TEXT, iso
from schemas.drift import DriftEvent


def clip(text: str) -> str:
    """The text, cut to what a contract's text may hold."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT - 1] + "…"


def percent(share: float) -> str:
    """62%, 4.8%, 0.1%."""
    value = 100 * share
    if value and value < 0.1:
        return "less than 0.1%"
    return f"{value:.0f}%" if value >= 10 or value == round(value) else f"{value:.1f}%"


def number(value: float) -> str:
    """Four significant digits, without an exponent where people can do without."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(ms: int) -> str:
    """45 s, 3 min, 2 h, 4 days."""
    seconds = ms / 1000
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def clock(ms: int) -> str:
    """12:03:10Z, the time of day in UTC."""
    return iso(ms)[11:19] + "Z"


def version_name(version: str) -> str:
    """v3 for 3; names stay as they are."""
    return f"v{version}" if version[:1].isdigit() else version


def subject(environment: str, model: str, component: str, version: str = "") -> str:
    """prod/churn, prod/churn ranker, staging/digits v3."""
    parts = [f"{environment}/{model}"]
    if component != "model":
        parts.append(component)
    if version:
        parts.append(version_name(version))
    return " ".join(parts)


def feature_name(field: str) -> str:
    """How people call a field: feature.tenure -> feature tenure, latency_ms -> latency."""
    if field.startswith("feature."):
        return "feature " + field[8:]
    if field.startswith("metric."):
        return "metric " + field[7:]
    return {"latency_ms": "latency", "error_rate": "error rate", "error": "late labels"}.get(field, field)


# -- anomaly rate ------------------------------------------------------------------------------------


def unusual(rate: float, limit: float, field: str | None, dominance: float, missing: float) -> str:
    """What stands after the subject when many events are unusual."""
    if field is None:
        return f"{percent(rate)} of events are unusual (limit {percent(limit)})"
    name = feature_name(field)
    if missing >= 0.5:
        return f"{name} missing in {percent(rate)} of events"
    if dominance >= 0.4:
        return f"{name} out of range in {percent(rate)} of events"
    return f"{percent(rate)} of events are unusual (limit {percent(limit)}), {name} most"


def unusual_detail(field: str | None, onset_ms: int, events: int, hits: int) -> str:
    """What to look at."""
    counts = f"{hits} of {events} events since {clock(onset_ms)}."
    if field is None:
        return f"{counts} Open the events in the evidence and compare them with earlier ones."
    return f"{counts} Check what fills {field}: its source, unit and encoding; then whether a deployment began then."


# -- errors ------------------------------------------------------------------------------------------


def failing(rate: float, limit: float) -> str:
    """What stands after the subject when requests fail."""
    return f"{percent(rate)} of requests fail (limit {percent(limit)})"


def failing_detail(version: str, alone: bool, onset_ms: int, events: int, hits: int) -> str:
    """What to look at."""
    counts = f"{hits} of {events} requests since {clock(onset_ms)}."
    if alone:
        return f"{counts} Other versions do not fail: roll back {version_name(version)}, or read its error messages."
    return f"{counts} Read the error messages, and check what changed in the callers or in what the model calls."


# -- latency -----------------------------------------------------------------------------------------


def slow(mean_ms: float, usual_ms: float) -> str:
    """What stands after the subject when it is slow."""
    return f"{number(mean_ms)} ms a request, usually {number(usual_ms)} ms"


def slow_detail(onset_ms: int, component: str) -> str:
    """What to look at."""
    return (f"Since {clock(onset_ms)}. Compare {component} with the other components, then look at input sizes, "
            "what it calls, and the machine's load.")


# -- silence -----------------------------------------------------------------------------------------


def silent(waited_ms: int, usual_gap_ms: float) -> str:
    """What stands after the subject when no events come."""
    return f"silent for {duration(waited_ms)} (usually something every {duration(max(1000, round(usual_gap_ms)))})"


def silent_detail(last_ms: int) -> str:
    """What to look at."""
    return f"Last event before {iso(last_ms)}. Check that the service runs, gets requests and reaches the broker."


# -- drift -------------------------------------------------------------------------------------------

#: The field of an event that is of all features together.
JOINT = "features"
#: And of late labels that came with the confidence of the prediction.
CALIBRATION = "calibration"
TRAFFIC = "traffic"


def drifted(event: DriftEvent) -> str:
    """What stands after the subject when a field moved."""
    name = feature_name(event.field)
    before, after = event.before, event.after
    if event.statistic == "missing_share":
        return f"{name} missing in {percent(after)} of events (was {percent(before)})"
    if event.kind == "performance":
        if event.field == CALIBRATION:
            return (f"predictions are right {percent(abs(after))} {'less' if after < 0 else 'more'} often than their "
                    f"confidence says (was {percent(abs(before))} {'less' if before < 0 else 'more'})")
        if event.statistic == "rate":
            return f"{percent(after)} of predictions are wrong (was {percent(before)})"
        return f"mean absolute error {'rose' if after > before else 'fell'} from {number(before)} to {number(after)}"
    if event.statistic == "rate" or event.field == "error_rate":
        base, _, category = name.partition("=")
        what = f"{base} is {category} in" if category else f"{base} at"
        return f"{what} {percent(after)} of events (was {percent(before)})" if category else \
            f"{what} {percent(after)} (was {percent(before)})"
    if event.field == JOINT:
        return _joint(event)
    verb = "rose" if after > before else "fell"
    unit = {"latency_ms": " ms", TRAFFIC: " events a minute"}.get(event.field, "")
    return f"{name} {verb} from {number(before)} to {number(after)}{unit}"


def _joint(event: DriftEvent) -> str:
    for pair in event.ranked[:1]:
        one, _, other = pair.field.partition(" ~ ")
        return (f"{feature_name(one)} and {feature_name(other)} do not go together as they did (correlation "
                f"{pair.after:.2f}, was {pair.before:.2f})")
    return "features do not go together as they did, though each by itself looks the same"


#: What it is compared with, where that is not what it was like some time before.
AGAINST = {"profile": ", against the version's profile from training", "incumbent": ", against the version before it"}


def drifted_detail(event: DriftEvent) -> str:
    """What to look at."""
    since = f"Since {clock(event.onset_ms)}, seen in {event.windows} windows{AGAINST.get(event.reference, '')}."
    if event.segment:
        since += f" Mostly where {' and '.join(f'{key} is {value}' for key, value in event.segment.items())}."
    if event.cause == "data_quality":
        return f"{since} {broken_feed(event)}"
    advice = {
        "data": "Check the source of this input: unit, encoding, another population of callers.",
        "prediction": "Compare the versions; check whether the inputs moved too.",
        "performance": "The truth or the model changed: look at segments; retraining may be due.",
        "operational": "Look at deployments, load and what the model calls.",
    }[event.kind]
    return f"{since} {advice}"


BREAKAGES = {"unit_change": "its unit changed", "null_column": "it is no longer filled",
             "constant_column": "it is stuck at one value", "schema": "it is text where it was a number"}


def broken_feed(event: DriftEvent) -> str:
    """Whose it is to mend, and that retraining is not what mends it."""
    name = feature_name(event.broken_field or event.field)
    what = f" ({BREAKAGES[event.breakage]})" if event.breakage else ""
    return f"The feed of {name} is broken{what}. This is for the owner of that feed; a retrained model would learn it."


def evidence(event: DriftEvent) -> str:
    """One line on a drift event."""
    return f"{event.field} {event.statistic} {number(event.before)} -> {number(event.after)}"


# -- the end -----------------------------------------------------------------------------------------

FAMILIES = {"data": "data", "latency": "latency", "errors": "error rate", "performance": "quality of predictions",
            "silence": "events"}
ENDINGS = {
    "calm": "back to normal",
    "recovered": "back near the reference",
    "accepted": "accepted as the new level: it has lasted",
    "withdrawn": "the version or component gets no more traffic",
    "back": "events are back",
    "removed": "its rule was removed or changed",
    "forgotten": "not seen for so long that it is watched no more",
}


def resolved(family: str, ending: str, lasted_ms: int) -> str:
    """What stands after the subject when an incident is over."""
    if ending in ("calm", "recovered"):
        return f"{FAMILIES.get(family, family)} {ENDINGS[ending]} after {duration(lasted_ms)}"
    return f"resolved after {duration(lasted_ms)}: {ENDINGS[ending]}"
