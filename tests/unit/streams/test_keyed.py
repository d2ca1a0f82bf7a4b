import json

from streams.state.keyed import META, KeyedStates
from streams.state.store import Rows, changelog_key


class Counts:
    """A codec of plain dictionaries."""

    def new(self, key: str) -> dict[str, int]:
        return {"n": 0}

    def encode(self, key: str, state: dict[str, int]) -> bytes:
        return json.dumps(state).encode()

    def decode(self, key: str, data: bytes) -> dict[str, int]:
        return json.loads(data)


def states(snapshots: dict[str, bytes] | None = None) -> KeyedStates[dict[str, int]]:
    return KeyedStates("test", 0, Counts(), {} if snapshots is None else snapshots)


def add(held: KeyedStates[dict[str, int]], key: str, offset: int) -> None:
    entry = held.entry(key)
    if not entry.includes("telemetry", offset):
        entry.state["n"] += 1
        held.touch(entry, "telemetry", offset)


def test_a_record_read_again_is_skipped_by_the_fence_of_its_key() -> None:
    held = states()
    for offset in (0, 1, 2):
        add(held, "a", offset)
    again = states(dict(held.snapshots) | dict(held.freeze(1).puts))
    for offset in (1, 2, 3):
        add(again, "a", offset)
    assert again.entry("a").state["n"] == 4


def test_meta_is_written_after_every_key_and_deletions_come_last() -> None:
    held = states()
    add(held, "z", 0)
    held.written(held.freeze(1))
    add(held, META, 1)
    add(held, "a", 1)
    held.drop("z")
    frozen = held.freeze(1)
    assert [key for key, _ in frozen.puts] == ["a", META]
    assert frozen.deletes == ["z"]


def test_only_what_changed_is_written() -> None:
    held = states()
    add(held, "a", 0)
    add(held, "b", 0)
    held.written(held.freeze(1))
    add(held, "b", 1)
    assert [key for key, _ in held.freeze(1).puts] == ["b"]
    assert held.freeze(1).puts == []


def test_an_evicted_key_comes_back_from_its_snapshot() -> None:
    held = states()
    add(held, "a", 0)
    assert not held.evict("a"), "it is dirty"
    held.written(held.freeze(1))
    assert held.evict("a")
    assert "a" not in held.live
    assert list(held.keys()) == ["a"]
    add(held, "a", 1)
    assert held.entry("a").state["n"] == 2


def test_a_released_key_goes_once_its_snapshot_is_as_new_as_its_state() -> None:
    held = states()
    for key in "abc":
        add(held, key, 0)
    held.release("ab")
    frozen = held.freeze(1)
    assert set(held.live) == set("abc"), "nothing is written yet"
    add(held, "b", 1)
    held.written(frozen)
    assert set(held.live) == set("bc"), "b has changed meanwhile"
    held.written(held.freeze(1))
    assert set(held.live) == {"c"}
    assert (held.entry("a").state["n"], held.entry("b").state["n"]) == (1, 2)
    held.written(held.freeze(1))
    assert set(held.live) == set("abc"), "once"


def test_the_keys_touched_longest_ago_make_room_unless_they_changed() -> None:
    held = states()
    for key in "abcd":
        add(held, key, 0)
    held.written(held.freeze(1))
    add(held, "a", 1)
    assert held.shrink(2) == 2
    assert list(held.live) == ["d", "a"]
    assert held.shrink(0) == 1, "a changed since its snapshot"
    assert held.entry("b").state["n"] == 1
    assert held.returned == 1


def test_a_dropped_key_starts_anew() -> None:
    held = states()
    add(held, "a", 0)
    held.written(held.freeze(1))
    held.drop("a")
    assert "a" not in held
    assert held.entry("a").state["n"] == 0
    add(held, "a", 5)
    frozen = held.freeze(1)
    assert [key for key, _ in frozen.puts] == ["a"]
    assert frozen.deletes == []


def test_a_checkpoint_that_is_given_up_leaves_the_snapshots_as_they_were() -> None:
    held = states()
    for key in "ab":
        add(held, key, 0)
    held.written(held.freeze(1))
    add(held, "a", 1)
    held.drop("b")
    frozen = held.freeze(1)
    assert "b" not in held
    assert not held.evict("a")
    assert held.entry("b").state["n"] == 0
    again = states(dict(held.snapshots))
    assert [again.entry(key).state["n"] for key in "ab"] == [1, 1]
    held.written(frozen)
    again = states(dict(held.snapshots))
    assert [again.entry(key).state["n"] for key in "ab"] == [2, 0]


def test_a_row_of_an_earlier_owner_does_not_replace_a_later_one() -> None:
    rows, early, late = Rows(), states(), states()
    add(early, "a", 0)
    add(late, "a", 0)
    add(late, "a", 1)
    key = changelog_key("test", "a")
    rows.apply(0, key, late.freeze(2).puts[0][1], 2)
    rows.apply(0, key, early.freeze(1).puts[0][1], 1)
    rows.apply(0, key, None, 1)
    assert rows.stale == 2
    assert rows.epoch(0) == 2
    assert states(rows.view(0, "test")).entry("a").state["n"] == 2


def test_a_tombstone_removes_a_row_and_other_partitions_keep_theirs() -> None:
    rows, held = Rows(), states()
    add(held, "a", 0)
    data = held.freeze(1).puts[0][1]
    for partition in (0, 1):
        rows.apply(partition, changelog_key("test", "a"), data, 1)
    rows.apply(0, changelog_key("test", "a"), None, 1)
    assert len(rows) == 1
    assert rows.epoch(0) == 0
    rows.forget(1)
    assert len(rows) == 0
