"""`python -m agents.warm`: compile every kernel that a worker with the present settings needs, into numba's cache.

A worker does so itself before it joins its group. Done when it is installed, no first start has to wait for it.
"""

from __future__ import annotations

from agents.aggregation import projection
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.drift.engine import DriftEngine
from agents.drift.joint import JointEngine
from agents.scoring.engine import ScoringEngine, ScoringOptions
from streams.batch import Decoder
from streams.settings import Settings, settings
from streams.windows import packed
from streams.windows.written import written


def warm(configured: Settings) -> None:
    """Compile, or load from the cache."""
    Decoder().warm()
    ScoringEngine(ScoringOptions.from_settings(configured)).warm()
    DriftEngine().warm()
    JointEngine().warm()
    AggregationEngine(AggregationOptions.from_settings(configured), written).warm()
    projection.warm()
    packed.warm()


if __name__ == "__main__":
    warm(settings())
