"""`telemetry-rejected`: a record that broke the contract, kept with its reason and its original bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Contract, Count, Flag, Identifier, Text, TimestampMs

Reason = Literal[
    "not_json", "not_an_object", "wrong_type", "missing_field", "out_of_bounds", "too_large", "too_old",
    "from_future", "schema_version", "not_finite", "time_zone", "empty", "undecodable",
]


class RejectedRecord(Contract):
    """What was wrong, where, and the bytes, so that it can be mended and sent again."""

    rejected_id: Identifier = Field(description="Deterministic: topic, partition, offset and position")
    reason: Reason
    field: Text = Field(description="The path of the first field at fault, or empty")
    message: Text = Field(description="What to change")
    topic: Text
    partition: Count
    offset: Count
    position: Annotated[int, Field(ge=-1)] = Field(default=-1, description="In an array; -1 is the whole record")
    ts: TimestampMs = Field(description="The broker's timestamp of the record")
    key_base64: str = ""
    payload_base64: str = Field(description="The original bytes")
    payload_size_bytes: Count
    truncated: Flag = Field(default=False, description="The original was larger than a record may be")
    events: Annotated[int, Field(ge=1)] = Field(default=1, description="Bad events in it; above 1 it is an array of "
                                                "them, cut from a larger one")
