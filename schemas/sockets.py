"""What the gateway says on `/ws/alerts`, `/ws/anomalies` and `/ws/windows`: one JSON object a message, by `type`.

A client keeps the newest id it has seen (of `alert`, `anomaly`, `window`, `heartbeat`, and of the first `hello`) and
comes back with `last_id=` after a break: it then has every message once. `missed` says what it will not get by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.base import Count, Finite, Identifier, Name, TimestampMs

PlaceId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Hello(_Said):
    """The first message of a connection."""

    type: Literal["hello"]
    last_id: PlaceId = Field(description="The newest now")
    heartbeat_ms: int = Field(ge=1, description="Silence for three of these means that the line is dead")
    overflow: Literal["resume", "gap", "close"]


class AlertMessage(_Said):
    """A transition of an incident."""

    type: Literal["alert"]
    id: PlaceId
    group: str = Field(default="", max_length=128, description="The incident that its group of one cause began with")
    alert: Alert


class AnomalyMessage(_Said):
    """An anomalous event."""

    type: Literal["anomaly"]
    id: PlaceId
    anomaly: Anomaly


class Figures(_Said):
    """A field over a window."""

    count: Count = Field(description="Values present")
    missing: Count = Field(description="Nulls")
    mean: Finite | None = Field(description="null when no value was present")
    min: Finite | None
    max: Finite | None
    p50: Finite | None = Field(description="Of the quantile sketch; relative error 1%")
    p95: Finite | None


class LiveWindow(_Said):
    """A closed window of the topic `metrics`, with quantiles in the place of its sketches."""

    window_id: Identifier = Field(description="The same again: an amendment, or a repeat; the larger count, then "
                                              "revision, is newer")
    environment: Name
    model: Name
    version: Name
    component: Name
    start_ms: TimestampMs
    size_ms: int = Field(ge=1, description="Granularity")
    partition: Count
    count: Count = Field(description="Events")
    errors: Count = Field(description="Events with an error")
    revision: Count
    fields: dict[str, Figures]


class WindowMessage(_Said):
    """A window that closed, or was amended."""

    type: Literal["window"]
    id: PlaceId
    window: LiveWindow


class Heartbeat(_Said):
    """Everything up to `last_id` was sent; null while the store is away."""

    type: Literal["heartbeat"]
    ts: TimestampMs
    last_id: PlaceId | None


class Missed(_Said):
    """What was not sent: the socket was slow (`GET /api/alerts/stream` may have it), or it is no longer kept."""

    type: Literal["missed"]
    reason: Literal["slow", "trimmed"]
    count: int | None = Field(ge=0, description="null: unknown")
    from_id: PlaceId
    to_id: PlaceId


ON_ALERTS: tuple[type[BaseModel], ...] = (Hello, AlertMessage, Heartbeat, Missed)
ON_ANOMALIES: tuple[type[BaseModel], ...] = (Hello, AnomalyMessage, Heartbeat, Missed)
ON_WINDOWS: tuple[type[BaseModel], ...] = (Hello, WindowMessage, Heartbeat, Missed)
