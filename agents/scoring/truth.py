"""What detectors were worth, by labels that come late: running precision, recall, ROC-AUC, and weights that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors import arrays
from schemas.telemetry import Feedback

Matrix = NDArray[np.float64]
#: Events that are remembered until their labels come.
REMEMBERED = 1_024
#: A member alone says "anomaly" at this p-value.
MEMBER_ALARM = 0.005
#: Bins of -log p, each a quarter wide.
BINS, PER_UNIT = 80, 4.0
#: Labels after which the past counts half, and anomalies that weigh as much as the equal weights.
MEMORY, PRIOR = 4_000.0, 20.0
ANOMALY, NORMAL = "anomaly", "normal"
_KIND = "truth"
#: Of the marks of a detector: alarms that were anomalies, alarms that were not, anomalies without an alarm.
(HIT, FALSE, MISSED) = range(3)


@dataclass(frozen=True, slots=True)
class Worth:
    """A detector by the labels so far; None where there are none to tell."""

    precision: float | None
    recall: float | None
    roc_auc: float | None


class Truth:
    """Joins labels with the last 1,024 events of a key, and keeps for each detector a histogram of -log p by class.

    ROC-AUC is that of the histograms, ties counting half: within 1 / (4 units) of -log p of the exact one's ranks.
    Weights: proportional to max(0, ROC-AUC - 0.5), shrunk towards equal ones as if those had seen 20 anomalies.
    Detectors: the members, then the ensemble. Bounded: 1,024 events; past labels fade with a half-life of 4,000.
    """

    def __init__(self, members: int) -> None:
        self.ids: dict[str, int] = {}
        self.owners = [""] * REMEMBERED
        self.next = 0
        self.surprises: Matrix = np.zeros((REMEMBERED, members + 1))
        self.alarms: NDArray[np.uint8] = np.zeros(REMEMBERED, np.uint8)
        self.histograms: Matrix = np.zeros((2, members + 1, BINS))      # [anomaly]
        self.marks: Matrix = np.zeros((members + 1, 3))

    def remember(self, ids: Sequence[str], surprises: Matrix, alarms: NDArray[np.bool_]) -> None:
        """Events by id: -log p of the members and the ensemble's T (n, members + 1), and whether it made an alarm."""
        for event_id, surprise, alarm in list(zip(ids, surprises, alarms, strict=True))[-REMEMBERED:]:
            if event_id in self.ids:
                continue
            place = self.next % REMEMBERED
            self.next += 1
            self.ids.pop(self.owners[place], None)
            self.ids[event_id], self.owners[place] = place, event_id
            self.surprises[place], self.alarms[place] = surprise, alarm

    def label(self, event_id: str, anomalous: bool) -> bool:
        """Take in what an event was; False if it is not remembered (any more)."""
        place = self.ids.pop(event_id, None)
        if place is None:
            return False
        self.owners[place] = ""
        surprise = np.nan_to_num(self.surprises[place])
        if self.histograms[:, -1].sum() >= 2.0 * MEMORY:
            self.histograms *= 0.5
            self.marks *= 0.5
        bins = np.minimum(BINS - 1, (surprise * PER_UNIT).astype(np.int64))
        self.histograms[int(anomalous), np.arange(len(bins)), bins] += 1.0
        said = surprise > -np.log(MEMBER_ALARM)
        said[-1] = bool(self.alarms[place])
        if anomalous:
            self.marks[said, HIT] += 1.0
            self.marks[~said, MISSED] += 1.0
        else:
            self.marks[said, FALSE] += 1.0
        return True

    def worth(self) -> list[Worth]:
        """Of each member, then of the ensemble."""
        return [Worth(_share(hit, hit + false), _share(hit, hit + missed), area)
                for (hit, false, missed), area in zip(self.marks.tolist(), self._areas(), strict=True)]

    def weights(self) -> Matrix:
        """One a member, adding up to 1."""
        members = len(self.marks) - 1
        equal = np.full(members, 1.0 / members)
        areas = self._areas()[:-1]
        known = float(min(self.histograms[0, -1].sum(), self.histograms[1, -1].sum()))
        gain = np.array([max(0.0, (area or 0.5) - 0.5) for area in areas])
        if not gain.sum() > 0.0:
            return equal
        return np.asarray((PRIOR * equal + known * gain / gain.sum()) / (PRIOR + known))

    def _areas(self) -> list[float | None]:
        found: list[float | None] = []
        for normal, strange in zip(self.histograms[0], self.histograms[1], strict=True):
            pairs = normal.sum() * strange.sum()
            below = np.cumsum(normal) - normal
            found.append(float((strange * (below + 0.5 * normal)).sum() / pairs) if pairs else None)
        return found

    def encode(self) -> bytes:
        """See `detectors.arrays`; the ids are in the head, oldest first."""
        return arrays.encode(_KIND, {"ids": list(self.ids), "next": self.next}, {
            "places": np.array(list(self.ids.values()), np.int64), "surprises": self.surprises, "alarms": self.alarms,
            "histograms": self.histograms, "marks": self.marks})

    @classmethod
    def decode(cls, data: bytes, members: int) -> Truth:
        """The truth in the bytes.

        Raises:
            ValueError: cut short, of another format, or of another number of members.
        """
        kind, head, found = arrays.decode(data)
        if kind != _KIND or found["marks"].shape != (members + 1, 3):
            raise ValueError("the snapshot holds no labels of such an ensemble")
        truth = cls(members)
        truth.ids = dict(zip(head["ids"], found["places"].tolist(), strict=True))
        truth.next = int(head["next"])
        for event_id, place in truth.ids.items():
            truth.owners[place] = event_id
        truth.surprises, truth.alarms = found["surprises"], found["alarms"]
        truth.histograms, truth.marks = found["histograms"], found["marks"]
        return truth


def anomalous(label: Feedback) -> bool | None:
    """What a label says of its event: "anomaly" or "normal" is a person's verdict; else whether a class was wrong.

    None where numbers were predicted: how wrong is too wrong is not known here.
    """
    said = str(label.label).lower()
    if said in (ANOMALY, NORMAL):
        return said == ANOMALY
    if isinstance(label.label, float) and isinstance(label.prediction, float):
        return None
    return label.label != label.prediction


def named(worth: Sequence[Worth], members: Sequence[str]) -> Mapping[str, Worth]:
    """By detector's name; the ensemble last."""
    return dict(zip((*members, "ensemble"), worth, strict=True))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
