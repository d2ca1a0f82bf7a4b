"""What the pipeline will refuse of a replay for its times, counted while it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from infra.reached import too_late_before_ms
from infra.replay.play import Timed
from schemas.base import iso
from streams.settings import Settings


class Refused:
    """Counts events that lie outside what is let in, and events too late for any window.

    `newest_ms` is how far the pipeline has come: model -> the newest event time of its partition.
    """

    def __init__(self, configured: Settings, newest_ms: Mapping[str, int],
                 clock_ms: Callable[[], float] = lambda: time.time() * 1000) -> None:
        self.outside = 0
        self.late = 0
        self._settings = configured
        self._reached_ms = max(newest_ms.values(), default=0)
        self._newest_ms = dict(newest_ms)
        self._clock_ms = clock_ms

    def watch(self, events: Iterator[Timed]) -> Iterator[Timed]:
        """The same events."""
        ahead, age = self._settings.max_ahead_ms, self._settings.max_age_ms
        for ts, event in events:
            now_ms, model = self._clock_ms(), event["model"]
            if (ahead and ts > now_ms + ahead) or (age and ts < now_ms - age):
                self.outside += 1
            else:
                newest = self._newest_ms.get(model, -1)
                self.late += newest >= 0 and ts < too_late_before_ms(self._settings, newest)
                self._newest_ms[model] = max(newest, ts)
            yield ts, event

    def texts(self) -> list[str]:
        """A sentence for each kind that there was."""
        found = []
        if self.outside:
            found.append(f"{self.outside:,} events lie outside what the pipeline lets in (STREAMGAUGE_MAX_AGE_MS, "
                         "STREAMGAUGE_MAX_AHEAD_MS) and are rejected: use --shift-to-now or --restamp")
        if self.late:
            reached = f", which has had events up to {iso(self._reached_ms)}" if self._reached_ms else ""
            found.append(f"{self.late:,} events come too late for the pipeline{reached}: they count in no window and "
                         "are kept as rejected (too_old). Play them with --restamp and a --speed, or on a pipeline of "
                         "their own: `streamgauge up --no-demo` with another STREAMGAUGE_DATA_DIR")
        return found
