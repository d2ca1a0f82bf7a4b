"""Who is to be pushed what: kept in Redis, where all gateways and workers see it. Keys, after the usual prefix:

    push:subscriptions  hash     id -> JSON of a subscription; the id is its endpoint's digest
    push:key            string   the public key that the workers push with
    push:told:ALERT     set      ids of subscriptions that have been told of the alert, or for which it was put aside
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.alerts import Pattern
from schemas.base import Severity
from streams import log
from streams.stores.redis import Hot

logger = log.get(__name__)
#: Subscriptions of one token: somebody's devices, or a team's.
MOST_OF_TOKEN = 20
#: An alert is remembered as told for this long; Kafka does not repeat one after more than a restart.
TOLD_SECONDS = 24 * 3600

# KEYS: subscriptions. ARGV: id, body, owner, most, most of the owner.
_ADD = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 'full'
end
local own, found = 0, redis.call('HGETALL', KEYS[1])
for at = 1, #found, 2 do
  if found[at] ~= ARGV[1] and cjson.decode(found[at + 1]).owner == ARGV[3] then own = own + 1 end
end
if own >= tonumber(ARGV[5]) then return 'full_token' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ''
"""

# KEYS: subscriptions. ARGV: id, when it was made, the new body.
_REPLACE = """
local have = redis.call('HGET', KEYS[1], ARGV[1])
if not have or cjson.decode(have).created_ms ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class Subscription(BaseModel):
    """A browser on a device, what it wants to be told, and what the token that subscribed it allows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    endpoint: str = Field(repr=False, description="Who knows it can annoy the device: it is never logged or listed")
    p256dh: str = Field(repr=False)
    auth: str = Field(repr=False)
    key: str = Field(description="The public key that it was made with")
    environment: Pattern = ""
    model: Pattern = ""
    severity: Severity = "info"
    leads: bool = False
    owner: str = Field(repr=False, description="The token, as PushKeys.owner names it")
    token: str = Field(description="The token's name")
    allowed: tuple[str, ...] = Field(default=(), description="Environments that the token is limited to")
    expires_ms: int = Field(default=0, description="When the token does; 0: never")
    withdrawn_ms: int = Field(default=0, description="When its token was seen to be no longer good; 0: it is")
    created_ms: int


def id_of(endpoint: str) -> str:
    """A device that subscribes again takes its own place."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:32]


class Subscriptions:
    """The subscriptions of one installation."""

    def __init__(self, hot: Hot) -> None:
        self._client: Any = hot.client
        self._all = f"{hot.prefix}push:subscriptions"
        self._key = f"{hot.prefix}push:key"
        self._told = f"{hot.prefix}push:told:"
        self._add: Any = self._client.register_script(_ADD)
        self._replace: Any = self._client.register_script(_REPLACE)

    async def add(self, subscription: Subscription, most: int) -> str:
        """Keep it. The answer is empty, or the bound that keeps it out: `full`, or `full_token`."""
        return str(await self._add(keys=[self._all], args=[
            subscription.id, subscription.model_dump_json(), subscription.owner, most, MOST_OF_TOKEN]))

    async def find(self, subscription_id: str) -> Subscription | None:
        """One of them."""
        body = await self._client.hget(self._all, subscription_id)
        return _read(body) if body else None

    async def remove(self, subscription_id: str) -> bool:
        """False if it was gone already."""
        return bool(await self._client.hdel(self._all, subscription_id))

    async def everyone(self) -> list[Subscription]:
        """All of them, in no order."""
        found = [_read(body) for body in await self._client.hvals(self._all)]
        return [one for one in found if one is not None]

    async def replace(self, changed: Subscription) -> None:
        """Change one, unless it was removed, or the device has subscribed anew."""
        await self._replace(keys=[self._all], args=[changed.id, changed.created_ms, changed.model_dump_json()])

    async def workers_key(self) -> str:
        """The public key that the workers push with; empty: none has started."""
        return str(await self._client.get(self._key) or "")

    async def set_workers_key(self, public: str) -> None:
        """Say which key subscriptions have to be made with."""
        await self._client.set(self._key, public)

    async def told(self, alert_ids: Sequence[str]) -> dict[str, set[str]]:
        """For each alert the ids of the subscriptions that are done with it."""
        pipe = self._client.pipeline(transaction=False)
        for alert_id in alert_ids:
            pipe.smembers(self._told + alert_id)
        return {alert_id: set(found) for alert_id, found in zip(alert_ids, await pipe.execute(), strict=True)}

    async def note_told(self, alert_id: str, subscription_id: str) -> None:
        """This one is done with the alert."""
        pipe = self._client.pipeline(transaction=False)
        pipe.sadd(self._told + alert_id, subscription_id)
        pipe.expire(self._told + alert_id, TOLD_SECONDS)
        await pipe.execute()


@lru_cache(maxsize=4_096)
def _read(body: str) -> Subscription | None:
    try:
        return Subscription.model_validate_json(body)
    except ValidationError as error:
        logger.warning("push.unreadable", fault=error.errors(include_input=False, include_url=False)[0]["msg"])
        return None
