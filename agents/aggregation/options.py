"""What can be set about aggregation."""

from __future__ import annotations

from dataclasses import dataclass

from streams.settings import SKETCH_VALUES, Settings
from streams.windows.layout import MAX_CATEGORIES, MAX_FIELDS


@dataclass(frozen=True, slots=True)
class AggregationOptions:
    """Milliseconds throughout; granularities ascend, each dividing the next.

    sketch_values: as `Settings.sketch_values`; 0: all.
    amend_ms: as `Settings.amend_ms`.
    judged_ms: the windows by whose end, grace included, an event is too late; 0: those of the finest granularity.
    """

    granularities_ms: tuple[int, ...] = (1_000, 10_000, 60_000)
    delay_ms: int = 1_000
    grace_ms: int = 30_000
    idle_ms: int = 2_000
    amend_ms: int = 0
    max_fields: int = MAX_FIELDS
    max_categories: int = MAX_CATEGORIES
    judged_ms: int = 0
    sketch_values: int = SKETCH_VALUES

    @classmethod
    def from_settings(cls, settings: Settings) -> AggregationOptions:
        return cls(settings.granularities_ms, settings.watermark_delay_ms, settings.grace_ms, settings.idle_ms,
                   settings.amend_ms, settings.max_fields, sketch_values=settings.sketch_values)
