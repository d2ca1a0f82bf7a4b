"""What a version's inputs and outputs were like at training: its profile, in plain JSON, within `lifecycle-events`.

Numbers have `mean` and `sd`, or how they are distributed (`quantiles` or `histogram`, from which both are then taken),
or best of all the three. Classes have their shares or counts. A field has numbers or classes, not both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from schemas.base import MAX_FEATURES, Category, Contract, FieldName, Finite, Share, Text

MAX_ROWS = 10**12
MAX_QUANTILES, MAX_BINS, MAX_BUCKETS, MAX_CLASSES = 101, 256, 1_024, 256
#: Codes of a sketch's buckets lie within this.
MAX_CODE = 131_000

Weight = Annotated[float, Field(strict=True, ge=0.0, le=MAX_ROWS, allow_inf_nan=False)]
Spread = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Code = Annotated[int, Field(strict=True, ge=-MAX_CODE, le=MAX_CODE)]
Bucket = tuple[Code, Annotated[int, Field(strict=True, ge=1, le=MAX_ROWS)]]


class Histogram(Contract):
    """Bin i is [edges[i], edges[i + 1]), the last one with its end."""

    edges: list[Finite] = Field(min_length=2, max_length=MAX_BINS + 1, description="Ascending; one more than counts")
    counts: list[Weight] = Field(min_length=1, max_length=MAX_BINS)

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"a histogram of {len(self.counts)} bins has {len(self.counts) + 1} edges, "
                             f"not {len(self.edges)}")
        if any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError("the edges of a histogram ascend")
        if not sum(self.counts):
            raise ValueError("a histogram holds something: all its counts are 0")
        return self


class FieldProfile(Contract):
    """A field's values, nulls apart."""

    missing_share: Share = Field(default=0.0, description="Of rows: null, or not there")
    mean: Finite | None = None
    sd: Spread | None = Field(default=None, description="Standard deviation")
    quantiles: list[tuple[Share, Finite]] = Field(
        default_factory=list, max_length=MAX_QUANTILES,
        description="(probability, value), both ascending: [[0.01, 3.2], [0.5, 17], [0.99, 80]]")
    histogram: Histogram | None = None
    sketch: list[Bucket] = Field(
        default_factory=list, max_length=MAX_BUCKETS,
        description="As in windows: (bucket, count), ascending; beside mean and sd")
    classes: dict[Category, Weight] = Field(default_factory=dict, max_length=MAX_CLASSES,
                                            description="Class -> its share, or its count")

    @property
    def is_distributed(self) -> bool:
        """True if it says how its numbers are distributed."""
        return bool(self.quantiles or self.histogram or self.sketch)

    @model_validator(mode="after")
    def _says_one_thing(self) -> FieldProfile:
        numbers = self.is_distributed or self.mean is not None or self.sd is not None
        if numbers and self.classes:
            raise ValueError("a field has numbers or classes: leave mean, sd and distribution out, or classes")
        if not numbers and not self.classes and self.missing_share < 1.0:
            raise ValueError("say what its values are: mean and sd, quantiles, histogram, sketch, or classes")
        if numbers and not self.is_distributed and (self.mean is None or self.sd is None):
            raise ValueError("numbers without a distribution need both mean and sd")
        if (self.mean is None) != (self.sd is None):
            raise ValueError("mean and sd come together")
        if self.sketch and self.mean is None:
            raise ValueError("a sketch comes with mean and sd: its buckets are 1% wide, which may be more than the sd")
        if sum(map(bool, (self.quantiles, self.histogram, self.sketch))) > 1:
            raise ValueError("one of quantiles, histogram and sketch is enough: send the finest")
        if self.classes and not sum(self.classes.values()):
            raise ValueError("classes: all shares are 0")
        self._ascends()
        return self

    def _ascends(self) -> None:
        if len(self.quantiles) == 1:
            raise ValueError("quantiles: send two at least")
        if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(self.quantiles)):
            raise ValueError("quantiles ascend, by probability and by value")
        if any(b[0] <= a[0] for a, b in pairwise(self.sketch)):
            raise ValueError("the buckets of a sketch ascend, each once")


class Profile(Contract):
    """Of all rows that a version was trained on, or of a sample of them."""

    rows: Annotated[int, Field(strict=True, ge=1, le=MAX_ROWS)] = Field(description="How many rows it rests on")
    features: dict[FieldName, FieldProfile] = Field(
        default_factory=dict, max_length=MAX_FEATURES, description="By the feature's name in telemetry")
    prediction: FieldProfile | None = Field(default=None, description="What it predicts: classes, or numbers")
    confidence: FieldProfile | None = Field(default=None, description="Of its predictions on rows it has not seen")
    source: Text = Field(default="", description="Where the rows came from, for people")

    @model_validator(mode="after")
    def _says_something(self) -> Profile:
        if not self.features and self.prediction is None and self.confidence is None:
            raise ValueError("an empty profile: send features, prediction or confidence")
        return self
