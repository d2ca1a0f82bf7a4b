"""What each kind of incident does to the serving, with its true cause in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from infra.demo.data import FloatArray
from infra.demo.models import MODEL, Model, Version
from infra.demo.schedule import Kind, Slot

UNIT_FACTOR = 1000.0
ERROR_SHARE = 0.5
NEW_VERSION_SHARE = 0.5
SLOW_TIMES = 8
SHIFT_SD = 2.0
SHIFTED_COLUMNS = 4
#: The callers whose truth changes in a concept shift, and the part of a table that a covariate shift draws from.
FLIPPED_REGION = "north"
BIASED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Incident:
    """The truth about one incident; one line of the ground-truth file. Empty version: all of them."""

    incident_id: str
    kind: Kind
    environment: str
    model: str
    version: str
    component: str
    field: str
    cause: str
    start_ms: int
    end_ms: int
    closed: bool = False

    def record(self) -> dict[str, Any]:
        """As written to the file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Disturbance:
    """An incident with what it takes to make it happen."""

    incident: Incident
    column: int = 0
    shifted: tuple[int, ...] = ()
    biased: FloatArray | None = None
    extra: Version | None = None


def _telling_column(model: Model, need_values: bool, draw: float) -> int:
    """One of the three most telling columns; for a unit change one that is rarely zero."""
    nonzero = (model.x != 0).mean(axis=0)
    least = min(0.9, float(np.sort(nonzero)[-3])) if need_values else 0.0
    fit = [column for column in model.ranked if nonzero[column] >= least][:3]
    return fit[int(draw * len(fit))]


def make(slot: Slot, model: Model, origin_ms: int, new_version: str) -> Disturbance:
    """Turn a slot of the schedule into an incident of this model."""
    names = model.table.columns
    component, version, field, column = MODEL, "", "", 0
    shifted: tuple[int, ...] = ()
    biased, extra = None, None
    if slot.kind == "error_burst":
        component, field = model.spec.components[0], ""
        column = int(slot.draw * len(names))
        cause = f"callers send {names[column]} as text: {ERROR_SHARE:.0%} of the requests raise"
    elif slot.kind == "unit_change":
        component, column = model.spec.components[0], _telling_column(model, True, slot.draw)
        field, cause = f"feature.{names[column]}", f"{names[column]} arrives in another unit (x {UNIT_FACTOR:g})"
    elif slot.kind == "null_column":
        component, column = model.spec.components[0], _telling_column(model, False, slot.draw)
        field, cause = f"feature.{names[column]}", f"{names[column]} is null: its source stopped filling it"
    elif slot.kind == "covariate_shift":
        component, shifted = model.spec.components[0], tuple(model.ranked[:SHIFTED_COLUMNS])
        order = np.argsort(model.x[:, model.ranked[0]], kind="stable")
        biased = model.x[order[-max(1, int(len(order) * BIASED_SHARE)):]]
        field = f"feature.{names[shifted[0]]}"
        cause = ("another population of callers: rows from one quarter of the data, and "
                 + ", ".join(names[i] for i in shifted) + f" {SHIFT_SD:g} sd higher")
    elif slot.kind == "concept_shift":
        field, cause = "error", f"the truth changed for callers from {FLIPPED_REGION}; inputs did not"
    elif slot.kind == "latency_regression":
        component = model.spec.components[int(slot.draw * len(model.spec.components))]
        field, cause = "latency_ms", f"{component} does its work {SLOW_TIMES} times over (a loop inside a loop)"
    else:
        version = new_version
        packed = slot.draw < 0.5
        extra = model.mismatched(version) if packed else model.mistrained(version)
        field = "" if packed else "prediction"
        what = "was packed for other columns and raises" if packed else "was trained on wrong labels"
        cause = f"{version} takes {NEW_VERSION_SHARE:.0%} of the traffic and {what}"
    incident = Incident(f"i-{slot.number:04d}", slot.kind, slot.target.environment, slot.target.model, version,
                        component, field, cause, origin_ms + slot.start_ms, origin_ms + slot.end_ms)
    return Disturbance(incident, column, shifted, biased, extra)
