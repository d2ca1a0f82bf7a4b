"""alerts -> other people's systems: signed webhooks, and Alertmanager. A consumer group each: none holds up another.

The file (`STREAMGAUGE_HOOKS_FILE`, JSON, read when a worker starts):

    [{"name": "pager", "kind": "webhook", "url": "https://...", "secret": "whsec_...", "severity": "critical"},
     {"name": "manager", "kind": "webhook", "url": "https://...", "secret": "...", "level": 1},
     {"name": "am", "kind": "alertmanager", "url": "http://alertmanager:9093"}]

A webhook is signed as Standard Webhooks 1.0 says: `webhook-id` (the alert's id: drop repeats by it),
`webhook-timestamp`, and `webhook-signature`, v1 and the base64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY". What a receiver
does not take is tried again after growing pauses; what it then has not taken, or refuses, goes to the topic
`alerts-undelivered`. `level` tells only of what nobody acknowledged in time. What falls under a silence is not told.

Incidents of one cause are a group (0012), named by the incident that it began with: `group` in a webhook's body, and a
label of Alertmanager's (`group_by: [group]` makes them one notification). `"one_a_group": true` tells only of that
incident. Groups are known by Redis; while it is away every incident is its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from redis.exceptions import RedisError

from agents.alerts.letters import Letters
from agents.alerts.ruleset import matches
from schemas.alerts import Alert, AlertState, Pattern
from schemas.base import Name, Severity, iso
from streams import log, metrics
from streams.settings import Settings
from streams.stores.redis import Hot, connect
from streams.stores.sink import Sink, Write
from streams.topics import ALERTS

logger = log.get(__name__)
RANK = {"info": 0, "warning": 1, "critical": 2}
ANSWER_SECONDS, GROUP_SECONDS = 10.0, 2.0
REDIS_AWAY = (RedisError, OSError, TimeoutError)
#: Answers after which the same again may be taken.
PASSING = {408, 425, 429, 500, 502, 503, 504}
#: How long Alertmanager takes an incident to be on, unless told that it is over.
ALERTMANAGER_MS = 7 * 24 * 3_600_000


class Hook(BaseModel):
    """A receiver, and what it wants to be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Literal["webhook", "alertmanager"] = "webhook"
    url: SecretStr = Field(description="Many hold a secret in their path; it is never logged")
    secret: SecretStr = SecretStr("")
    environment: Pattern = ""
    model: Pattern = ""
    severity: Severity = "info"
    states: tuple[AlertState, ...] = get_args(AlertState)
    level: int = Field(default=0, ge=0, description="Only what has escalated so often for want of an answer")
    one_a_group: bool = Field(default=False, description="Of incidents of one cause only the one that came first")
    attempts: int = Field(default=6, ge=1, le=20)
    first_wait_s: float = Field(default=1.0, gt=0, le=60, description="Twice as long each time")

    def wants(self, alert: Alert) -> bool:
        """True if it is to be told."""
        return (not alert.silenced_by and alert.state in self.states and alert.level >= self.level
                and RANK[alert.severity] >= RANK[self.severity] and matches(self.environment, alert.environment)
                and matches(self.model, alert.model))


_HOOKS = TypeAdapter(list[Hook])


class HooksFileError(ValueError):
    """The file of hooks cannot be used. The text repeats nothing that it holds: there are secrets in it."""

    code = "wrong_setting"
    retriable = False


def read(path: Path | None) -> list[Hook]:
    """The hooks of a file; none without one.

    Raises:
        HooksFileError: it holds something else, or a name twice.
        OSError: it cannot be read.
    """
    try:
        found = _HOOKS.validate_json(path.read_bytes()) if path is not None else []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise HooksFileError(f"{path} (STREAMGAUGE_HOOKS_FILE) is no list of hooks: {where and f'{where}: '}"
                             f"{first['msg']}") from None
    if len({hook.name for hook in found}) < len(found):
        raise HooksFileError(f"{path}: two hooks have one name")
    return found


