"""What scoring keeps per key: a detector and the threshold over its scores."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agents.scoring.detectors import snapshot
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees, seed_of
from agents.scoring.threshold import QuantileThreshold
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

    @classmethod
    def from_settings(cls, settings: Settings) -> ScoringOptions:
        return cls(settings.hst_trees, settings.hst_height, settings.hst_window, settings.threshold_quantile,
                   settings.seed)


@dataclass(slots=True, eq=False)
class DetectorState:
    """One key's detector."""

    detector: HalfSpaceTrees
    threshold: QuantileThreshold


class DetectorCodec:
    """`streams.state.keyed.Codec` of `DetectorState`: the threshold's length (uint32), threshold, detector."""

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options

    def new(self, key: str) -> DetectorState:
        options = self.options
        detector = HalfSpaceTrees(options.trees, options.height, options.window, seed_of(options.seed, key),
                                  optional=(CONFIDENCE,))
        return DetectorState(detector, QuantileThreshold(options.threshold_quantile))

    def encode(self, key: str, state: DetectorState) -> bytes:
        threshold = state.threshold.encode()
        return _LENGTH.pack(len(threshold)) + threshold + snapshot.encode(state.detector)

    def decode(self, key: str, data: bytes) -> DetectorState:
        """Raises ValueError if the bytes are cut short or of another format.

        A snapshot of other settings (trees, height, window, quantile, seed) makes a new state: it warms up again.
        """
        if len(data) < _LENGTH.size:
            raise ValueError("the snapshot is cut short")
        (length,) = _LENGTH.unpack_from(data)
        threshold = QuantileThreshold.decode(data[_LENGTH.size:_LENGTH.size + length])
        detector = snapshot.decode(data[_LENGTH.size + length:])
        fresh = self.new(key)
        same = all(getattr(detector, name) == getattr(fresh.detector, name)
                   for name in ("n_trees", "height", "window", "seed", "optional"))
        if not same or threshold.quantile != fresh.threshold.quantile:
            return fresh
        return DetectorState(detector, threshold)
