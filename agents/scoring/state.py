"""What scoring keeps per key: a detector, the threshold over its scores, and the key's pace."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from agents.scoring.detectors import arrays, registry, snapshot
from agents.scoring.detectors.base import OtherSettings
from agents.scoring.detectors.clocked import Clocked
from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees, seed_of
from agents.scoring.pace import Pace
from agents.scoring.threshold import QuantileThreshold
from agents.scoring.truth import Truth
from streams.settings import Settings

CONFIDENCE = "confidence"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """The settings that scoring takes."""

    trees: int = 25
    height: int = 8
    window: int = 250
    threshold_quantile: float = 0.999
    seed: int = 42
    detectors: tuple[str, ...] = (registry.HALF_SPACE_TREES,)
    alarm_budget: float = 0.0
    follow_labels: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> ScoringOptions:
        return cls(settings.hst_trees, settings.hst_height, settings.hst_window, settings.threshold_quantile,
                   settings.seed, settings.detectors, settings.alarm_budget, settings.follow_labels)

    def detector(self, key: str) -> registry.Made:
        """A new detector for a key.

        Raises:
            ValueError: a name that is no detector's.
        """
        return registry.make(self.detectors, seed_of(self.seed, key), (CONFIDENCE,),
                             registry.TreeOptions(self.trees, self.height, self.window))


@dataclass(slots=True, eq=False)
class DetectorState:
    """One key's detector."""

    detector: registry.Made
    threshold: QuantileThreshold
    pace: Pace = field(default_factory=Pace)
    truth: Truth | None = None


class DetectorCodec:
    """`streams.state.keyed.Codec` of `DetectorState`.

    The pace, the threshold's length (uint32), threshold, the truth's length (0: none), truth, detector.
    """

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options

    def new(self, key: str) -> DetectorState:
        detector = self.options.detector(key)
        follows = self.options.follow_labels and isinstance(detector, Ensemble)
        return DetectorState(detector, QuantileThreshold(self.options.threshold_quantile),
                             truth=Truth(len(detector.members)) if follows else None)

    def encode(self, key: str, state: DetectorState) -> bytes:
        threshold, detector = state.threshold.encode(), state.detector
        truth = state.truth.encode() if state.truth else b""
        return b"".join((state.pace.encode(), _LENGTH.pack(len(threshold)), threshold, _LENGTH.pack(len(truth)), truth,
                         snapshot.encode(detector) if isinstance(detector, HalfSpaceTrees) else detector.encode()))

    def decode(self, key: str, data: bytes) -> DetectorState:
        """Raises ValueError if the bytes are cut short or of another format.

        A snapshot of other settings (detectors, trees, height, window, quantile, seed) makes a new state: it warms up
        again.
        """
        pace, rest = Pace.decode(data)
        part, rest = _counted(rest)
        threshold = QuantileThreshold.decode(part)
        labels, rest = _counted(rest)
        fresh = self.new(key)
        found = _restored(fresh.detector, rest)
        if found is None or (not self.options.alarm_budget and threshold.quantile != fresh.threshold.quantile):
            return fresh
        truth = fresh.truth
        if truth is not None and labels:
            truth = Truth.decode(labels, len(truth.marks) - 1)
        return DetectorState(found, threshold, pace, truth)


def _counted(data: bytes) -> tuple[bytes, bytes]:
    """What the length in the first bytes counts, and the rest."""
    if len(data) < _LENGTH.size:
        raise ValueError("the snapshot is cut short")
    (length,) = _LENGTH.unpack_from(data)
    return data[_LENGTH.size:_LENGTH.size + length], data[_LENGTH.size + length:]


def _restored(fresh: registry.Made, data: bytes) -> registry.Made | None:
    """The detector in the bytes; None if it is of other settings than a fresh one."""
    if isinstance(fresh, Ensemble | Clocked):
        if data[:4] == snapshot.MAGIC:
            return None
        try:
            return fresh.restore(data)
        except OtherSettings:
            return None
    if data[:4] == arrays.MAGIC:
        return None
    found = snapshot.decode(data)
    same = all(getattr(found, name) == getattr(fresh, name)
               for name in ("n_trees", "height", "window", "seed", "optional"))
    return found if same else None
