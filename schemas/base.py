"""What every contract shares: frozen models, bounded strings, finite numbers and instants with a time zone.

Evolution is additive: a new optional field keeps `schema_version`, and readers ignore fields they do not know.
A change that old readers would misread raises the version, and readers refuse versions they do not know.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter

SCHEMA_VERSION: Literal[1] = 1
#: 3000-01-01T00:00:00Z; later instants are microseconds or nanoseconds sent by mistake.
MAX_TIMESTAMP_MS = 32_503_680_000_000
MAX_TEXT = 512
MAX_FEATURES = 256
MAX_METRICS = 64
MAX_SEGMENT_KEYS = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ISO = TypeAdapter(datetime)


def instant_ms(value: Any) -> Any:
    """Turn an ISO 8601 text with a time zone into epoch milliseconds; leave numbers to the integer check.

    Raises:
        ValueError: the text is not an instant, or names no time zone.
    """
    if not isinstance(value, str):
        return value
    if value.lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("epoch milliseconds must be a JSON integer, not text")
    moment = _ISO.validate_python(value)
    if moment.tzinfo is None:
        raise ValueError("time zone missing: end the text with Z or an offset, or send epoch milliseconds")
    return (moment - EPOCH) // timedelta(milliseconds=1)


def iso(timestamp_ms: int) -> str:
    """Epoch milliseconds as ISO 8601 in UTC, for people."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


TimestampMs = Annotated[
    int,
    BeforeValidator(instant_ms, json_schema_input_type=int | str),
    Field(strict=True, ge=0, le=MAX_TIMESTAMP_MS, description="Epoch milliseconds (UTC), or ISO 8601 with a zone"),
]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$", max_length=128)]
FieldName = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Category = Annotated[str, StringConstraints(strict=True, max_length=128)]
Text = Annotated[str, StringConstraints(strict=True, max_length=MAX_TEXT)]
Identifier = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Severity = Literal["info", "warning", "critical"]


class Contract(BaseModel):
    """A frozen message. Unknown fields are ignored, so that producers may be newer than readers."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, ser_json_inf_nan="null")

    schema_version: Literal[1] = SCHEMA_VERSION


class Subject(Contract):
    """What a message is about: one component of one version of one model in one environment."""

    environment: Name = Field(description="Where it runs: prod, staging, eu-west/prod")
    model: Name = Field(description="The model's name; the topic's key, so a model's messages stay in order")
    version: Name = Field(description="The model's version, as its registry names it")
    component: Name = Field(default="model", description="The part that reports: model, preprocess, ranker, ...")
