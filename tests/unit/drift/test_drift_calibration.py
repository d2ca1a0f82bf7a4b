"""Calibration, from late labels that come with the confidence of the prediction."""

from __future__ import annotations

import random

from drift_world import ORIGIN_MS, World

from agents.drift.performance import PerformanceEngine
from schemas.telemetry import Feedback

CALM, LABELS = 1_500, 3_000


def labels(confidence: float | None, later: float | None, version: str = "1", seed: int = 1) -> list[Feedback]:
    """A fifth of predictions wrong, all along; the confidence is another from the middle on."""
    rng = random.Random(seed)
    return [Feedback(event_id=f"e{i}", ts=ORIGIN_MS + i * 1_000, environment="prod", model="m", version=version,
                     prediction="yes", label="no" if rng.random() < 0.2 else "yes",
                     confidence=confidence if i < CALM else later) for i in range(LABELS)]


def test_confidence_that_is_no_longer_earned_is_told_though_errors_are_as_they_were() -> None:
    [event] = World(PerformanceEngine()).give(labels(0.8, 0.98))
    assert (event.kind, event.field, event.statistic, event.state) == ("performance", "calibration", "mean", "drifted")
    assert abs(event.before) < 0.05 and abs(event.after - (0.8 - 0.98)) < 0.08
    assert event.onset_low_ms is not None and event.onset_high_ms is not None
    assert event.onset_low_ms - 60_000 <= ORIGIN_MS + CALM * 1_000 <= event.onset_high_ms + 60_000
    assert event.ranked[0].field == "calibration[version=1]"


def test_too_little_confidence_is_told_as_well() -> None:
    [event] = World(PerformanceEngine()).give(labels(0.8, 0.6))
    assert event.field == "calibration" and event.after > event.before + 0.1


def test_confidence_that_stays_as_wrong_as_it_was_is_no_drift() -> None:
    assert World(PerformanceEngine()).give(labels(0.99, 0.99)) == []


def test_labels_without_a_confidence_or_of_numbers_say_nothing_of_it() -> None:
    assert World(PerformanceEngine()).give(labels(None, None)) == []
    numbers = [label.model_copy(update={"prediction": 1.0, "label": 1.5, "confidence": 0.5 if i < CALM else 0.9})
               for i, label in enumerate(labels(0.5, 0.9))]
    assert World(PerformanceEngine()).give(numbers) == []


def test_restarts_change_nothing() -> None:
    messages = labels(0.8, 0.98)
    whole, world, found = World(PerformanceEngine()).give(messages), World(PerformanceEngine()), []
    for at in range(0, LABELS, 70):
        found += world.give(messages[at:at + 70])
        world.restart()
    assert found == whole != []
