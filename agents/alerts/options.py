"""Every threshold of alerting, in one place. What people tune comes from `Settings`; the rest is fixed here."""

from __future__ import annotations

from dataclasses import dataclass

from agents.alerts.ruleset import NONE, RuleSet
from streams.settings import Settings

# -- looking back (event time) -----------------------------------------------------------------------
#: A rate is judged over the last 5 s (sudden trouble), the last 30 s (a slow burn), and, only while 30 s hold fewer
#: than `least_events`, the last 120 s (little traffic).
SHORT_MS, LONG_MS, SPARSE_MS = 5_000, 30_000, 120_000
#: A window enters what counts as usual this much later, so that trouble does not at once become usual.
SETTLE_MS = 10_000
#: A rate must be this surprising against the usual one: n * KL(rate || usual) in nats. Chernoff's bound makes it a
#: chance of one in 100,000 a look, if events fail independently of one another.
SURPRISE_NATS = 11.5
#: A look can say that trouble is over if it has so many events that this many hits were expected at the limit.
CALM_HITS = 3
#: Events until the usual rate is known. Until then it is taken to be half the limit.
RATE_WARM_EVENTS = 200
#: Once so many windows are in the usual rate, all of them weigh half: it forgets in about ten minutes.
RATE_MEMORY_WINDOWS = 300
#: The usual rate is taken to be at least this share of the limit: a clean past does not make one failure a surprise.
RATE_FLOOR = 0.1

# -- usual latency -----------------------------------------------------------------------------------
#: The median of so many window means is the usual latency; there is none before the first number is reached.
LATENCY_WARM_WINDOWS, LATENCY_WINDOWS = 30, 300
#: It is computed anew after so many windows.
LATENCY_REFRESH_WINDOWS = 10
#: From so many requests on, a window's mean leaves its largest value out: one pause of the machine is no regression.
TRIM_LEAST = 3
#: Latency is judged over so long at least: a pause of some seconds of a busy machine is no regression.
LATENCY_MS = 15_000
#: Share of the windows looked at that must be slow themselves, so that one outlier is no regression.
LATENCY_SLOW_SHARE = 0.5

# -- when a signal ends without saying so ------------------------------------------------------------
#: A version or component counts as withdrawn when it has been quiet for so long, plus ten of its usual gaps, while
#: the rest of the model has reported so many windows.
WITHDRAWN_MS, WITHDRAWN_GAPS, WITHDRAWN_WINDOWS = 30_000, 10, 10

# -- silence -----------------------------------------------------------------------------------------
SILENCE_LEAST_WINDOWS = 30
SILENCE_GAPS = 10
#: Gaps after which those in the usual gap weigh half.
GAP_MEMORY = 256
#: After so many alarmed pauses, pauses of that length (times the factor) are usual.
KNOWN_PAUSES, KNOWN_PAUSE_FACTOR = 3, 1.5
#: Milliseconds between two ticks above which the worker itself stood still, so that waiting times start anew.
STALL_MS = 30_000

# -- people and flapping -----------------------------------------------------------------------------
#: A slot that has opened more often than this within the span waits twice as long before it opens again, each time.
FLAP_OPENINGS, FLAP_MS, FLAP_LONGEST_MS = 8, 900_000, 3_600_000
#: An incident that nobody acknowledges escalates so often, each time after twice as long.
MAX_LEVEL = 3

# -- bounds on state ---------------------------------------------------------------------------------
MAX_COMPONENTS = 32
MAX_VERSIONS = 16
MAX_PENDING = 600          # buckets a version whose window has not come yet
MAX_PUSHES = 8             # features a bucket
MAX_SIGNALS = 64           # an incident; more are counted as evidence only
MAX_EVIDENCE = 16
MAX_NAMED_VERSIONS = 32
MAX_DRIFT_IDS = 256
MAX_COMMANDS = 64
MAX_SILENCES = 1_000


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """The thresholds of the rules. Rates are shares, times are milliseconds of event time unless said otherwise."""

    ruleset: RuleSet = NONE              # people's rules
    built_in: bool = True                # False: people's rules only, for a dry run
    bucket_ms: int = 1_000               # the finest granularity of `metrics`; other windows are skipped
    anomaly_rate_limit: float = 0.05
    error_rate_limit: float = 0.05
    latency_factor: float = 3.0
    latency_excess_ms: float = 2.0       # least difference to the usual latency
    least_events: int = 20               # below that, no rate and no mean is judged
    least_anomalies: int = 5
    least_errors: int = 3
    strong_rate: float = 0.5             # from here: critical, and `strong_events` events are enough
    strong_events: int = 10
    strong_latency: float = 10.0         # times the usual: critical
    calm_ms: int = 10_000                # a signal ends after being below half-way between usual and limit for so long
    cooldown_ms: int = 60_000
    accept_ms: int = 3_600_000           # drift or slowness that lasts so long is the new level
    silence_ms: int = 60_000             # wall clock or event time, whichever sees it first
    escalate_ms: int = 0                 # event time until an incident nobody acknowledges escalates; 0: never
    retire_ms: int = 86_400_000          # wall clock; a model unseen for so long is forgotten

    @classmethod
    def from_settings(cls, settings: Settings) -> AlertOptions:
        """The options that a worker runs with."""
        return cls(
            bucket_ms=settings.granularities_ms[0],
            anomaly_rate_limit=settings.anomaly_rate_limit,
            error_rate_limit=settings.error_rate_limit,
            latency_factor=settings.latency_factor,
            latency_excess_ms=settings.latency_excess_ms,
            strong_latency=max(10.0, 2 * settings.latency_factor),
            cooldown_ms=settings.alert_cooldown_ms,
            silence_ms=settings.silence_ms,
            escalate_ms=settings.alert_escalate_ms,
        )
