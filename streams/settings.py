"""Every setting, once: prefix `STREAMGAUGE_`, a unit, a default and a line of help each.

`streamgauge settings` prints them. Secrets are masked wherever they are shown.
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.base import MAX_SEGMENT_KEYS

PREFIX = "STREAMGAUGE_"
MINUTE_MS = 60_000
#: What Kafka lets names of topics be made of; a group's name is in that of its changelog.
TOPIC_CHARACTERS = r"^[A-Za-z0-9._-]*$"
#: Three hundred years; sums of instants stay far within 64 bits.
LONGEST_MS = 10_000_000_000_000
#: Values of a feature and pane that are sketched one by one.
SKETCH_VALUES = 4_096


class Settings(BaseSettings):
    """Read from the environment when a process starts; never changed while it runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    # -- where the services are -------------------------------------------------------------------
    kafka_url: str = Field("", description="Bootstrap servers, host:port, comma-separated; empty: embedded broker")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, with SASL_*")
    kafka_sasl_username: str = Field("", description="SASL user")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="SASL password")
    kafka_ssl_cafile: Path | None = Field(None, description="CA certificates (PEM); empty: the system's")
    kafka_ssl_certfile: Path | None = Field(None, description="Client certificate (PEM)")
    kafka_ssl_keyfile: Path | None = Field(None, description="Client key (PEM)")
    redis_url: SecretStr = Field(SecretStr(""),
                                 description="redis://, rediss:// (TLS) or unix://; empty: embedded Valkey")
    database_url: SecretStr = Field(SecretStr(""), description="postgresql://...; empty: embedded PostgreSQL")
    data_dir: Path = Field(Path(".streamgauge"), description="Folder for what the embedded "
                           "services and the demo keep, and for notes by which a worker soon follows a killed one")

    # -- topics -----------------------------------------------------------------------------------
    topic_prefix: str = Field("", pattern=TOPIC_CHARACTERS, description="Put before every topic's name")
    group: str = Field("streamgauge", min_length=1, pattern=TOPIC_CHARACTERS,
                       description="Consumer group of the workers; also names their changelogs")
    partitions: Annotated[int, Field(ge=1, le=1024)] = Field(
        4, description="Partitions of every topic; the most workers that can share the load")
    replication: Annotated[int, Field(ge=1)] = Field(1, description="Replicas of every topic")

    # -- what is let in ---------------------------------------------------------------------------
    max_record_bytes: Annotated[int, Field(ge=1024, le=2_500_000)] = Field(
        1_048_576, description="Bytes; a larger record is rejected")
    max_events_per_record: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Events; a longer array is rejected")
    otlp_topic: str = Field(
        "", pattern=TOPIC_CHARACTERS, description="Topic into which an OpenTelemetry collector's Kafka exporter writes "
                                                  "metrics, as otlp_metrics; empty: none is read")
    max_age_ms: Annotated[int, Field(ge=0, le=LONGEST_MS)] = Field(
        0, description="Milliseconds before the broker's timestamp; older events are rejected; 0: any age")
    max_ahead_ms: Annotated[int, Field(ge=0, le=LONGEST_MS)] = Field(
        10_000, description="Milliseconds after the broker's timestamp; later events are rejected; 0: any. Below "
                            "STREAMGAUGE_GRACE_MS no producer with a fast clock makes the others' events too late")

    # -- windows ----------------------------------------------------------------------------------
    granularities_ms: Annotated[tuple[int, ...], NoDecode] = Field(
        (1_000, 10_000, 60_000), description="Milliseconds, comma-separated; each divides the next")
    watermark_delay_ms: Annotated[int, Field(ge=0, le=LONGEST_MS)] = Field(
        1_000, description="Milliseconds a window waits for events that are out of order")
    grace_ms: Annotated[int, Field(ge=0, le=LONGEST_MS)] = Field(
        30_000, description="Milliseconds after its end in which a closed window is amended by late events")
    amend_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        1_000, description="Milliseconds for which late events of a closed window are gathered before it is amended; "
                           "0: each batch amends it")
    idle_ms: Annotated[int, Field(ge=100, le=LONGEST_MS)] = Field(
        2_000, description="Milliseconds without an event after which the clock moves a partition's watermark")

    environment_windows: bool = Field(
        True, description="Windows of whole environments beside those of the series; the fleet is their sum")
    segment_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Keys of events' segments, comma-separated, with windows a value from the second finest "
                        "granularity on; empty: none")
    segment_values: Annotated[int, Field(ge=1, le=1_000)] = Field(
        16, description="Values of a segment key that have windows of their own, a model; the first to come, and once "
                        "there are more the most frequent of late. The others are counted together as <other>")
    max_series: Annotated[int, Field(ge=0)] = Field(
        0, description="Series that have windows of their own, a partition and day; the first to come. The others of "
                       "an environment are counted as its model, version and component `other`; 0: any number")
    max_fields: Annotated[int, Field(ge=1, le=4_096)] = Field(
        512, description="Fields of a window; values of further ones are left out, and counted")
    sketch_values: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        SKETCH_VALUES, description="Values of a feature in a window of the finest granularity that are sketched one by "
                                   "one; of more a share that halves each time their number doubles. Counts, sums and "
                                   "means stay exact; 0: all are")
    label_windows: bool = Field(
        True, description="Windows of late labels (accuracy, ROC-AUC, calibration) by the time of the prediction, from "
                          "a minute on")
    label_grace_ms: Annotated[int, Field(ge=0, le=LONGEST_MS)] = Field(
        3_600_000, description="Milliseconds of predictions' time after its end in which a window takes late labels; "
                               "they may all be late, if they are in some order")

    # -- scoring ----------------------------------------------------------------------------------
    detectors: Annotated[tuple[str, ...], NoDecode] = Field(
        ("half_space_trees",), description="Comma-separated; several score together. half_space_trees, ensemble (best "
        "on the published tables), online_isolation_forest, online_autoencoder, robust_covariance, "
        "tail_probability, nearest_neighbours, histogram_rarity, loda, river.NAME; alone: time_series, holt_winters")
    alarm_budget: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="False alarms a model and day that the threshold aims at; 0: STREAMGAUGE_THRESHOLD_QUANTILE")
    hst_trees: Annotated[int, Field(ge=1, le=500)] = Field(25, description="Half-space trees")
    hst_height: Annotated[int, Field(ge=1, le=15)] = Field(8, description="Height of each tree")
    hst_window: Annotated[int, Field(ge=2, le=32_767)] = Field(250, description="Rows between two mass updates")
    threshold_quantile: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        0.999, description="Scores above this quantile of the detector's past are anomalies")
    follow_labels: bool = Field(
        False, description="Late labels weigh an ensemble's detectors; its scores then depend on when labels are read")
    seed: int = Field(42, description="Of everything random in the pipeline")

    # -- drift and alerts ---------------------------------------------------------------------------
    drift_granularity_ms: Annotated[int, Field(ge=1)] = Field(
        1_000, description="Milliseconds; the windows that drift detection reads")
    drift_delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        1e-5, description="False-alarm bound of a drift detector")
    drift_false_alarms_per_day: Annotated[float, Field(gt=0.0)] = Field(
        0.01, description="False drift alarms that a component of a model may give in a day of event time")
    drift_joint: bool = Field(
        False, description="Also watch how features go together, which no single one shows; one event in eight counts")
    anomaly_rate_limit: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="Share of anomalous events above which an alert opens")
    error_rate_limit: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="Share of failed events above which an alert opens")
    latency_factor: Annotated[float, Field(gt=1.0)] = Field(
        3.0, description="Mean latency over its usual level above which an alert opens")
    latency_excess_ms: Annotated[float, Field(ge=0.0)] = Field(
        2.0, description="Milliseconds by which latency must be above its usual level for any alert")
    silence_ms: Annotated[int, Field(ge=1_000)] = Field(
        60_000, description="Milliseconds without an event after which a model counts as silent (at the least)")
    alert_cooldown_ms: Annotated[int, Field(ge=0)] = Field(
        60_000, description="Milliseconds (event time) for which a resolved incident does not open again")
    rules_file: Path | None = Field(
        None, description="JSON of alert rules, read again when it changes; rules of the API go before those")
    hooks_file: Path | None = Field(
        None, description="JSON of webhooks and Alertmanagers that are told of alerts; read when a worker starts")
    push_key: SecretStr = Field(
        SecretStr(""), description="Private key of web push (base64url of 32 bytes), the same for gateways and "
                                   "workers; empty: made and kept in data_dir, which they then share")
    push_contact: str = Field(
        "", pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://\S+)?$",
        description="mailto: or https: at which push services reach you; Apple's takes nothing without it")
    push_subscriptions: Annotated[int, Field(ge=0, le=10_000)] = Field(
        1_000, description="Devices that may subscribe to web push; 0: there is none")
    push_private_endpoints: bool = Field(
        False, description="Push also by http, to private addresses and any port: for a push service of your own")
    alert_escalate_ms: Annotated[int, Field(ge=0)] = Field(
        0, description="Milliseconds (event time) after which an incident that nobody acknowledges escalates; 0: never")

    retraining_cooldown_ms: Annotated[int, Field(ge=0)] = Field(
        21_600_000, description="Milliseconds (event time) after a retraining request in which its model gets no other")
    retraining_persistence_ms: Annotated[int, Field(ge=0)] = Field(
        60_000, description="Milliseconds (event time) that a drift has to last before it asks for retraining")
    retraining_most_a_week: Annotated[int, Field(ge=1)] = Field(
        7, description="Retraining requests of a model in seven days of event time")
    retraining_least_severity: Literal["warning", "critical"] = Field(
        "warning", description="Least severity of a drift that asks for retraining")

    # -- state --------------------------------------------------------------------------------------
    checkpoint_ms: Annotated[int, Field(ge=50)] = Field(
        2_000, description="Milliseconds between two snapshots; up to 15 s where they would take too much time")
    max_detectors: Annotated[int, Field(ge=1)] = Field(
        4_000, description="Detectors in a worker's memory (121 kB each); others wait in their snapshots")
    session_timeout_ms: Annotated[int, Field(ge=1_000)] = Field(
        6_000, description="Milliseconds after which Kafka gives a dead worker's partitions away")
    retention_days: Annotated[int, Field(ge=1)] = Field(30, description="Days of history kept in PostgreSQL")
    window_retention: str = Field(
        "1000:2,10000:7,60000:30,600000:90,3600000:400,86400000:3650",
        description="MILLISECONDS:DAYS, comma-separated: days that windows of a granularity are kept; others: "
                    "STREAMGAUGE_RETENTION_DAYS")

    # -- the doors ----------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address the gateway and the metrics pages listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8700, description="Port of the gateway; 0: any free one")
    worker_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8701, description="Port of the worker's /metrics, /healthz and /readyz; 0: any free one")
    demo_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8720, description="Port of the demo fleet's /metrics; 0: any free one")
    exposed_series: Annotated[int, Field(ge=0)] = Field(
        200, description="Series that a worker names for Prometheus, 22 samples each; the others are counted together; "
                         "0: none are told")
    api_token: SecretStr = Field(SecretStr(""), description="Bearer token of the API; empty: made and kept in data_dir")
    tokens_file: Path | None = Field(
        None, description="JSON of further tokens (`streamgauge tokens`); empty: tokens.json in data_dir")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, comma-separated, whose pages may open sockets; the gateway's own may always")
    max_connections: Annotated[int, Field(ge=16)] = Field(
        5_000, description="Connections that a gateway holds open; others are cut, and counted")
    handshake_ms: Annotated[int, Field(ge=100)] = Field(
        10_000, description="Milliseconds in which a request must have come whole")
    socket_overflow: Literal["resume", "gap", "close"] = Field(
        "resume", description="What becomes of a socket whose queue is full: it reads on from the stream, is told what "
                              "it missed, or is cut")
    alert_stream_length: Annotated[int, Field(ge=100)] = Field(
        10_000, description="Alerts kept in Redis for sockets to resume from")
    anomaly_stream_length: Annotated[int, Field(ge=100)] = Field(
        10_000, description="Anomalies kept in Redis for sockets to resume from")
    window_stream_length: Annotated[int, Field(ge=100)] = Field(
        2_000, description="Closed windows kept in Redis for sockets to resume from (some kB each)")
    socket_queue: Annotated[int, Field(ge=1)] = Field(
        1_000, description="Messages that wait for a slow socket; then it is told what it missed")
    heartbeat_ms: Annotated[int, Field(ge=100)] = Field(15_000, description="Milliseconds between two heartbeats")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")
    log_format: Literal["auto", "json", "pretty"] = Field("auto", description="auto: pretty on a terminal")

    @field_validator("segment_keys", mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("segment_keys")
    @classmethod
    def _few_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or len(value) > MAX_SEGMENT_KEYS or any("=" in key for key in value):
            raise ValueError(f"segment_keys are up to {MAX_SEGMENT_KEYS} different names without =: country,plan")
        return value

    @field_validator("detectors", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("granularities_ms", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(int(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip()) \
            if isinstance(value, str) else value

    @field_validator("granularities_ms")
    @classmethod
    def _nested(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] < 1 or value[-1] > LONGEST_MS \
                or any(b <= a or b % a for a, b in itertools.pairwise(value)):
            raise ValueError("granularities must ascend, each dividing the next: 1000,10000,60000")
        return value

    @field_validator("window_retention")
    @classmethod
    def _some_days(cls, value: str) -> str:
        if not re.fullmatch(r"(?:[1-9]\d{0,10}:[1-9]\d{0,6}(?:,(?!$)|$))*", value):
            raise ValueError("window_retention is MILLISECONDS:DAYS, both at least 1: 1000:2,60000:30")
        return value

    @property
    def segment_granularities_ms(self) -> tuple[int, ...]:
        """All but the finest, for windows of segments, of which there are many; the finest if it is the only one."""
        return self.granularities_ms[1:] or self.granularities_ms

    @property
    def label_granularities_ms(self) -> tuple[int, ...]:
        """Those of a minute and more, for windows of late labels; the coarsest where there are none."""
        return tuple(size for size in self.granularities_ms if size >= MINUTE_MS) or self.granularities_ms[-1:]

    @property
    def window_days(self) -> dict[int, int]:
        """Granularity in milliseconds -> days that its windows are kept."""
        pairs = (part.split(":") for part in self.window_retention.split(",") if part)
        return {int(size): int(days) for size, days in pairs}

    @property
    def tokens_path(self) -> Path:
        """The file of further tokens."""
        return self.tokens_file or self.data_dir / "tokens.json"

    def topic(self, name: str) -> str:
        """A topic's name on the broker."""
        return f"{self.topic_prefix}{name}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
