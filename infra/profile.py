"""A file's rows as a profile of training: what each column is like, in one pass and bounded memory.

A column is numbers or classes, whichever it has more of; what is neither, and numbers that are not finite, are missing.
Booleans are numbers, as in telemetry, but classes where they are predicted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agents.drift.distance import coarse
from infra.detect.table import LABEL_NAMES
from infra.replay.mapping import TIME_NAMES
from infra.replay.sources import Source, SourceError, is_number, open_source
from schemas.base import MAX_FEATURES
from schemas.profiles import MAX_CLASSES, FieldProfile, Profile
from streams.windows import sampling, summary
from streams.windows.layout import OTHER
from streams.windows.sketches import Sketches

#: Buckets of a column's distribution; values that are gathered before they are added up; texts that are told apart.
BUCKETS, MANY, MOST_TEXTS = 64, 4_096, 20_000
EVERY_ROWS = 2_000
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user said about the columns. Empty: find out, or not there."""

    features: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    prediction: str = ""
    confidence: str = ""
    classes: bool = False
    array: str | None = None


@dataclass(slots=True)
class Made:
    """A profile, and what people should know of how it was made."""

    profile: Profile
    notes: list[str]


@dataclass(slots=True)
class _Column:
    """One column so far. `outcome`: of predictions, whose booleans are classes; `classes`: so are its numbers."""

    outcome: bool = False
    classes: bool = False
    table: summary.FloatArray = field(default_factory=lambda: summary.empty_rows(1))
    sketches: Sketches = field(default_factory=Sketches)
    waiting: list[float] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)
    other: int = 0

    def add(self, value: object) -> None:
        """Take in a value of a row; None and empty text are missing."""
        if value is None or value == "":
            return
        if isinstance(value, bool) and self.outcome:
            self._text(str(value).lower())
        elif (isinstance(value, bool) or is_number(value)) and not self.classes:
            number = float(value)       # type: ignore[arg-type]
            if math.isfinite(number):
                self.waiting.append(number)
                if len(self.waiting) >= MANY:
                    self._count()
        else:
            self._text(str(value)[:_LONGEST])

    def _text(self, value: str) -> None:
        if value in self.texts or len(self.texts) < MOST_TEXTS:
            self.texts[value] += 1
        else:
            self.other += 1

    def _count(self) -> None:
        values, zeros = np.array(self.waiting), np.zeros(len(self.waiting), np.int64)
        keys = np.empty(len(values), np.int32)
        summary.accumulate(self.table, zeros[:1], zeros[:1], zeros, values, keys, zeros[:1].copy(), sampling.NEVER,
                           np.empty((0, 3), np.int64), zeros[:1].copy())
        self.sketches.add(keys)
        self.waiting.clear()

    def field(self, name: str, rows: int, notes: list[str]) -> FieldProfile | None:
        """What the column is like; None, and a note, where that says nothing."""
        if self.waiting:
            self._count()
        numbers, texts = int(self.table[0, summary.COUNT]), self.texts.total() + self.other
        present = max(numbers, texts)
        missing = (rows - present) / rows
        if min(numbers, texts):
            kind = "numbers" if numbers < texts else "texts"
            notes.append(f"{name}: {min(numbers, texts):,} {kind} among the others count as missing")
        if not present:
            return FieldProfile(missing_share=1.0)
        if numbers >= texts:
            found = sketch_of(self.sketches)
            mean, m2 = float(self.table[0, summary.MEAN]), float(self.table[0, summary.M2])
            if not (math.isfinite(mean) and math.isfinite(m2)):
                notes.append(f"{name}: left out, its numbers are too large to add up")
                return None
            return FieldProfile(missing_share=missing, mean=mean, sd=math.sqrt(m2 / numbers), sketch=found)
        return self._classes(name, missing, texts, notes)

    def _classes(self, name: str, missing: float, total: int, notes: list[str]) -> FieldProfile | None:
        most = dict(self.texts.most_common(MAX_CLASSES if len(self.texts) <= MAX_CLASSES else MAX_CLASSES - 1))
        rest = total - sum(most.values())
        if rest > total / 2:
            notes.append(f"{name}: left out, it has {len(self.texts):,} different texts or more: an id?")
            return None
        weights = most | ({OTHER: most.get(OTHER, 0) + rest} if rest else {})
        return FieldProfile(missing_share=missing, classes={value: float(count) for value, count in weights.items()})


def sketch_of(found: Sketches) -> list[tuple[int, int]]:
    """Its first slot, in `BUCKETS` buckets at most."""
    return coarse(found.by_slot(1)[0], BUCKETS)


def make(path: Path, choice: Choice, tell: Callable[[int, int], None] = lambda done, total: None) -> Made:
    """The profile of a file; `tell` is called with rows read and about how many there are.

    Raises:
        SourceError: it cannot be read, or has no such column, or no row.
    """
    source = open_source(path, choice.array)
    notes: list[str] = []
    features = _features(source, choice, notes)
    columns = {name: _Column() for name in features}
    outcome, confidence = _Column(outcome=True, classes=choice.classes), _Column()
    rows = bad = 0
    for row in source.read():
        if row.number % EVERY_ROWS == 0:
            tell(row.number, source.count)
        if row.values is None:
            bad += 1
            continue
        rows += 1
        for name, column in columns.items():
            column.add(row.values.get(name))
        if choice.prediction:
            outcome.add(row.values.get(choice.prediction))
        if choice.confidence:
            confidence.add(row.values.get(choice.confidence))
    if not rows:
        raise SourceError(f"{path} has no row to make a profile of")
    if bad:
        notes.append(f"{bad:,} rows that cannot be read are left out")
    fields = {name: column.field(name, rows, notes) for name, column in columns.items()}
    return Made(Profile(
        rows=rows, features={name: found for name, found in fields.items() if found is not None},
        prediction=outcome.field(choice.prediction, rows, notes) if choice.prediction else None,
        confidence=confidence.field(choice.confidence, rows, notes) if choice.confidence else None,
        source=path.name[:200]), notes)


def _features(source: Source, choice: Choice, notes: list[str]) -> Sequence[str]:
    named = {*choice.features, *choice.leave_out, *filter(None, (choice.prediction, choice.confidence))}
    unknown = sorted(named - set(source.columns))
    if unknown:
        raise SourceError(f"{source.path} has no column {', '.join(unknown)}; it has {', '.join(source.columns[:20])}")
    found = choice.features
    if not found:
        used = {choice.prediction, choice.confidence, *choice.leave_out}
        other = [name for name in source.columns if name not in used and name.lower() in (*TIME_NAMES, *LABEL_NAMES)]
        if other:
            notes.append(f"taken for times or labels, and left out: {', '.join(other)} (--columns says otherwise)")
        found = tuple(name for name in source.columns if name not in used and name not in other)
    long = [name for name in found if len(name) > _LONGEST]
    if long or len(found) > MAX_FEATURES:
        raise SourceError(f"{len(found)} columns: a model has {MAX_FEATURES} features at most, with names of up to "
                          f"{_LONGEST} characters; choose some with --columns")
    return found
