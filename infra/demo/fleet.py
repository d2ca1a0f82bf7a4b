"""The fleet: every deployment, moved forward together in event time, with the scripted incidents in force."""

from __future__ import annotations

import gc
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from infra.demo.incidents import Disturbance, Incident, make
from infra.demo.models import MAIN, NEXT, Model
from infra.demo.schedule import Slot, Target, plan
from infra.demo.serving import Deployment, Message
from infra.demo.traffic import SLICE_MS, Traffic

ENVIRONMENTS: tuple[tuple[str, float], ...] = (("prod", 0.75), ("staging", 0.25))
_FIRST_NEW_VERSION = 3


class Fleet:
    """Moves from `origin_ms` on. The same seed gives the same messages, except measured latency."""

    def __init__(self, models: Sequence[Model], events_per_s: float, origin_ms: int, seed: int,
                 length_ms: int | None = None, incidents: bool = True,
                 clock_ns: Callable[[], int] = time.thread_time_ns) -> None:
        if origin_ms % SLICE_MS:
            raise ValueError("origin_ms must be a whole second")
        self.origin_ms = origin_ms
        self.models = {model.spec.name: model for model in models}
        self.deployments: dict[tuple[str, str], Deployment] = {}
        self.opened: list[Incident] = []
        self.closed: list[Incident] = []
        self._active: list[Disturbance] = []
        self._versions_made: dict[str, int] = {}
        self._done_ms = origin_ms
        run = f"{origin_ms // 1000:x}-{seed}"
        targets = []
        total = sum(model.spec.weight for model in models)
        for m, model in enumerate(models):
            for e, (environment, share) in enumerate(ENVIRONMENTS):
                spec = model.spec
                rate = events_per_s * spec.weight / total * share / len(spec.components)
                canary = spec.canary if environment == "prod" else 0.0
                main = MAIN if environment == "prod" else NEXT
                traffic = Traffic(model, rate, canary, [seed, m, e], origin_ms)
                self.deployments[environment, spec.name] = Deployment(environment, model, traffic, main, run, clock_ns)
                targets.append(Target(environment, spec.name, rate * (1.0 - canary), spec.components))
        self._slots: Iterator[Slot] = plan(targets, seed, length_ms) if incidents else iter(())
        self._next: Slot | None = next(self._slots, None)

    def advance(self, until_ms: int) -> list[Message]:
        """Every message with event time before `until_ms`, in order of event time.

        `opened` and `closed` then hold the incidents that began and ended meanwhile; the caller empties them.
        """
        self._start(until_ms)
        by_deployment: dict[tuple[str, str], list[Disturbance]] = {}
        for active in self._active:
            by_deployment.setdefault((active.incident.environment, active.incident.model), []).append(active)
        with _no_collection():
            parts = self._serve(until_ms, by_deployment)
        self._end(until_ms)
        self._done_ms = until_ms
        return list(heapq.merge(*parts, key=_ts))

    def _serve(self, until_ms: int, by_deployment: dict[tuple[str, str], list[Disturbance]]) -> list[list[Message]]:
        return [sorted(deployment.advance(until_ms, by_deployment.get(key, [])), key=_ts)
                for key, deployment in self.deployments.items()]

    def stop(self) -> list[Incident]:
        """Close what is still open at the event time reached; these ended now, not as planned."""
        ended = [replace(active.incident, end_ms=min(active.incident.end_ms, self._done_ms), closed=True)
                 for active in self._active]
        self._active = []
        return ended

    def _start(self, until_ms: int) -> None:
        """Bring in the incidents that begin before `until_ms`. They begin on whole seconds, as traffic is planned."""
        while self._next is not None and self.origin_ms + self._next.start_ms < until_ms:
            slot = self._next
            name = slot.target.model
            made = self._versions_made.get(name, 0)
            if slot.kind == "broken_version":
                self._versions_made[name] = made + 1
            disturbance = make(slot, self.models[name], self.origin_ms, f"v{_FIRST_NEW_VERSION + made}")
            self._active.append(disturbance)
            self.opened.append(disturbance.incident)
            self._next = next(self._slots, None)

    def _end(self, until_ms: int) -> None:
        over = [active for active in self._active if active.incident.end_ms <= until_ms]
        self._active = [active for active in self._active if active.incident.end_ms > until_ms]
        self.closed.extend(replace(active.incident, closed=True) for active in over)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold Python's garbage collector: a collection of the publisher's objects is not the model's latency."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _ts(message: Message) -> int:
    return message.ts_ms
