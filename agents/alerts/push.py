"""alerts -> web push: every subscribed device that wants it is told of a transition once, encrypted, in their order.

One consumer group for all devices. A batch of alerts goes to all of them at once, to each in order. What a push
service does not take is tried again after growing pauses, or after the one it asks for; what it then has not taken, or
refuses, goes to `alerts-undelivered`, and so does what follows in this batch. A device that was given up gets one try a
batch until it takes one. An endpoint that is gone (404, 410) ends its subscription.

Whoever may read can name an endpoint, so it is called with care (`streams.push.reach`), and nothing of its answer but
the status and Retry-After is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

import aiohttp

from agents.alerts.hooks import PASSING, RANK, REDIS_AWAY
from agents.alerts.letters import Letters
from agents.alerts.ruleset import matches
from schemas.alerts import Alert
from streams import log, metrics
from streams.push.keys import PushKeys, push_keys
from streams.push.message import MOST_PLAIN, encrypted
from streams.push.reach import EndpointError, NotPublicError, PublicResolver, endpoint_url
from streams.push.subscriptions import Subscription, Subscriptions
from streams.settings import Settings
from streams.stores.redis import Hot, connect
from streams.stores.sink import Sink, Write
from streams.topics import ALERTS

logger = log.get(__name__)
#: How a delivery is counted beside those of hooks.
LABEL = "push"
#: A device that is away for longer is not told.
TTL_SECONDS = 4 * 3600
ATTEMPTS, FIRST_WAIT_S = 5, 1.0
#: An answer, and one of a device that was given up.
ANSWER_SECONDS, DOWN_SECONDS = 10.0, 3.0
#: All answers and pauses of a device in a batch, so that one that is slow, in earnest or in spite, holds up nobody.
DEVICE_SECONDS = 60.0
#: The longest that a device may ask to be left alone.
LONGEST_REST_S = 3_600.0
AT_ONCE = 64
GONE = {404, 410}
MOST_TITLE = 200


def sinks(settings: Settings) -> list[Sink]:
    """The sink, where there is web push: Redis keeps the subscriptions, and a key is given or can be kept."""
    if not settings.redis_url.get_secret_value() or not settings.push_subscriptions:
        return []
    try:
        return [PushSink(settings, push_keys(settings))]
    except OSError as error:
        logger.warning("push.off", error=type(error).__name__, help="set STREAMGAUGE_PUSH_KEY")
        return []


def message_of(alert: Alert, group: str = "") -> bytes:
    """What the service worker gets: JSON of at most MOST_PLAIN bytes; a long title is cut."""
    said = {"alert_id": alert.alert_id, "incident_id": alert.incident_id, "group": group or alert.incident_id,
            "state": alert.state, "severity": alert.severity, "environment": alert.environment, "model": alert.model,
            "ts": alert.ts, "title": alert.title[:MOST_TITLE],
            "link": f"/?{urlencode({'incident': alert.incident_id, 'environment': alert.environment})}"}
    body = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    while len(body) > MOST_PLAIN and said["title"]:
        said["title"] = str(said["title"])[:-(-len(str(said["title"])) // 2)]
        body = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    return body


def wants(subscription: Subscription, alert: Alert, group: str, now_ms: int) -> bool:
    """True if the device is to be told, and its token still allows it."""
    return (not alert.silenced_by and not subscription.withdrawn_ms
            and not 0 < subscription.expires_ms <= now_ms
            and (not subscription.allowed or alert.environment in subscription.allowed)
            and RANK[alert.severity] >= RANK[subscription.severity]
            and matches(subscription.environment, alert.environment) and matches(subscription.model, alert.model)
            and (not subscription.leads or group in ("", alert.incident_id)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a try: an error, if any; whether the same again may be taken, and after how long at the least."""

    error: str = ""
    again: bool = False
    gone: bool = False
    after_s: float = 0.0


@dataclass(slots=True)
class Turn:
    """A device in a batch: the time that is left to it, and why there is none."""

    left_s: float
    error: str = "it is too slow"


def retry_after_s(text: str | None, now_s: float) -> float:
    """Seconds from a Retry-After header, which has them or a date (RFC 9110, 10.2.3); 0: it says nothing."""
    if not text:
        return 0.0
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0


