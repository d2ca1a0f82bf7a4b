"""What is asked about windows, and which granularity answers it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from schemas.windows import COMMON

Key = Literal["environment", "model", "version", "component", "segment"]
GROUPS: tuple[Key, ...] = get_args(Key)
KEYS = GROUPS[:4]
#: Which part of the hierarchy a point is of, and whose windows tell it; see `read_as`.
Level = Literal["component", "version", "model", "environment", "fleet", "segment", "labels"]
Statistic = Literal["count", "missing", "sum", "mean", "std", "min", "max"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
#: Of these people ask unless they say otherwise; `sum` only if they do.
USUAL_STATISTICS: tuple[Statistic, ...] = ("count", "missing", "mean", "std", "min", "max")
USUAL_QUANTILES = (0.5, 0.95, 0.99)
#: In place of an environment or a model: all of them.
ANY = "*"
MOST_FIELDS, MOST_QUANTILES = 64, 16
#: Steps that a sliding point may tell of.
MOST_SLIDING = 1_000
_QUANTILE = re.compile(r"0?\.[0-9]{1,6}|0|1|1\.0{1,6}")


class QuestionError(ValueError):
    """A question that makes no sense; the text says what would."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """Windows that begin in [from_ms, to_ms), by step and group. Empty filters and fields are all there are."""

    environment: str
    model: str
    from_ms: int
    to_ms: int
    #: Of the windows that are read; `step_ms` is a multiple of it.
    size_ms: int
    step_ms: int
    group_by: tuple[Key, ...]
    version: str = ""
    component: str = ""
    fields: tuple[str, ...] = ()
    #: Counts and errors only; the fields are not looked at.
    no_fields: bool = False
    statistics: tuple[Statistic, ...] = USUAL_STATISTICS
    quantiles: tuple[float, ...] = USUAL_QUANTILES
    #: Whoever asks has said which granularity or step.
    fixed: bool = False
    #: Whose windows are read: of the series if empty, else as `schemas.windows.Level`.
    level: str = ""
    #: KEY, or KEY=VALUE, of windows of segments.
    segment: str = ""
    #: Each point tells of so much time up to its step's end, a multiple of `step_ms`; 0: of its step.
    sliding_ms: int = 0
    #: Points are sessions: times with events, without any for so long between them; 0: they are steps.
    session_gap_ms: int = 0

    @property
    def reading(self) -> Question:
        """The question with the span of the windows that it needs."""
        return replace(self, from_ms=max(0, self.from_ms - max(0, self.sliding_ms - self.step_ms)))

    @property
    def filters(self) -> dict[Key, str]:
        """Which keys must have which value."""
        asked: dict[Key, str] = {"environment": self.environment, "model": self.model, "version": self.version,
                                 "component": self.component}
        return {key: value for key, value in asked.items() if value not in ("", ANY)}


def grouped(level: Level | None, environment: str, model: str) -> tuple[Key, ...]:
    """The keys that points of a level are told apart by, unless somebody says otherwise."""
    of_level: dict[Level, tuple[Key, ...]] = {"component": KEYS, "version": KEYS[:3], "model": KEYS[:2],
                                              "environment": KEYS[:1], "fleet": (), "segment": (*KEYS[:2], "segment")}
    usual = KEYS[:2] if ANY in (environment, model) else KEYS[2:]
    return usual if level is None else of_level.get(level, usual)


def read_as(question: Question, level: Level | None, common: bool) -> Question:
    """The question with the windows that answer it: those of a series add up to every level above it.

    Environments and the fleet have windows of their own (`common`), with less to add up; they hold what all models have
    in common. Where more is asked, the series' windows tell.

    Raises:
        QuestionError: it asks for segments at a level that has none, or for a level of segments without a key.
    """
    if level == "segment" and not question.segment:
        raise QuestionError("bad_segment", "level=segment takes `segment`: a key, or KEY=VALUE")
    if level != "segment" and (question.segment or "segment" in question.group_by):
        raise QuestionError("bad_segment", "`segment`, and to group by it, belong to level=segment")
    if level == "labels":
        return replace(question, level="labels", fields=(), no_fields=False)
    if level == "segment":
        return replace(question, level="segment")
    above = level in ("environment", "fleet") and common and set(question.group_by) <= {"environment"}
    if above and set(question.fields) <= COMMON and not set(question.filters) - {"environment"}:
        return replace(question, level="environment")
    return question


def granularity(sizes_ms: Sequence[int], span_ms: int, points: int, size_ms: int | None = None,
                step_ms: int | None = None) -> tuple[int, int]:
    """(size, step): the coarsest windows that answer. `sizes_ms` ascend.

    Without a wish, the coarsest that still gives `points` points over the span; with a step, the coarsest that divides
    it.

    Raises:
        QuestionError: there are no windows of that size, or none whose multiple the step is.
    """
    known = ", ".join(map(str, sizes_ms))
    if size_ms is not None and size_ms not in sizes_ms:
        raise QuestionError("no_such_granularity", f"granularity_ms is one of {known}")
    if step_ms is not None:
        fitting = [size for size in sizes_ms if step_ms % size == 0 and size_ms in (None, size)]
        if not fitting or step_ms <= 0:
            raise QuestionError("bad_step", f"step_ms is a multiple of a granularity: {size_ms or known}")
        return fitting[-1], step_ms
    if size_ms is None:
        fitting = [size for size in sizes_ms if span_ms >= points * size]
        size_ms = fitting[-1] if fitting else sizes_ms[0]
    return size_ms, size_ms


def viewed(question: Question, sliding_ms: int | None, session_gap_ms: int | None) -> Question:
    """The question with points that overlap, or are sessions.

    Raises:
        QuestionError: it asks for both, or for what the windows cannot tell.
    """
    if sliding_ms is not None and session_gap_ms is not None:
        raise QuestionError("bad_view", "points are sliding or sessions, not both")
    if sliding_ms is not None and not (sliding_ms % question.step_ms == 0
                                       and 0 < sliding_ms <= MOST_SLIDING * question.step_ms):
        raise QuestionError("bad_view", f"sliding_ms is a multiple of the step ({question.step_ms} ms), up to "
                                        f"{MOST_SLIDING} times it")
    if session_gap_ms is not None and session_gap_ms < question.size_ms:
        raise QuestionError("bad_view", f"session_gap_ms is at least the granularity: {question.size_ms} ms")
    return replace(question, sliding_ms=sliding_ms or 0, session_gap_ms=session_gap_ms or 0)


def aligned(from_ms: int, to_ms: int, step_ms: int) -> tuple[int, int]:
    """The span widened to whole steps.

    Raises:
        QuestionError: it is empty.
    """
    if to_ms <= from_ms:
        raise QuestionError("empty_span", "`from` must lie before `to`")
    return from_ms - from_ms % step_ms, to_ms + -to_ms % step_ms


def chosen(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """The names in a comma-separated list, each once, in the order of `known`; `none` is none.

    Raises:
        QuestionError: one is unknown.
    """
    asked = {part.strip() for part in text.split(",")} - {"", "none"}
    if not asked <= set(known):
        raise QuestionError(f"bad_{what}", f"{what} is a comma-separated list of {', '.join(known)}; or none")
    return tuple(name for name in known if name in asked)


def quantiles(text: str) -> tuple[float, ...]:
    """The numbers in a comma-separated list; `none` is none.

    Raises:
        QuestionError: one is no number from 0 to 1.
    """
    parts = [part.strip() for part in text.split(",") if part.strip() not in ("", "none")]
    if len(parts) > MOST_QUANTILES or not all(_QUANTILE.fullmatch(part) for part in parts):
        raise QuestionError("bad_quantiles", f"quantiles are up to {MOST_QUANTILES} numbers from 0 to 1: 0.5,0.99")
    return tuple(sorted({float(part) for part in parts}))


@lru_cache(maxsize=256)
def label(quantile: float) -> str:
    """p50 of 0.5, p99.9 of 0.999."""
    return f"p{quantile * 100:.4f}".rstrip("0").rstrip(".")
