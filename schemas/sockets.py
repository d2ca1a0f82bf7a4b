"""What the gateway says on `/ws/alerts` and `/ws/anomalies`: one JSON object a message, told apart by `type`.

A client keeps the newest id it has seen (of `alert`, `anomaly`, `heartbeat`, and of the first `hello`) and comes back
with `last_id=` after a break: it then has every message once. `missed` says what it will not get by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.base import TimestampMs

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
