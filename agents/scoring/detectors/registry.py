"""Detectors by the names that settings use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.scoring.detectors.autoencoder import OnlineAutoencoder
from agents.scoring.detectors.base import RIVERS, Detector
from agents.scoring.detectors.clocked import Clocked
from agents.scoring.detectors.covariance import RobustCovariance
from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.detectors.histogram import HistogramRarity
from agents.scoring.detectors.holt_winters import HoltWinters
from agents.scoring.detectors.loda import Loda
from agents.scoring.detectors.neighbours import NearestNeighbours
from agents.scoring.detectors.online_isolation_forest import OnlineIsolationForest
from agents.scoring.detectors.tails import TailProbability
from agents.scoring.detectors.time_series import TimeSeries
from agents.scoring.detectors.trees import TreesMember

HALF_SPACE_TREES = TreesMember.name
#: Chosen by `python -m tests.bench accuracy`: the best mean ROC-AUC, and cheaper than any with a forest.
ENSEMBLE = (RobustCovariance.name, TailProbability.name, NearestNeighbours.name, HistogramRarity.name)


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """What half-space trees take: the others have constants of their own."""

    trees: int = 25
    height: int = 8
    window: int = 250


#: What a key's state may hold.
Made = HalfSpaceTrees | Ensemble | Clocked
Make = Callable[[TreeOptions, int, Sequence[str]], Detector]
REGISTRY: dict[str, Make] = {
    HALF_SPACE_TREES: lambda o, seed, optional: TreesMember(o.trees, o.height, o.window, seed, optional),
    OnlineIsolationForest.name: lambda _, seed, optional: OnlineIsolationForest(seed=seed, optional=optional),
    OnlineAutoencoder.name: lambda _, seed, optional: OnlineAutoencoder(seed, optional),
    RobustCovariance.name: lambda _, seed, optional: RobustCovariance(seed, optional),
    TailProbability.name: lambda _, seed, optional: TailProbability(seed, optional),
    NearestNeighbours.name: lambda _, seed, optional: NearestNeighbours(seed, optional),
    HistogramRarity.name: lambda _, seed, optional: HistogramRarity(seed, optional),
    Loda.name: lambda _, seed, optional: Loda(seed, optional),
}
#: Detectors of series: each works alone.
SERIES: dict[str, type[Clocked]] = {kind.name: kind for kind in (TimeSeries, HoltWinters)}


def member(name: str, seed: int = 42, optional: Sequence[str] = (), options: TreeOptions | None = None) -> Detector:
    """One detector by its name.

    Raises:
        ValueError: there is no such detector; the text lists those there are.
    """
    if name.startswith(RIVERS):
        from agents.scoring.detectors.adapter import RiverDetector  # 80 MB, and most of a second

        return RiverDetector(name, seed, optional)
    if name not in REGISTRY:
        raise ValueError(f"{name!r} is no detector: choose from {', '.join((*REGISTRY, *SERIES))}, or {RIVERS}NAME for "
                         "River's")
    return REGISTRY[name](options or TreeOptions(), seed, optional)


def make(names: Sequence[str] = ENSEMBLE, seed: int = 42, optional: Sequence[str] = (),
         options: TreeOptions | None = None) -> Made:
    """The detector of the names: half-space trees and detectors of series alone as they are, else an ensemble.

    "ensemble" stands for the default one. Raises ValueError as `member`.
    """
    options = options or TreeOptions()
    names = [each for name in names for each in (ENSEMBLE if name == Ensemble.name else (name,))]
    if not names or len(set(names)) < len(names):
        raise ValueError("name at least one detector, and each once")
    for name in set(names) & SERIES.keys():
        if len(names) > 1:
            raise ValueError(f"{name} works alone: choose it, or the others")
        return SERIES[name](seed, optional)
    if names == [HALF_SPACE_TREES]:
        return HalfSpaceTrees(options.trees, options.height, options.window, seed, optional)
    return Ensemble([member(name, seed, optional, options) for name in names], seed, optional)
