"""REST for web push: a browser subscribes with its token; workers push (`agents.alerts.push`).

A subscription is worth what its token is: `Tending` looks every few seconds which tokens have been limited, have
expired or were withdrawn, and notes it beside the subscription. One whose token stays bad for a day is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from dashboards.api import metrics
from dashboards.api.auth import needs
from dashboards.api.life import allowed
from dashboards.api.tokens import Grant, TokenBook
from schemas.alerts import Pattern
from schemas.base import Severity
from streams import log
from streams.push.keys import PushKeys, push_keys
from streams.push.message import receiver
from streams.push.reach import LONGEST, EndpointError, endpoint_url
from streams.push.subscriptions import MOST_OF_TOKEN, Subscription, Subscriptions, id_of
from streams.settings import Settings

logger = log.get(__name__)
router = APIRouter(prefix="/api/push", tags=["push"])
Holder = Annotated[Grant, Depends(needs("read", own=True))]
TEND_SECONDS = 5.0
DAY_MS = 24 * 3_600_000
AWAY = (RedisError, OSError, TimeoutError)
APPLE = ".push.apple.com"


class BrowserKeys(BaseModel):
    """As PushSubscription.toJSON() has them."""

    p256dh: str = Field(max_length=128)
    auth: str = Field(max_length=64)


class Wish(BaseModel):
    """A browser's subscription, and what it wants to be told; empty is everything that the token may see."""

    endpoint: str = Field(max_length=LONGEST, description="Of the browser's push service: https, a public address")
    keys: BrowserKeys
    environment: Pattern = ""
    model: Pattern = ""
    severity: Severity = Field(default="info", description="At least")
    leads: bool = Field(default=False, description="Of incidents of one cause, only the first")


class PushKey(BaseModel):
    """What `PushManager.subscribe` takes as applicationServerKey: base64url of 65 bytes."""

    key: str


class Kept(BaseModel):
    """A subscription that was taken."""

    id: str = Field(description="Of the endpoint: a device that subscribes again takes its own place")


class Shown(BaseModel):
    """A subscription, without what one could push with."""

    id: str
    host: str = Field(description="Of its push service")
    token: str
    environment: str
    model: str
    severity: Severity
    leads: bool
    withdrawn: bool = Field(description="Its token is no longer good: it is told nothing")
    created_ms: int


def keys_of(settings: Settings) -> PushKeys | None:
    """The gateway's keys; None: it can keep none, and none is given.

    Raises:
        PushKeyError: what is given is no key.
    """
    if not settings.push_subscriptions:
        return None
    try:
        return push_keys(settings)
    except OSError as error:
        logger.warning("push.off", error=type(error).__name__, help="set STREAMGAUGE_PUSH_KEY")
        return None


def _keys(request: Request) -> PushKeys:
    found: PushKeys | None = request.app.state.push_keys
    if found is None:
        raise _refused(503, "push_off", "this gateway has no web push: set STREAMGAUGE_PUSH_KEY, for workers too, and "
                                        "STREAMGAUGE_PUSH_SUBSCRIPTIONS above 0")
    return found


def _refused(status: int, code: str, message: str) -> HTTPException:
    return HTTPException(status, {"code": code, "message": message})


@contextlib.asynccontextmanager
async def _store(request: Request) -> Any:
    try:
        yield Subscriptions(request.app.state.hot)
    except AWAY as error:
        raise _refused(503, "push_store_away", "subscriptions to web push are kept in Redis, which does not answer "
                                               f"({type(error).__name__}): try again soon") from None


@router.get("/key")
async def key(request: Request, grant: Holder) -> PushKey:
    """The public key to subscribe with, once gateways and workers agree on it."""
    own = _keys(request).public
    async with _store(request) as store:
        if await store.workers_key() not in ("", own):
            raise _refused(503, "push_keys_differ", "the workers push with another key than this gateway's: set one "
                                                    "STREAMGAUGE_PUSH_KEY for all, or let them share a data folder")
    return PushKey(key=own)


