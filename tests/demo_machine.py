"""The demo's models on a machine of their own: serving costs CPU time by the work done, whatever the real one is at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from infra.demo.models import Model, Version

#: CPU time of each step of serving a batch, and the spread of it (a standard deviation of its logarithm).
COST_NS = {"transform": 1_000_000, "predict": 2_000_000, "predict_proba": 2_000_000}
SPREAD = 0.1


class Machine:
    """A CPU clock that moves by what the models do on it. The same seed and work give the same times."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._now_ns = 0

    def clock_ns(self) -> int:
        return self._now_ns

    def worked(self, step: str) -> None:
        self._now_ns += int(COST_NS[step] * np.exp(SPREAD * self._random.standard_normal()))

    def load(self, models: Sequence[Model]) -> list[Model]:
        """The models, and whatever versions they make later, to be served here."""
        return [_Loaded(**{**vars(model), "versions": {
            name: self.host(version) for name, version in model.versions.items()}}, machine=self) for model in models]

    def host(self, version: Version) -> Version:
        return replace(version, preprocess=_Step(self, version.preprocess), estimator=_Step(self, version.estimator))


@dataclass(frozen=True, eq=False)
class _Loaded(Model):
    machine: Machine = field(kw_only=True)

    def mismatched(self, name: str) -> Version:
        return self.machine.host(super().mismatched(name))

    def mistrained(self, name: str) -> Version:
        return self.machine.host(super().mistrained(name))


class _Step:
    """A fitted step as it is, except that its use costs time. What it lacks, this lacks (`predict_proba`)."""

    def __init__(self, machine: Machine, step: Any) -> None:
        self._machine, self._step = machine, step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._step, name)
        if name in COST_NS:
            self._machine.worked(name)
        return found
