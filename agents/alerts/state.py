"""What is remembered of one model in one environment, and how it is written: JSON, versioned, bounded."""

from __future__ import annotations

from typing import Any

import msgspec

SEPARATOR = "\x1f"
FORMAT = 1


def key_of(environment: str, model: str) -> str:
    """The key of a model's state."""
    return f"{environment}{SEPARATOR}{model}"


class Push(msgspec.Struct, array_like=True):
    """How much one feature pushed the anomalies of a bucket."""

    share: float = 0.0
    missing: int = 0


class Bucket(msgspec.Struct, array_like=True):
    """One window of one version, and the anomalies of its span. `count` is -1 until the window has come."""

    start_ms: int
    count: int = -1
    errors: int = 0
    timed: int = 0
    latency_sum: float = 0.0
    unusual: int = 0
    pushes: dict[str, Push] = {}

    @property
    def mean_ms(self) -> float:
        return self.latency_sum / self.timed if self.timed else 0.0


class Series(msgspec.Struct, omit_defaults=True):
    """The recent buckets of one version, oldest first. `settled` of them (from the front) are in what is usual."""

    last_start_ms: int = -1
    events: int = 0
    settled: int = 0
    pending: int = 0
    buckets: list[Bucket] = []


class Base(msgspec.Struct, array_like=True):
    """The usual rate: events, hits among them, windows they came in."""

    events: float = 0.0
    hits: float = 0.0
    windows: int = 0


class Clue(msgspec.Struct, array_like=True):
    """`schemas.alerts.Evidence`, small."""

    kind: str
    id: str
    ts: int
    text: str = ""


class Component(msgspec.Struct, omit_defaults=True):
    """One component: its versions, what is usual for it, how far its anomalies were taken."""

    clock_ms: int = -1                                  # end of its newest window
    versions: dict[str, Series] = {}
    taken: dict[int, tuple[int, int]] = {}              # telemetry partition -> (offset, position) of an anomaly
    unusual: Base = msgspec.field(default_factory=Base)
    errors: Base = msgspec.field(default_factory=Base)
    latencies: list[float] = []                         # means of settled windows, newest last
    learnt: int = 0
    usual_ms: float | None = None                       # None: still learning
    recent: list[Clue] = []                             # the newest anomalies
    stale: int = 0                                      # anomalies too old to count in a rate
    cleared: dict[str, int] = {}                        # signal -> when it last ended; looks do not go behind that


class Signal(msgspec.Struct, omit_defaults=True):
    """One rule, or one drifting field, that says something is wrong now."""

    cause: str
    severity: str
    raised_ms: int
    seen_ms: int
    onset_ms: int
    title: str
    detail: str = ""
    version: str = ""
    versions: list[str] = []
    field: str | None = None
    value: float | None = None
    threshold: float | None = None
    count: int = 1
    calm_since_ms: int = -1
    rule: str = ""
    pending_ms: int = -1


class Incident(msgspec.Struct, omit_defaults=True):
    """What people were told, and go on being told about."""

    incident_id: str
    cause: str
    severity: str
    opened_ms: int
    onset_ms: int
    version: str
    last_ms: int
    about: str                                          # how its titles begin
    transitions: int = 0
    field: str | None = None
    threshold: float | None = None
    versions: list[str] = []
    evidence: list[Clue] = []
    evidence_total: int = 0
    acknowledged_by: str = ""
    level: int = 0                                      # escalations because nobody acknowledged it
    flapping: bool = False
    rule: str = ""
    pending_ms: int = -1


class Slot(msgspec.Struct, omit_defaults=True):
    """The place of at most one open incident: one component, one family of causes."""

    component: str
    family: str
    signals: dict[str, Signal] = {}
    incident: Incident | None = None
    resolved_ms: int = -1
    resolved_severity: str = ""
    opened: list[int] = []                              # recent openings, for damping


class Pauses(msgspec.Struct, omit_defaults=True):
    """How regularly events come. Sums over gaps between windows; alarmed pauses are kept apart."""

    windows: int = 0
    gaps: int = 0
    total: float = 0.0
    squares: float = 0.0
    alarmed: list[int] = []


class Tally(msgspec.Struct, omit_defaults=True):
    """What one rule has seen of one model: (start, events, bad) a slice, oldest first. See `custom`."""

    about: str = ""                                     # the rule's fingerprint; another rule starts anew
    slices: list[tuple[int, int, int]] = []
    since_ms: int = -1                                  # its condition has held since then


class ModelState(msgspec.Struct, omit_defaults=True):
    """Everything about one (environment, model) in one partition."""

    environment: str
    model: str
    format: int
    partition: int = 0                                  # whose state it is in
    clock_ms: int = 0                                   # event time: the newest window end or drift event of one
    last_start_ms: int = -1
    version: str = ""                                   # the newest one seen
    pauses: Pauses = msgspec.field(default_factory=Pauses)
    components: dict[str, Component] = {}
    slots: dict[str, Slot] = {}
    drift_ids: dict[str, int] = {}                      # recent ones, in order of arrival -> detected_ms
    commands: dict[str, int] = {}                       # recent ones -> ts
    tallies: dict[str, Tally] = {}                      # rule -> what it has counted
    outbox: dict[str, msgspec.Raw] = {}                 # alert_id -> Alert as JSON, in order of making


class StateFormatError(ValueError):
    """A snapshot was written by a newer version of Streamgauge.

    What to do: run that version or a later one, or start with another STREAMGAUGE_GROUP.
    """

    code = "state_format"
    retriable = False


class ModelCodec:
    """Model states as JSON."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[ModelState] = msgspec.json.Decoder(ModelState)

    def new(self, key: str) -> ModelState:
        """The state of a model never seen before."""
        environment, _, model = key.partition(SEPARATOR)
        return ModelState(environment=environment, model=model, format=FORMAT)

    def encode(self, key: str, state: ModelState) -> bytes:
        return self._encoder.encode(state)

    def decode(self, key: str, data: bytes) -> ModelState:
        """The state in a snapshot.

        Raises:
            StateFormatError: a newer version wrote it.
        """
        state = self._decoder.decode(data)
        if state.format != FORMAT:
            raise StateFormatError(f"alert state of format {state.format}; this version reads {FORMAT}")
        return state


def bounded(mapping: dict[str, Any], most: int) -> None:
    """Drop the oldest entries of a dictionary."""
    while len(mapping) > most:
        del mapping[next(iter(mapping))]
