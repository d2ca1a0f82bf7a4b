"""Windows of several sizes and two stores tell every event once, wherever the stores have got to."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.api.asking.join import Line, Part, joined
from dashboards.api.asking.question import Question, QuestionError, aligned, chosen, granularity, label, quantiles
from dashboards.api.asking.stored import Known, rows_for

SIZES = (1_000, 10_000, 60_000, 600_000)
DOWN = SIZES[::-1]
RING = 8
LINE = Line("prod", "churn", "3", "model", 0)

Stamp = tuple[int, int]     # end, size: the order in which windows are published


def windows(events_ms: list[int], line: Line = LINE) -> list[Part]:
    """All windows of these events, in the order in which they are published."""
    counts = Counter((size, at - at % size) for at in events_ms for size in SIZES)
    found = [Part(line, size, start, many, 0, 0, {}) for (size, start), many in counts.items()]
    return sorted(found, key=lambda part: (part.start_ms + part.size_ms, part.size_ms))


def ends(parts: list[Part]) -> dict[tuple[Line, int], int]:
    found: dict[tuple[Line, int], int] = {}
    for part in parts:
        key = (part.line, part.size_ms)
        found[key] = max(found.get(key, -1), part.start_ms + part.size_ms)
    return found


def ring(parts: list[Part]) -> list[Part]:
    """What the rings hold after these windows."""
    slots: dict[tuple[Line, int, int], Part] = {}
    for part in parts:
        slots[part.line, part.size_ms, part.start_ms // part.size_ms % RING] = part
    return list(slots.values())


def total(parts: list[Part]) -> int:
    return sum(part.count for part in parts)


some_events = st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(some_events, st.data())
def test_whatever_the_stores_have_seen_every_event_is_told_once(events_ms: list[int], data: st.DataObject) -> None:
    published = windows(events_ms)
    in_history = data.draw(st.integers(1, len(published)))
    in_ring = data.draw(st.integers(0, len(published)))
    size = data.draw(st.sampled_from(SIZES))
    down = [one for one in DOWN if one <= size]
    history, recent = published[:in_history], ring(published[:in_ring])
    both = joined(history, recent, ends(history), down, RING)
    # What is known is a prefix of what was published: all events before the newest known end of some size.
    known = [at for at in events_ms if at < both.known_to_ms]
    assert total(both.parts) == len(known)
    spans = sorted((part.start_ms, part.start_ms + part.size_ms) for part in both.parts)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans)), "no moment is told twice"
    finest_end = max((end for (_, one), end in ends(history).items() if one in down), default=-1)
    assert both.known_to_ms >= finest_end, "Redis never takes away what the history knows"


@settings(max_examples=150, deadline=None)
@given(some_events, st.randoms(use_true_random=False), st.data())
def test_windows_that_come_late_are_never_told_twice_and_told_in_the_end(events_ms: list[int], rng: random.Random,
                                                                        data: st.DataObject) -> None:
    published = windows(events_ms)
    rng.shuffle(published)
    size = data.draw(st.sampled_from(SIZES))
    down = [one for one in DOWN if one <= size]
    history = published[:data.draw(st.integers(1, len(published)))]
    recent = ring(published[:data.draw(st.integers(0, len(published)))])
    both = joined(history, recent, ends(history), down, RING)
    spans = sorted((part.start_ms, part.start_ms + part.size_ms) for part in both.parts)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    whole = joined(published, recent, ends(published), down, RING)
    assert total(whole.parts) == len(events_ms)


def test_a_ring_that_is_up_to_date_moves_the_end_on() -> None:
    published = [part for part in windows(list(range(0, 100_000, 500))) if part.start_ms + part.size_ms <= 100_000]
    history = [part for part in published if part.start_ms + part.size_ms <= 95_000]
    both = joined(history, ring(published), ends(history), DOWN, RING)
    assert both.known_to_ms == 100_000
    assert total(both.parts) == 200


def test_a_ring_that_does_not_reach_back_is_left_aside() -> None:
    published = windows(list(range(0, 100_000, 500)))
    history = [part for part in published if part.start_ms + part.size_ms <= 40_000]
    both = joined(history, [part for part in ring(published) if part.size_ms == 1_000], ends(history), DOWN, RING)
    assert both.known_to_ms == 40_000
    assert total(both.parts) == 80


def test_the_newer_copy_of_a_window_is_taken_from_either_store() -> None:
    old, new = Part(LINE, 1_000, 0, 4, 0, 0, {}), Part(LINE, 1_000, 0, 5, 0, 1, {})
    for history, recent in (([old], [new]), ([new], [old])):
        assert joined(history, recent, {(LINE, 1_000): 1_000}, (1_000,), RING).parts == [new]


def test_a_window_that_closed_after_the_ends_were_read_is_not_told_by_its_parts_as_well() -> None:
    published = windows(list(range(0, 60_000, 1_000)))
    read_before = ends([part for part in published if part.size_ms < 60_000])
    both = joined(published, [], read_before, (60_000, 10_000, 1_000), RING)
    assert [part.size_ms for part in both.parts] == [60_000]


def test_finer_windows_are_asked_for_where_no_coarser_one_tells() -> None:
    question = Question("prod", "churn", 0, 1_800_000, 600_000, 600_000, ())
    known = Known({(LINE, 600_000): 1_200_000, (LINE, 60_000): 1_320_000, (LINE, 10_000): 1_320_000,
                   (LINE, 1_000): 1_325_000})
    assert known.tails(question, (60_000, 10_000, 1_000)) == [(LINE, 60_000, 1_200_000), (LINE, 1_000, 1_320_000)]
    past = Question("prod", "churn", 0, 600_000, 600_000, 600_000, ())
    assert known.tails(past, (60_000, 10_000, 1_000)) == []


# -- what is asked -----------------------------------------------------------------------------------------------------

HOUR, DAY = 3_600_000, 86_400_000


@pytest.mark.parametrize(("span", "points", "size", "step", "answer"), [
    (HOUR, 60, None, None, (60_000, 60_000)), (DAY, 60, None, None, (600_000, 600_000)),
    (59_000, 60, None, None, (1_000, 1_000)), (10, 60, None, None, (1_000, 1_000)),
    (HOUR, 60, 10_000, None, (10_000, 10_000)), (DAY, 60, None, 1_200_000, (600_000, 1_200_000)),
    (DAY, 60, None, 30_000, (10_000, 30_000)), (DAY, 60, 1_000, 60_000, (1_000, 60_000)),
    (HOUR, 1, None, None, (600_000, 600_000))])
def test_the_coarsest_granularity_that_answers_is_taken(span: int, points: int, size: int | None, step: int | None,
                                                       answer: tuple[int, int]) -> None:
    assert granularity(SIZES, span, points, size, step) == answer


@pytest.mark.parametrize(("size", "step"), [(7, None), (None, 1_500), (60_000, 90_000), (None, 0), (None, -1_000)])
def test_a_granularity_or_step_that_there_is_not_is_refused(size: int | None, step: int | None) -> None:
    with pytest.raises(QuestionError):
        granularity(SIZES, HOUR, 60, size, step)


def test_a_span_is_widened_to_whole_steps() -> None:
    assert aligned(61_000, 119_000, 60_000) == (60_000, 120_000)
    assert aligned(60_000, 120_000, 60_000) == (60_000, 120_000)
    with pytest.raises(QuestionError):
        aligned(60_000, 60_000, 1_000)


def test_lists_in_queries() -> None:
    assert chosen(" b,a,", ("a", "b", "c"), "x") == ("a", "b")
    assert chosen("none", ("a",), "x") == ()
    assert quantiles("0.99,.5,1") == (0.5, 0.99, 1.0)
    assert [label(q) for q in (0.5, 0.999, 0.0, 1.0, 0.025)] == ["p50", "p99.9", "p0", "p100", "p2.5"]
    for bad in ("1.5", "-0.1", "nan", "0.5;1", "1e-3", ",".join(["0.1"] * 17)):
        with pytest.raises(QuestionError):
            quantiles(bad)


def test_a_question_that_reads_too_much_is_refused() -> None:
    lines = [LINE._replace(model=f"m{number}") for number in range(2_000)]
    question = Question("prod", "*", 0, DAY, 1_000, 60_000, ("model",))
    with pytest.raises(QuestionError, match="coarser"):
        rows_for(question, lines, 10)
    assert rows_for(Question("prod", "m1", 0, DAY, 60_000, 60_000, ("model",)), lines[:1], 10) == 12
