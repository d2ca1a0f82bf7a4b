import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.windows.grouping import alike, by_group, cell_keys, distinct, edges, spans, spread


@given(st.lists(st.integers(-3, 50) | st.integers(0, 2**62), max_size=300))
@settings(deadline=None)
def test_distinct_numbers_keys_in_order_of_first_appearance(keys: list[int]) -> None:
    ids, found = distinct(np.array(keys, np.int64))
    wanted = list(dict.fromkeys(key for key in keys if key >= 0))
    assert found.tolist() == wanted
    assert ids.tolist() == [wanted.index(key) if key >= 0 else -1 for key in keys]


def test_the_table_grows_with_the_number_of_distinct_keys() -> None:
    keys = np.random.default_rng(1).permutation(100_000) * 1_024
    ids, found = distinct(np.concatenate([keys, keys[::-1]]))
    assert found.tolist() == keys.tolist()
    assert ids.tolist() == [*range(100_000), *range(99_999, -1, -1)]


@given(st.lists(st.integers(0, 6), max_size=60))
@settings(deadline=None)
def test_by_group_lists_the_positions_of_each_group_in_order(groups: list[int]) -> None:
    order, edges = by_group(np.array(groups, np.int64), 7)
    for group in range(7):
        assert order[edges[group]:edges[group + 1]].tolist() == [at for at, g in enumerate(groups) if g == group]


def test_cells_of_rows_without_a_pane_are_left_out() -> None:
    start, field = np.array([0, 2, 3, 3, 5]), np.array([0, 1, 1, 0, 2], np.int32)
    assert cell_keys(start, field, np.array([-1, 4, -1, 0]), 3).tolist() == [-1, -1, 13, 0, 2]
    assert cell_keys(start, field, np.array([-1, 1, 0, 2]), 3).tolist() == [-1, -1, 4, 6, 8]


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=3)), max_size=80))
@settings(deadline=None)
def test_things_of_one_kind_and_with_the_same_parts_are_alike(things: list[tuple[int, list[int]]]) -> None:
    ids, first = alike(np.array([value for _, part in things for value in part], np.int64),
                       edges([len(part) for _, part in things]), np.array([kind for kind, _ in things], np.int64))
    wanted = [things.index(thing) for thing in things]
    assert first[ids].tolist() == wanted
    assert first.tolist() == list(dict.fromkeys(wanted))


def test_each_thing_has_the_places_of_its_case() -> None:
    assert spread(np.array([1, 0, 1]), np.array([0, 1, 3]), np.array([0, 2, 3, 5])).tolist() == [1, 2, 0, 1, 2]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 60))
def test_spans_end_where_they_pass_the_most(sizes: list[int], most: int) -> None:
    found = list(spans(np.array(sizes, np.int64), most))
    assert [at for low, high in found for at in range(low, high)] == list(range(len(sizes)))
    assert all(sum(sizes[low:high - 1]) <= most for low, high in found)
    assert all(sum(sizes[low:high]) > most for low, high in found[:-1])
