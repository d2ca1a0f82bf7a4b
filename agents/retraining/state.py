"""What is remembered of a model in an environment: what asks, what was asked for, which feeds are broken."""

from __future__ import annotations

import msgspec


class Wish(msgspec.Struct):
    """Drift that will ask for retraining at `due_ms`, if it lasts. `open`: series that are still off."""

    due_ms: int
    version: str
    component: str
    severity: str
    reason: str
    drift_ids: list[str]
    open: list[str]


class Asked(msgspec.Struct):
    """`requested`: when, of the last week's requests; the newest last.

    Drift that made no request, since the last one: `joined` came within the cooldown or over the budget, `excused`
    while a feed was broken, `faded` was over too soon. `broken`: feed -> when it broke. `outbox`: requests not yet
    known to be published, as JSON by their id.
    """

    requested: list[int] = []
    joined: int = 0
    excused: int = 0
    faded: int = 0
    broken: dict[str, int] = {}
    wish: Wish | None = None
    outbox: dict[str, str] = {}


class Codec:
    """`Asked` as msgpack."""

    def new(self, key: str) -> Asked:
        return Asked()

    def encode(self, key: str, state: Asked) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, data: bytes) -> Asked:
        """Raises ValueError if the bytes are damaged."""
        try:
            return msgspec.msgpack.decode(data, type=Asked)
        except msgspec.MsgspecError as error:
            raise ValueError(f"retraining state is damaged: {error}") from None
