"""Rules that people write: from a file, or by the API. Validated whole before any of them is in force.

    {"rules": [
      {"name": "churn-odd", "kind": "anomaly_rate", "model": "churn", "limit": 0.02, "over_s": 300},
      {"name": "drifting", "kind": "drift", "field": "feature.*", "severity": "critical"},
      {"name": "errors-99.9", "kind": "objective", "of": "errors", "target": 0.999},
      {"name": "fast-99", "kind": "objective", "of": "latency", "latency_ms": 50, "target": 0.99},
      {"name": "nightly-gone", "kind": "silence", "model": "nightly*", "after_s": 90000},
      {"name": "unsure", "kind": "cel", "when": "fields['confidence'].mean < 0.6 && count >= 20.0", "for_s": 60}]}

Objectives have burn-rate windows. Source: Beyer et al., The Site Reliability Workbook (2018), ch. 5, multiwindow,
multi-burn-rate alerts: the rate must be above the factor in the long window (it matters) and in the short one (it
still goes on). A CEL rule sees one window: count, errors, error_rate, anomalies (doubles), version, component, and
`fields`, a map of name -> {count, missing, mean, min, max, p50, p95, p99}; one that cannot be evaluated, as for a field
that is not there, does not hold.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from schemas.alerts import Pattern
from schemas.base import MAX_TEXT, Name, Severity

DAY_S = 86_400
MAX_RULES, MAX_BURNS, MAX_SOURCE = 200, 4, 1_000
#: Slices of the shortest window that a rule looks at.
SLICES = 5
_LOOPS = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
Seconds = Annotated[int, Field(ge=1, le=DAY_S)]


class _Rule(BaseModel):
    """What every rule has. Patterns: a name, the beginning of one and `*`, or empty for all."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    name: Name
    environment: Pattern = ""
    model: Pattern = ""
    component: Pattern = ""
    severity: Severity = "warning"
    for_s: Annotated[int, Field(ge=0, le=DAY_S)] = Field(
        default=0, description="It is pending until it has held so long (event time)")
    title: str = Field(default="", max_length=MAX_TEXT, description="What people read; empty: made from the rule")

    @cached_property
    def about(self) -> str:
        """A fingerprint: another rule under the same name starts anew."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def concerns(self, environment: str, model: str, component: str | None = None) -> bool:
        """True if it is about them."""
        return (matches(self.environment, environment) and matches(self.model, model)
                and (component is None or matches(self.component, component)))


class AnomalyRateRule(_Rule):
    """The share of events that scoring finds unusual."""

    kind: Literal["anomaly_rate"]
    limit: Annotated[float, Field(gt=0, lt=1)]
    over_s: Seconds = 60
    least_events: Annotated[int, Field(ge=1)] = 20


class DriftRule(_Rule):
    """Drift events of some fields, from a severity on."""

    kind: Literal["drift"]
    field: str = Field(default="", max_length=160, pattern=r"^[^*|]*\*?$")
    least: Severity = "warning"


class Burn(BaseModel):
    """How fast the error budget may go: `factor` times as fast as would use it up exactly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    long_s: Seconds
    short_s: Seconds
    factor: Annotated[float, Field(gt=0)]
    severity: Severity = "warning"

    @model_validator(mode="after")
    def _ordered(self) -> Burn:
        if self.short_s >= self.long_s:
            raise ValueError("short_s must be shorter than long_s")
        return self


BURNS = (Burn(long_s=3_600, short_s=300, factor=14.4, severity="critical"),
         Burn(long_s=21_600, short_s=1_800, factor=6.0))


class ObjectiveRule(_Rule):
    """A share of good events that is promised, and how fast what may be bad is being used up."""

    kind: Literal["objective"]
    target: Annotated[float, Field(gt=0, lt=1)]
    of: Literal["errors", "latency"] = "errors"
    latency_ms: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Slower is bad, with of=latency")
    burns: tuple[Burn, ...] = Field(default=BURNS, min_length=1, max_length=MAX_BURNS)
    least_events: Annotated[int, Field(ge=1)] = 20

    @model_validator(mode="after")
    def _whole(self) -> ObjectiveRule:
        if (self.of == "latency") != (self.latency_ms is not None):
            raise ValueError("latency_ms goes with of=latency, and only with it")
        return self


class SilenceRule(_Rule):
    """A model that must not be quiet for longer, whatever it did before."""

    kind: Literal["silence"]
    after_s: Seconds


class CelRule(_Rule):
    """A condition on a window, in the Common Expression Language."""

    kind: Literal["cel"]
    when: str = Field(min_length=1, max_length=MAX_SOURCE)

    @field_validator("when")
    @classmethod
    def _compiles(cls, source: str) -> str:
        if len(_LOOPS.findall(source)) > 1:
            raise ValueError("one all, exists, exists_one, map or filter is enough: loops within loops would hold up "
                             "the worker")
        _compiled(source)
        return source

    @cached_property
    def holds(self) -> Callable[[dict[str, Any]], bool]:
        """True for a context in which it holds; false where it cannot be evaluated."""
        program = _compiled(self.when)

        def run(context: dict[str, Any]) -> bool:
            try:
                return program.execute(context) is True
            except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError):
                return False

        return run

    @property
    def wants_quantiles(self) -> bool:
        return any(name in self.when for name in ("p50", "p95", "p99"))


def _compiled(source: str) -> Any:
    """The library comes with a first such rule: few workers have one, and it takes a second to load.

    Raises:
        ValueError: it is no CEL.
    """
    import cel
    return cel.compile(source)


Rule = Annotated[AnomalyRateRule | DriftRule | ObjectiveRule | SilenceRule | CelRule, Field(discriminator="kind")]


class RuleSet(BaseModel):
    """All rules in force, each name once."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    rules: tuple[Rule, ...] = Field(default=(), max_length=MAX_RULES)

    @model_validator(mode="after")
    def _names(self) -> RuleSet:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules have the name {', '.join(twice)}")
        return self

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(rule.name for rule in self.rules)

    def over(self, base: RuleSet) -> RuleSet:
        """These, and those of `base` whose names they do not have."""
        return RuleSet(rules=(*self.rules, *(rule for rule in base.rules if rule.name not in self.names))[:MAX_RULES])


NONE = RuleSet()
_SET = TypeAdapter(RuleSet)


def read(text: str | bytes) -> RuleSet:
    """A rule set from JSON.

    Raises:
        ValueError: it is none; the text says which rule and why.
    """
    return _SET.validate_json(text)


def matches(pattern: str, name: str) -> bool:
    """True if the name is meant."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern in ("", name)


def span_s(rule: AnomalyRateRule | ObjectiveRule) -> int:
    """How far back it looks."""
    return rule.over_s if isinstance(rule, AnomalyRateRule) else max(burn.long_s for burn in rule.burns)


def slice_ms(rule: AnomalyRateRule | ObjectiveRule, bucket_ms: int) -> int:
    """The length of a slice: a fifth of the shortest look, in whole buckets."""
    shortest = rule.over_s if isinstance(rule, AnomalyRateRule) else min(burn.short_s for burn in rule.burns)
    return max(bucket_ms, math.floor(shortest * 1000 / SLICES / bucket_ms) * bucket_ms)


def concerning(rules: Iterable[Any], environment: str, model: str) -> list[Any]:
    """Those about a model."""
    return [rule for rule in rules if rule.concerns(environment, model)]