class PushSink(Sink):
    """Tells all devices."""

    name = LABEL
    begins = "latest"
    batch_records = 20

    def __init__(self, settings: Settings, keys: PushKeys, now_s: Callable[[], float] = time.time) -> None:
        super().__init__(settings, [ALERTS])
        self.first_wait_s, self.device_seconds = FIRST_WAIT_S, DEVICE_SECONDS
        self._keys = keys
        self._now_s = now_s
        self._letters = Letters(settings, now_s)
        self._session: aiohttp.ClientSession | None = None
        self._hot: Hot | None = None
        self._gate = asyncio.Semaphore(AT_ONCE)
        #: Devices that were given up, and the moment of the loop before which they are not tried.
        self._down: dict[str, float] = {}

    async def open(self) -> Mapping[str, Write]:
        open_to_all = self.settings.push_private_endpoints
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=AT_ONCE, resolver=None if open_to_all else PublicResolver()))
        self._hot = Hot(connect(self.settings), self.settings)
        known = Subscriptions(self._hot)
        await known.set_workers_key(self._keys.public)

        async def tell(alerts: Sequence[Alert]) -> None:
            await self.tell(alerts, known)

        return {ALERTS.name: tell}

    async def close(self) -> None:
        session, hot, self._session, self._hot = self._session, self._hot, None, None
        if hot is not None:
            with contextlib.suppress(*REDIS_AWAY):
                await hot.client.aclose()
        if session is not None:
            await session.close()
        await self._letters.close()

    async def tell(self, alerts: Sequence[Alert], known: Subscriptions) -> None:
        """Tell every device of what it wants and has not been told.

        Raises:
            RedisError, KafkaError, OSError: a store is away; told again, it is only what is left to tell.
        """
        by_id = {alert.alert_id: alert for alert in alerts if not alert.silenced_by}
        everyone = await known.everyone() if by_id else []
        if not everyone:
            return
        assert self._hot is not None
        self._down = {one.id: self._down[one.id] for one in everyone if one.id in self._down}
        groups = {alert.alert_id: await self._hot.group_of(alert) for alert in by_id.values()}
        told, now_ms = await known.told(list(by_id)), int(self._now_s() * 1000)
        ended = await asyncio.gather(*(
            self._tell_one(one, wanted, groups, known) for one in everyone
            if (wanted := [alert for alert in by_id.values() if one.id not in told[alert.alert_id]
                           and wants(one, alert, groups[alert.alert_id], now_ms)])), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    async def _tell_one(self, one: Subscription, alerts: Sequence[Alert], groups: Mapping[str, str],
                        known: Subscriptions) -> None:
        """Tell a device, in order; what it does not take is put aside, and nothing more is said to one that is gone."""
        turn = Turn(self.device_seconds)
        for alert in alerts:
            answer = await self._deliver(one, alert, groups[alert.alert_id], turn)
            if answer.gone:
                metrics.HOOKS.labels(LABEL, "gone").inc()
                logger.info("push.gone", subscription=one.id, token=one.token)
                await known.remove(one.id)
                return
            if answer.error:
                metrics.HOOKS.labels(LABEL, "undelivered").inc()
                await self._letters.put_aside(f"push-{one.id}", alert, answer.error)
            else:
                metrics.HOOKS.labels(LABEL, "delivered").inc()
            await known.note_told(alert.alert_id, one.id)

    async def _deliver(self, one: Subscription, alert: Alert, group: str, turn: Turn) -> Answer:
        """The last answer, when it was taken, refused, or given up."""
        clock, wait = asyncio.get_running_loop().time, self.first_wait_s
        if clock() < self._down.get(one.id, 0.0):
            return Answer("it asked to be left alone for longer")
        answer, attempts = Answer(turn.error, again=True), 1 if one.id in self._down else ATTEMPTS
        for attempt in range(attempts):
            if turn.left_s <= 0:
                break
            answer = await self._try(one, alert, group, turn)
            if not answer.again:
                if not answer.error:
                    self._down.pop(one.id, None)
                return answer
            metrics.HOOKS.labels(LABEL, "failed").inc()
            pause, wait = max(wait, answer.after_s), 2 * wait
            if attempt + 1 == attempts or pause >= turn.left_s:
                break
            turn.left_s -= pause
            await asyncio.sleep(pause)
        self._down[one.id] = clock() + min(answer.after_s, LONGEST_REST_S)
        turn.left_s, turn.error = 0.0, answer.error
        return answer

    async def _try(self, one: Subscription, alert: Alert, group: str, turn: Turn) -> Answer:
        if one.key != self._keys.public:
            return Answer("refused: it was subscribed with another key; is STREAMGAUGE_PUSH_KEY the same everywhere?")
        clock = asyncio.get_running_loop().time
        async with self._gate:
            began = clock()
            try:
                async with asyncio.timeout(min(turn.left_s, DOWN_SECONDS if one.id in self._down else ANSWER_SECONDS)):
                    return await self._post(one, alert, group)
            except TimeoutError as error:
                return Answer(type(error).__name__, again=True)
            finally:
                turn.left_s -= clock() - began

    async def _post(self, one: Subscription, alert: Alert, group: str) -> Answer:
        assert self._session is not None
        try:
            url = endpoint_url(one.endpoint, self.settings.push_private_endpoints)
            headers = {"Authorization": self._keys.authorization(url), "Content-Encoding": "aes128gcm",
                       "Content-Type": "application/octet-stream", "TTL": str(TTL_SECONDS),
                       "Urgency": "high" if alert.severity == "critical" else "normal"}
            body = encrypted(message_of(alert, group), one.p256dh, one.auth)
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return self._judged(answer.status, answer.headers.get("Retry-After"))
        except EndpointError as error:
            return Answer(f"refused: {error}")
        except aiohttp.InvalidURL:
            return Answer("refused: endpoint is no URL")
        except aiohttp.ClientConnectorError as error:
            private = isinstance(error.os_error, NotPublicError)
            return Answer("refused: no public address" if private else type(error).__name__, again=not private)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            return Answer(type(error).__name__, again=True)
        except ValueError as error:
            return Answer(f"refused: {type(error).__name__}")

    def _judged(self, status: int, retry_after: str | None) -> Answer:
        if 200 <= status < 300:
            return Answer()
        if status in GONE:
            return Answer(f"status {status}", gone=True)
        if status in PASSING:
            return Answer(f"status {status}", again=True, after_s=retry_after_s(retry_after, self._now_s()))
        return Answer(f"refused: status {status}")
