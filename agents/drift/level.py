"""What a watch remembers and tells; and when a new level began, from the points that belong to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from agents.drift import gathered
from agents.drift.memory import Past
from agents.drift.reference import WARM_BYTES, Point, Reference, Warm, packed
from agents.drift.season import Usual
from schemas.drift import DriftReference

#: The detector of a new version against the incumbent's reference.
INCUMBENT = "incumbent"
#: And against its own profile from training, over a whole warm-up.
PROFILE = "profile"
#: Log likelihood below the largest within which a change may have begun.
UNSURE = 3.0

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


def kept(sketch: Sequence[tuple[int, int]]) -> msgspec.Raw:
    """A sketch as it is kept and written: a few bytes a bucket, where a pair of numbers takes about 100."""
    return msgspec.Raw(_encode(sketch)) if sketch else NO_PAIRS


def pairs(sketch: msgspec.Raw) -> list[tuple[int, int]]:
    """A sketch that was kept; raises ValueError if it is damaged."""
    try:
        return _decode(sketch)
    except msgspec.MsgspecError as error:
        raise ValueError(f"a sketch is damaged: {error}") from None


NO_PAIRS = msgspec.Raw(_encode([]))


class Change(NamedTuple):
    """A drift that begins or ends. `onset_ms`: start of the first point of the new level.

    `after_sketch` is of points since the evidence began to grow, and empty where that was too quick. `reference` is
    where it moved from.
    """

    state: Literal["drifted", "recovered"]
    before: float
    after: float
    scale: float
    onset_ms: int
    start_ms: int
    detected_ms: int
    windows: int
    detector: str
    large: bool
    onset_low_ms: int
    onset_high_ms: int
    agreeing: tuple[str, ...] = ()
    before_sketch: Sequence[tuple[int, int]] = ()
    after_sketch: Sequence[tuple[int, int]] = ()
    reference: DriftReference = "stable_window"


class Onset(NamedTuple):
    """When a new level began, between which moments (about 95%), and the windows and events since."""

    at_ms: int
    low_ms: int
    high_ms: int
    windows: int
    n: int


class Step(msgspec.Struct, array_like=True, frozen=True):
    """A point that may belong to a new level."""

    start_ms: int
    windows: int
    n: int
    mean: float
    watched: float


NOWHERE = Step(0, 0, 1, 0.0, 0.0)


class WatchState(msgspec.Struct, array_like=True):
    """All that a watch remembers. `direction` is 0 while stable, else where the drift went.

    `least`: the change that a drift now under way counts as, if it is a smaller one than the effect's; else 0.
    `warm` is packed (it once was written point by point). `sketch`, pairs of code and count, is of the reference, and
    mostly only kept: so it stays encoded. `gathered` is of the points of a warm-up, or of a suspicion: packed (it
    once was written as code -> count). `cause` of a drift, and where it went: `after` through the lens, `after_raw` in
    the field's unit. `source`: the profile from training that the reference is of, else empty.
    """

    reference: Reference | None = None
    inherited: bool = False
    warm: bytes | list[Warm] = b""
    warm_ms: int = 0
    tries: int = 0
    up: float = 0.0
    down: float = 0.0
    run: list[Step] = []
    slow: float = 0.0
    slow_raw: float = 0.0
    moved: bool = False
    direction: int = 0
    back: float = 0.0
    seen: int = 0
    since_ms: int = 0
    occurred_ms: int = 0
    complete: int = 0
    past: Past = msgspec.field(default_factory=Past)
    least: float = 0.0
    sketch: msgspec.Raw = NO_PAIRS
    gathered: bytes | dict[int, int] = b""
    cause: str = ""
    after: float = 0.0
    after_raw: float = 0.0
    usual: Usual = msgspec.field(default_factory=Usual)
    source: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError if a part is damaged."""
        if isinstance(self.warm, list):
            self.warm = packed(self.warm)
        if isinstance(self.gathered, dict):
            self.gathered = gathered.of_dict(self.gathered)
        if len(self.warm) % WARM_BYTES or len(self.gathered) % gathered.PAIR_BYTES:
            raise ValueError(f"a warm-up has {len(self.warm)} bytes, {WARM_BYTES} a point; its sketch "
                             f"{len(self.gathered)}, {gathered.PAIR_BYTES} a pair")
        if self.sketch is not NO_PAIRS:             # a copy, as it may be a view of a whole snapshot
            self.sketch = self.sketch.copy() if pairs(self.sketch) else NO_PAIRS

    @property
    def of(self) -> DriftReference:
        """What the reference is of."""
        return "profile" if self.source else "incumbent" if self.inherited else "stable_window"


def step_of(point: Point) -> Step:
    return Step(point.start_ms, point.windows, point.n, point.mean, point.watched)


def onset_of(gains: list[float]) -> int:
    """Where the suffix with the largest sum begins: the likeliest change point."""
    best, at, total = -math.inf, 0, 0.0
    for i in range(len(gains) - 1, -1, -1):
        total += gains[i]
        if total > best:
            best, at = total, i
    return at


def level_of(run: list[Step]) -> float:
    return math.fsum(step.n * step.watched for step in run) / sum(step.n for step in run)


def raw_level_of(run: list[Step]) -> float:
    return math.fsum(step.n * step.mean for step in run) / sum(step.n for step in run)


def interval_of(steps: list[Step], moved: list[float], by: float, variance: float) -> tuple[int, int]:
    """Starts of the first and the last step at which a change of this size may have begun.

    Those whose log likelihood is within `UNSURE` of the largest. Source: Siegmund, Confidence sets in change-point
    problems, Int. Stat. Rev. 56 (1988).
    """
    sums, total = [0.0] * len(steps), 0.0
    for i in range(len(steps) - 1, -1, -1):
        total += by * steps[i].n * (moved[i] - by / 2) / variance
        sums[i] = total
    likely = [i for i, found in enumerate(sums) if found >= max(sums) - UNSURE]
    return steps[likely[0]].start_ms, steps[likely[-1]].start_ms