def signed(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature. A secret `whsec_...` is base64, any other is taken as it is.

    Source: Standard Webhooks 1.0.0 (standardwebhooks.com), symmetric signatures.
    """
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    content = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def for_alertmanager(alert: Alert, now_ms: int, group: str = "") -> list[dict[str, Any]]:
    """The incident as Alertmanager's API v2 takes it; under other severities it is another alert there, and over.

    So it is under its own name as the group, which it has there if Redis was away when it opened.
    """
    ended, own = iso(min(alert.ts, now_ms)), alert.incident_id
    is_on = alert.state != "resolved"
    return [{
        "labels": {"alertname": alert.rule or alert.cause, "environment": alert.environment, "model": alert.model,
                   "component": alert.component, "severity": severity, "incident_id": own, "group": under},
        "annotations": {"summary": alert.title, "description": alert.detail, "version": alert.version},
        "startsAt": iso(min(alert.opened_ms, now_ms)),
        "endsAt": iso(now_ms + ALERTMANAGER_MS) if is_on and (under, severity) == (group or own, alert.severity) else
        ended,
    } for under in dict.fromkeys((group or own, own)) for severity in RANK]


class HookSink(Sink):
    """Tells one receiver. It keeps their order: an alert waits for those before it."""

    fetch_wait_ms = 50
    begins = "latest"
    batch_records = 5           # a receiver that hangs must not keep the group waiting for minutes

    def __init__(self, settings: Settings, hook: Hook, now_s: Callable[[], float] = time.time) -> None:
        super().__init__(settings, [ALERTS])
        self.name = f"hook-{hook.name}"
        self.hook = hook
        self._now_s = now_s
        self._session: aiohttp.ClientSession | None = None
        self._letters = Letters(settings, now_s)
        self._hot: Hot | None = None
        #: True while the last alert was given up: the next ones then wait for one repetition only.
        self._down = False

    async def open(self) -> Mapping[str, Write]:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        if self.settings.redis_url.get_secret_value():
            self._hot = Hot(connect(self.settings), self.settings)

        async def tell(alerts: Sequence[Alert]) -> None:
            for alert in alerts:
                if self.hook.wants(alert):
                    await self.deliver(alert)

        return {ALERTS.name: tell}

    async def close(self) -> None:
        session, hot, self._session, self._hot = self._session, self._hot, None, None
        if hot is not None:
            with contextlib.suppress(*REDIS_AWAY):
                await hot.client.aclose()
        if session is not None:
            await session.close()
        await self._letters.close()

    async def deliver(self, alert: Alert) -> bool:
        """Tell of it, or put it aside. True if the receiver has it, or need not have it."""
        group = await self._group(alert)
        if self.hook.one_a_group and group not in ("", alert.incident_id):
            metrics.HOOKS.labels(self.hook.name, "grouped").inc()
            return True
        wait, error, attempts = self.hook.first_wait_s, "", min(2, self.hook.attempts) if self._down else \
            self.hook.attempts
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(wait)
                wait *= 2
            error = await self._try(alert, group)
            if not error:
                self._down = False
                metrics.HOOKS.labels(self.hook.name, "delivered").inc()
                return True
            metrics.HOOKS.labels(self.hook.name, "failed").inc()
            if error.startswith("refused"):
                break
        self._down = not error.startswith("refused")
        metrics.HOOKS.labels(self.hook.name, "undelivered").inc()
        await self._letters.put_aside(self.hook.name, alert, error)
        return False

    async def _group(self, alert: Alert) -> str:
        """The incident that its group began with; empty while nobody knows."""
        if self._hot is None:
            return ""
        try:
            async with asyncio.timeout(GROUP_SECONDS):
                return await self._hot.group_of(alert)
        except REDIS_AWAY as error:
            logger.info("hook.ungrouped", hook=self.hook.name, alert_id=alert.alert_id, error=type(error).__name__)
            return ""

    async def _try(self, alert: Alert, group: str) -> str:
        """What went wrong; empty if nothing."""
        assert self._session is not None
        url, body, headers = self._request(alert, group)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                if answer.status < 300:
                    return ""
                return f"{'status' if answer.status in PASSING else 'refused: status'} {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__

    def _request(self, alert: Alert, group: str) -> tuple[str, bytes, dict[str, str]]:
        url, secret, now = self.hook.url.get_secret_value(), self.hook.secret.get_secret_value(), self._now_s()
        if self.hook.kind == "alertmanager":
            body = json.dumps(for_alertmanager(alert, int(now * 1000), group)).encode()
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            return f"{url.rstrip('/')}/api/v2/alerts", body, headers | {"Content-Type": "application/json"}
        body = json.dumps({"type": f"alert.{alert.state}", "timestamp": iso(int(now * 1000)),
                           "group": group or alert.incident_id, "data": json.loads(alert.model_dump_json())}).encode()
        headers = {"webhook-id": alert.alert_id, "webhook-timestamp": str(int(now)), "Content-Type": "application/json"}
        if secret:
            headers["webhook-signature"] = signed(secret, alert.alert_id, int(now), body)
        return url, body, headers
