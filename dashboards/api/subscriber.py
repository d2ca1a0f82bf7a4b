"""A socket as a feed sees it: what it wants, where it is, and what waits for it.

A socket that does not keep up gets its messages through its own queue of at most `most`. When that is full:

    resume   the queue is dropped, and the socket reads on from the stream at its own pace; nothing is missed that is
             still kept
    gap      the newest are dropped until the socket reads again; then it is told which (`missed`)
    close    the connection is cut; the client comes back with the last id that it saw
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from dashboards.api import metrics
from dashboards.api.door import frame

SEVERITIES = {"info": 0, "warning": 1, "critical": 2}
POLICIES = ("resume", "gap", "close")
Policy = Literal["resume", "gap", "close"]
_PLACE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


class Place(NamedTuple):
    """A place in the stream; they compare as the entries came."""

    ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


ZERO = Place(0, 0)


def place(text: str) -> Place:
    """A stream id as numbers that compare.

    Raises:
        ValueError: not an id.
    """
    match = _PLACE.fullmatch(text)
    found = Place(int(match[1]), int(match[2] or 0)) if match else None
    if found is None or max(found) >= 1 << 64:
        raise ValueError("an id is MILLISECONDS-NUMBER, as the messages have it; 0 is before the oldest")
    return found


#: What filters look at.
HEAD = ("environment", "model", "version", "component", "severity", "silenced_by", "incident_id", "size_ms")


@dataclass(slots=True, eq=False)
class Item:
    """An entry of the stream, and the message that carries it, encoded once for all sockets that agreed on a window."""

    place: Place
    #: Of the message, only what filters look at: many are kept.
    body: dict[str, Any]
    text: bytes
    #: Of an alert: the incident that its group of one cause began with.
    group: str = ""
    _frames: dict[int, bytes] = field(default_factory=dict)

    def frame(self, bits: int) -> bytes:
        """The message as a WebSocket frame, compressed with a window of so many bits; 0: not."""
        found = self._frames.get(bits)
        if found is None:
            found = self._frames[bits] = frame(self.text, bits)
        return found


class Page(NamedTuple):
    """A stretch of the stream: its items, the place of the last entry looked at, and a gap before them, if any."""

    items: list[Item]
    end: Place
    #: The oldest that is kept, if some between it and where the page began may be gone.
    oldest: Place | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What a socket wants; empty is everything. `allowed`: the environments that its token is limited to.

    `silenced`: also what falls under a silence. `leads`: of incidents of one cause, only the first.
    """

    environment: str = ""
    model: str = ""
    severity: str = "info"
    allowed: tuple[str, ...] = ()
    silenced: bool = False
    leads: bool = False
    version: str = ""
    component: str = ""
    granularity_ms: int = 0

    def wants(self, body: dict[str, Any], group: str = "") -> bool:
        """True if it passes. What has no severity, as anomalies, is information; only windows have a granularity."""
        return (self.environment in ("", body["environment"]) and self.model in ("", body["model"])
                and self.version in ("", body.get("version", "")) and self.component in ("", body.get("component", ""))
                and self.granularity_ms in (0, body.get("size_ms", 0))
                and SEVERITIES[body.get("severity", "info")] >= SEVERITIES[self.severity]
                and (not self.leads or group in ("", body.get("incident_id")))
                and (self.silenced or not body.get("silenced_by"))
                and (not self.allowed or body["environment"] in self.allowed))


class Writes(Protocol):
    """Where a socket's frames go; `dashboards.api.door.Line`."""

    @property
    def clear(self) -> bool: ...

    def write(self, frames: bytes) -> None: ...


@dataclass(eq=False)
class Subscriber:
    """A socket as the feed sees it. `busy` while its own task writes: nothing may overtake that."""

    filter: Filter
    most: int
    kind: str
    line: Writes
    bits: int = 0
    policy: Policy = "resume"
    #: The last place that was handed to it; with `resume`, the last before the queue was dropped.
    after: Place = ZERO
    #: The last place that was written to its socket.
    sent: Place = ZERO
    busy: bool = True
    lagging: bool = False
    cut: bool = False
    items: deque[Item] = field(default_factory=deque)
    missed: list[Place] = field(default_factory=list)
    missed_count: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, items: Sequence[Item], frames: bytes) -> int:
        """Write the frames of these items at once, or queue the items; how many were written."""
        last = items[-1].place
        if self.lagging or self.cut or last <= self.after:
            return 0
        if not self.busy and self.line.clear and self.after < items[0].place:
            self.line.write(frames)
            self.after = self.sent = last
            return len(items)
        for item in items:
            if item.place > self.after:
                self._queue(item)
        self.ready.set()
        return 0

    def _queue(self, item: Item) -> None:
        """After a first drop nothing is queued until the socket was told, so that what it reads stays in order."""
        if self.lagging or self.cut:
            return
        if not self.missed_count and len(self.items) < self.most:
            self.items.append(item)
            self.after = item.place
            return
        if not self.missed_count:
            metrics.OVERFLOWS.labels(self.policy).inc()
        if self.policy == "gap":
            self.missed_count += 1
            self.missed = [self.missed[0] if self.missed else item.place, item.place]
            self.after = item.place
            metrics.MISSED.labels(self.kind).inc()
        elif self.policy == "resume":
            self.fall_back()
        else:
            self.items.clear()
            self.cut = True

    def fall_back(self) -> None:
        """Read on from the stream, from behind what was sent."""
        self.items.clear()
        self.lagging = True
        self.ready.set()

    def take_missed(self) -> dict[str, Any] | None:
        """The message that says what was missed, once the queue is empty."""
        if self.items or not self.missed_count:
            return None
        first, last = self.missed
        message = {"type": "missed", "reason": "slow", "count": self.missed_count, "from_id": str(first),
                   "to_id": str(last)}
        self.missed, self.missed_count = [], 0
        return message
