"""Dropped batches are fetched again, the log's own holes are taken as they are, and no agent misses a record."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.records import RecordBatch
from streams.state.continuity import MOST_LEFT, Continuity, Verdict

AGENTS = ("one", "two", "three")


def batch(*offsets: int, fetched_from: int = -1) -> RecordBatch:
    records: list[Any] = [SimpleNamespace(offset=offset) for offset in offsets]
    return RecordBatch("t", 0, records, fetched_from)


def continuity(start: int | None = 0) -> Continuity:
    return Continuity(lambda topic: start)


def test_batches_that_follow_or_repeat_are_taken() -> None:
    checked = continuity(5)
    assert [checked.check("one", batch(*offsets)) for offsets in ([5, 6], [7], [5, 6, 7], [6, 7, 8], [9])] == [
        Verdict.TAKE] * 5


def test_a_batch_beyond_the_commit_is_left_and_the_log_read_again() -> None:
    checked = continuity(5)
    assert checked.check("one", batch(8, 9)) is Verdict.SEEK
    assert checked.seek_to("t") == 5
    assert checked.check("one", batch(10)) is Verdict.LEAVE
    assert checked.check("one", batch(5, 6, 7, 8, 9, 10)) is Verdict.TAKE


def test_offsets_that_the_log_does_not_have_are_no_hole() -> None:
    checked = continuity()
    assert checked.check("one", batch(3, 9, fetched_from=0)) is Verdict.TAKE
    assert checked.check("one", batch(40, fetched_from=10)) is Verdict.TAKE
    assert checked.check("one", batch(50)) is Verdict.SEEK


def test_without_a_commit_any_first_batch_is_taken() -> None:
    assert continuity(None).check("one", batch(400)) is Verdict.TAKE


def test_a_seek_goes_to_where_the_agent_furthest_behind_is() -> None:
    checked = continuity()
    assert checked.check("one", batch(0)) is Verdict.TAKE
    assert checked.check("two", batch(0, 1, 2)) is Verdict.TAKE
    assert checked.check("two", batch(5)) is Verdict.SEEK
    assert checked.seek_to("t") == 1
    assert checked.check("one", batch(5)) is Verdict.LEAVE
    assert checked.check("one", batch(1, 2, 3, 4, 5)) is Verdict.TAKE


def test_a_seek_whose_records_were_dropped_too_is_repeated() -> None:
    checked = continuity()
    verdicts = [checked.check("one", batch(offset)) for offset in range(5, 5 + 2 * MOST_LEFT)]
    assert [number for number, verdict in enumerate(verdicts) if verdict is Verdict.SEEK] == [0, MOST_LEFT]


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5])
@given(seed=st.integers(0, 10_000))
def test_every_agent_gets_every_record_in_order_whatever_the_client_drops(drop: float, seed: int) -> None:
    rng = random.Random(seed)
    log = sorted(rng.sample(range(60), 40))
    wanted, checked = set(log), continuity()
    seen: dict[str, set[int]] = {agent: set() for agent in AGENTS}
    queues: dict[str, deque[RecordBatch]] = {agent: deque() for agent in AGENTS}
    position, steps = 0, 0
    while any(not seen[agent] >= wanted for agent in AGENTS):
        steps += 1
        assert steps < 20_000
        ahead = [offset for offset in log if offset >= position][:rng.randint(1, 9)]
        if ahead:
            for queue in queues.values():
                if steps > 500 or rng.random() >= drop:
                    queue.append(batch(*ahead, fetched_from=position))
            position = ahead[-1] + 1
        else:
            log.append(log[-1] + 1)
        agent = rng.choice(AGENTS)
        if not queues[agent]:
            continue
        found = queues[agent].popleft()
        verdict = checked.check(agent, found)
        if verdict is Verdict.SEEK:
            position = checked.seek_to("t")
        elif verdict is Verdict.TAKE:
            assert {offset for offset in log if offset < found.first_offset} <= seen[agent]
            seen[agent] |= {one.offset for one in found.records}
