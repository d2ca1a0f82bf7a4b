"""How many events a component gets a minute, over all its versions, against what is usual at that hour of the day.

Traffic has a day, and a fall every night is no news. So a minute is judged once its hour is known from earlier days
(`season`), from the third day on: the logarithm of its count less that of the usual one is watched as any statistic is.
What is usual is that of the days before, or of the same hour a week ago, whichever is nearer: so the first weekend may
be told of, and those after it are not. A change counts from a factor of two, either way, besides what chance does. What
is silent altogether is told by a rule of the alerts.

A minute is over when a window of a later one comes; the first one, and the first after a pause, are not whole and do
not count. Windows that come later than that belong to none. Cost: an addition a window.
"""

from __future__ import annotations

import math

import msgspec

from agents.drift.budget import height
from agents.drift.level import Change, WatchState
from agents.drift.options import Effect
from agents.drift.reference import Point
from agents.drift.season import HOUR_MS, Usual
from agents.drift.watch import Watch

FIELD = "traffic"
MINUTE_MS, A_DAY = 60_000, 1_440
#: Standard deviations of a Poisson count that make no difference of a minute.
CHANCE = 2.0
#: Hours.
WEEK = 168
#: Of logarithms.
EFFECT = Effect("share", math.log(2.0), math.log(5.0))


class Minutes(msgspec.Struct, array_like=True):
    """As written: the minute under way (its number since 1970), whether it is whole, and its events so far.

    `version`: the one that the last drift was told of. `week`: hour of the week -> mean logarithm of a minute's events.
    Of the hour under way: its number, minutes, mean.
    """

    minute: int = -1
    whole: bool = False
    events: int = 0
    usual: Usual = msgspec.field(default_factory=Usual)
    watch: WatchState = msgspec.field(default_factory=WatchState)
    week: dict[int, float] = {}
    hour: int = -1
    n: int = 0
    mean: float = 0.0
    version: str = ""

    def note(self, start_ms: int, level: float) -> None:
        """Take a minute into its hour of the week, a drift or not; half of what is known is the newest week's."""
        hour = start_ms // HOUR_MS
        if hour != self.hour:
            if self.n:
                known = self.week.get(self.hour % WEEK, self.mean)
                self.week[self.hour % WEEK] = (known + self.mean) / 2
            self.hour, self.n, self.mean = hour, 0, 0.0
        self.n += 1
        self.mean += (level - self.mean) / self.n


class Traffic:
    """A component's, live."""

    def __init__(self, delta: float, kept: Minutes | None = None) -> None:
        self.minutes = kept or Minutes()
        self.watch = Watch(EFFECT, delta, self.minutes.watch)

    def snapshot(self) -> Minutes:
        """The state, for a codec."""
        self.minutes.watch = self.watch.snapshot()
        return self.minutes

    def add(self, start_ms: int, events: int, allowed_per_day: float) -> Change | None:
        """Take in a window; a change of events a minute, if the minute that it ends makes one certain."""
        now, minute, change = self.minutes, start_ms // MINUTE_MS, None
        if minute > now.minute:
            if now.whole:
                self.watch.height = height(A_DAY, allowed_per_day)
                change = self._close()
            now.minute, now.whole, now.events = minute, minute == now.minute + 1, 0
        if minute == now.minute:
            now.events += events
        return change

    def _close(self) -> Change | None:
        now = self.minutes
        start_ms, level = now.minute * MINUTE_MS, math.log(max(1, now.events))
        usual, lens = now.usual.level(start_ms), self.watch.lens
        if not self.watch.state.direction:
            now.usual.add(start_ms, 1, level, True)
        last_week = now.week.get(start_ms // HOUR_MS % WEEK, usual)
        now.note(start_ms, level)
        if math.isnan(usual):
            return None
        usual = min(usual, last_week, key=lambda known: abs(level - known))
        by, chance = level - usual, CHANCE * math.exp(-usual / 2)
        by = math.copysign(max(0.0, abs(by) - chance), by)
        change = self.watch.add(Point(start_ms, start_ms + MINUTE_MS, MINUTE_MS // 1_000, 1, by, 0.0, watched=math.nan
                                      if lens is None else max(lens.low, min(lens.high, by))))
        if change is None:
            return None
        after = change.after + math.copysign(chance, change.after) * (change.state == "drifted")
        before = math.exp(usual)
        return change._replace(before=before, after=before * math.exp(after), scale=before * change.scale,
                               reference="earlier_days")