@router.post("/subscriptions", status_code=201)
async def subscribe(request: Request, wish: Wish, grant: Holder) -> Kept:
    """Push alerts to a browser from now on. Only what the token may see, for as long as it may."""
    settings: Settings = request.app.state.settings
    keys, book = _keys(request), request.app.state.tokens
    if wish.environment:
        allowed(grant, wish.environment)
    try:
        url = endpoint_url(wish.endpoint, settings.push_private_endpoints)
        receiver(wish.keys.p256dh, wish.keys.auth)
    except EndpointError as error:
        metrics.REFUSED.labels("push_endpoint").inc()
        raise _refused(422, "bad_endpoint", str(error)) from None
    except ValueError:
        raise _refused(422, "bad_keys", "keys.p256dh and keys.auth are those of PushSubscription.toJSON()") from None
    if (url.host or "").endswith(APPLE) and not settings.push_contact:
        raise _refused(422, "push_contact_missing", "Apple's push service takes nothing from a sender that names no "
                                                    "contact: set STREAMGAUGE_PUSH_CONTACT to mailto:YOU@YOUR.DOMAIN")
    made = Subscription(
        id=id_of(wish.endpoint), p256dh=wish.keys.p256dh, auth=wish.keys.auth, key=keys.public,
        owner=keys.owner(book.digest_of(grant)), token=grant.name, allowed=grant.environments,
        expires_ms=grant.expires_ms, created_ms=time.time_ns() // 1_000_000, **wish.model_dump(exclude={"keys"}))
    async with _store(request) as store:
        bound = await store.add(made, settings.push_subscriptions)
    if bound:
        metrics.REFUSED.labels("push_subscriptions").inc()
        raise _refused(429, "too_many_subscriptions", f"{grant.name} has {MOST_OF_TOKEN} devices already; remove one"
                       if bound == "full_token" else "as many devices as STREAMGAUGE_PUSH_SUBSCRIPTIONS allows have "
                                                     "subscribed; remove one, or raise it")
    return Kept(id=made.id)


@router.get("/subscriptions")
async def subscriptions(request: Request, grant: Holder) -> list[Shown]:
    """The token's own devices, for the scope admin all, oldest first."""
    async with _store(request) as store:
        found = [one for one in await store.everyone() if _may(request, grant, one)]
    return [Shown(host=endpoint_url(one.endpoint, True).host or "", withdrawn=bool(one.withdrawn_ms),
                  **one.model_dump(include=set(Shown.model_fields)))
            for one in sorted(found, key=lambda one: one.created_ms)]


@router.delete("/subscriptions/{subscription_id}", status_code=204)
async def unsubscribe(request: Request, subscription_id: Annotated[str, InPath(max_length=128)], grant: Holder
                      ) -> Response:
    """Push nothing more to a device: one of the token's own, for the scope admin any."""
    async with _store(request) as store:
        found = await store.find(subscription_id)
        if found is None or not _may(request, grant, found):
            raise _refused(404, "no_such_subscription", "GET /api/push/subscriptions lists them")
        await store.remove(subscription_id)
    return Response(status_code=204)


def _may(request: Request, grant: Grant, one: Subscription) -> bool:
    """True if it is the token's own; an admin that is limited to environments has only those too."""
    if grant.may("admin") and not grant.environments:
        return True
    return one.owner == _keys(request).owner(request.app.state.tokens.digest_of(grant))


class Tending:
    """Notes beside subscriptions what has become of their tokens."""

    def __init__(self, store: Subscriptions, keys: PushKeys, book: TokenBook,
                 now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._keys = keys
        self._book = book
        self._now_s = now_s

    async def once(self) -> None:
        """Look at all of them; at those of another key their own gateways look.

        Raises:
            RedisError, OSError: Redis is away.
        """
        everyone = [one for one in await self._store.everyone() if one.key == self._keys.public]
        known = self._book.known() if everyone else None
        if known is None:           # the file is there and cannot be read: nobody is withdrawn for that
            return
        grants, now_ms = {self._keys.owner(digest): grant for digest, grant in known.items()}, int(self._now_s() * 1000)
        for one in everyone:
            await self._tend(one, grants.get(one.owner), now_ms)

    async def _tend(self, one: Subscription, grant: Grant | None, now_ms: int) -> None:
        good = grant is not None and grant.may("read") and not grant.expired(now_ms)
        if not good and 0 < one.withdrawn_ms <= now_ms - DAY_MS:
            await self._store.remove(one.id)
            return
        limits = {} if grant is None else {"allowed": grant.environments, "expires_ms": grant.expires_ms}
        found = one.model_copy(update=limits | {"withdrawn_ms": 0 if good else one.withdrawn_ms or now_ms})
        if found != one:
            await self._store.replace(found)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            try:
                await self.once()
            except AWAY as error:
                logger.info("push.untended", error=type(error).__name__)
            await asyncio.sleep(TEND_SECONDS)


def tend(app: FastAPI) -> asyncio.Task[None] | None:
    """Begin with it; None where there is no web push."""
    keys: PushKeys | None = app.state.push_keys
    if keys is None:
        return None
    return asyncio.create_task(Tending(Subscriptions(app.state.hot), keys, app.state.tokens).run())
