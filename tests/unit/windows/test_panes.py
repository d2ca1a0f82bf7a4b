import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.batch import SeriesKey
from streams.windows import summary
from streams.windows.layout import OTHER, SLOTS, Layouts
from streams.windows.panes import Grid, Pane, PaneFormatError, PaneKey
from streams.windows.sketch import CODE_BITS, SPAN, bucket
from streams.windows.sketches import Sketches

SERIES = SeriesKey("prod", "m", "1", "model")
GRID = Grid((1_000, 10_000, 60_000))
#: Format 2 of `pane()`.
GOLDEN = bytes.fromhex(
    "9b0203010002c3c092aa6c6174656e63795f6d73ac70726564696374696f6e3d61c4700000000000000840000000000000000000000000"
    "00001c40000000000000f03f0000000000000840abaaaaaaaaaa0240555555555555054000000000000000400000000000000000000000"
    "0000000040000000000000f03f000000000000f03f000000000000f03f0000000000000000c408409c020037000000c408010000000200"
    "0000")


def pane(layouts: Layouts) -> Pane:
    """Three events: latencies 1, 3, 3 and two predictions "a"."""
    found = Pane(layouts.of(("latency_ms", "prediction=a")))
    found.count, found.errors, found.emitted, found.revision = 3, 1, True, 2
    found.table[:] = [[3, 0, 7, 1, 3, 7 / 3, 8 / 3], [2, 0, 2, 1, 1, 1, 0]]
    found.sketches.add(np.array([bucket(value) + SPAN for value in (3.0, 1.0, 3.0)], np.int32))
    return found


@given(st.integers(0, 10**13), st.sampled_from([1_000, 10_000]))
@settings(deadline=None)
def test_a_panes_parent_contains_it_whole(start: int, size: int) -> None:
    key = PaneKey(SERIES, size, start - start % size)
    parent = GRID.parent(key)
    assert parent is not None
    assert parent.start_ms <= key.start_ms < key.end_ms <= parent.end_ms
    assert GRID.finer_ms(parent.size_ms) == size
    assert parent.start_ms % parent.size_ms == 0


def test_the_coarsest_pane_has_no_parent() -> None:
    assert GRID.parent(PaneKey(SERIES, 60_000, 0)) is None


@given(st.sampled_from([1, 1_000, 86_400_000]), st.integers(0, 32_503_680_000_000))
@settings(deadline=None)
def test_a_key_comes_back_from_its_text(size: int, start: int) -> None:
    assert PaneKey.parse(PaneKey(SERIES, size, start).text()) == PaneKey(SERIES, size, start)


def test_rows_of_coarser_panes_are_written_before_those_of_finer_ones() -> None:
    sizes = [1, 10, 500, 1_000, 5_000, 10_000, 20_000, 60_000, 3_600_000, 86_400_000]
    texts = [PaneKey(SERIES, size, 0).text() for size in sizes]
    assert sorted(texts) == texts[::-1]


def test_a_pane_comes_back_as_it_was() -> None:
    layouts = Layouts()
    found = pane(layouts)
    again = Pane.decode(found.encode(), layouts)
    assert again.encode() == found.encode()
    assert again.layout is found.layout
    assert again.summaries() == found.summaries()
    assert (again.count, again.errors, again.emitted, again.revision) == (3, 1, True, 2)


def test_the_bytes_of_format_2_are_these() -> None:
    assert pane(Layouts()).encode() == GOLDEN
    assert Pane.decode(GOLDEN, Layouts()).summaries() == pane(Layouts()).summaries()


def test_the_bytes_of_format_3_say_what_sketches_leave_out() -> None:
    found = pane(Layouts())
    found.left = np.array([2, 0])
    data = found.encode()
    assert data == b"\x9c\x03" + GOLDEN[2:] + bytes.fromhex("c410") + bytes([2, *[0] * 15])
    again = Pane.decode(data, Layouts())
    assert again.encode() == data
    assert again.summaries()["latency_ms"].sketched == 1
    for size in range(len(GOLDEN), len(data)):
        with pytest.raises(PaneFormatError):
            Pane.decode(data[:size], Layouts())
    for damaged in (b"\x9b\x03" + GOLDEN[2:], b"\x9c\x02" + data[2:], data[:-18] + b"\xc4\x18" + bytes(24)):
        with pytest.raises(PaneFormatError, match="damaged"):
            Pane.decode(damaged, Layouts())


def test_an_empty_pane_comes_back_and_takes_in_more() -> None:
    layouts = Layouts()
    again = Pane.decode(Pane(layouts.empty).encode(), layouts)
    again.merge(pane(layouts), layouts)
    assert again.summaries() == pane(layouts).summaries()


def test_counts_beyond_32_bits_come_back() -> None:
    layouts, found = Layouts(), pane(Layouts())
    for _ in range(32):
        found.sketches.merge(found.sketches, None)
    assert Pane.decode(found.encode(), layouts).summaries() == found.summaries()
    assert found.summaries()["latency_ms"].sketch[-1] == (bucket(3.0), 2 << 32)


def test_every_truncation_of_a_pane_raises() -> None:
    layouts = Layouts()
    data = pane(layouts).encode()
    for size in range(len(data)):
        with pytest.raises(PaneFormatError):
            Pane.decode(data[:size], layouts)


@given(st.binary(max_size=60))
@settings(deadline=None)
@example(b"\x80")
@example(b"\x90")
def test_bytes_that_are_no_pane_raise_the_panes_own_error(data: bytes) -> None:
    with pytest.raises(PaneFormatError):
        Pane.decode(data, Layouts())


def test_a_pane_of_a_later_format_is_refused_by_name() -> None:
    data = bytearray(pane(Layouts()).encode())
    data[1] = 4
    with pytest.raises(PaneFormatError, match="format 4 is not known"):
        Pane.decode(bytes(data), Layouts())


def test_a_pane_with_fewer_counts_than_buckets_is_refused() -> None:
    layouts, found = Layouts(), pane(Layouts())
    found.sketches = Sketches(np.arange(3, dtype=np.int32), np.ones(2, np.int64))
    with pytest.raises(PaneFormatError, match="damaged"):
        Pane.decode(found.encode(), layouts)


def test_merging_keeps_fields_of_both_panes() -> None:
    layouts = Layouts()
    left, right = pane(layouts), Pane(layouts.of(("prediction=b", "latency_ms")))
    right.count = 1
    right.table[:] = [[1, 0, 1, 1, 1, 1, 0], [1, 2, 5, 5, 5, 5, 0]]
    right.sketches.add(np.array([1 << CODE_BITS | bucket(5.0) + SPAN], np.int32))
    left.merge(right, layouts)
    found = left.summaries()
    assert list(found) == ["latency_ms", "prediction=a", "prediction=b"]
    assert (found["latency_ms"].count, found["latency_ms"].missing, found["latency_ms"].sum) == (4, 2, 12.0)
    assert found["latency_ms"].sketch == [(bucket(1.0), 1), (bucket(3.0), 2), (bucket(5.0), 1)]
    assert found["prediction=b"].count == 1


def test_values_that_find_no_room_in_a_roll_up_are_counted() -> None:
    layouts = Layouts(max_fields=2)
    left, right = pane(layouts), Pane(layouts.of(("feature.x",)))
    right.table[:] = [[4, 1, 0, 0, 0, 0, 0]]
    left.merge(right, layouts)
    assert left.ignored == 5
    assert list(left.summaries()) == ["latency_ms", "prediction=a"]


def test_panes_with_the_same_fields_share_a_layout_and_unused_layouts_go() -> None:
    layouts = Layouts()
    one, _ = layouts.extended(layouts.empty, ["a", "b"])
    two, slots = layouts.extended(layouts.extended(layouts.empty, ["a"])[0], ["b", "a"])
    assert one is two
    assert slots.tolist() == [1, 0]
    del one, two
    assert [layout.names for layout in layouts._layouts.values()] == [()]


def test_categories_are_bounded_and_the_rest_is_counted_together() -> None:
    layouts = Layouts(max_categories=32)
    layout, slots = layouts.extended(layouts.empty, [f"prediction={number}" for number in range(100)])
    assert len(layout.names) == 33
    assert layout.names[-1] == f"prediction={OTHER}"
    assert set(slots[32:].tolist()) == {32}
    again, _ = layouts.extended(layout, ["prediction=new", "feature.f=1", "prediction=7"])
    assert again.names == (*layout.names, "feature.f=1"), "each field has its own bound"


def test_fields_are_bounded() -> None:
    layouts = Layouts(max_fields=512)
    layout, slots = layouts.extended(layouts.empty, [f"f{number}" for number in range(600)])
    assert slots.tolist() == [*range(512), *[-1] * 88]
    assert len(layout.names) == 512


def test_the_same_new_name_twice_takes_one_slot() -> None:
    layouts = Layouts()
    layout, slots = layouts.extended(layouts.empty, ["a", "a"])
    assert layout.names == ("a",)
    assert slots.tolist() == [0, 0]


def test_more_fields_than_sketch_keys_can_tell_apart_are_refused_when_set() -> None:
    with pytest.raises(ValueError, match="max_fields"):
        Layouts(max_fields=SLOTS + 1)
    assert np.iinfo(np.int32).max >= SLOTS << CODE_BITS


def test_a_new_pane_has_an_empty_table_of_its_layout() -> None:
    found = Pane(Layouts().of(("a", "b")))
    assert found.table.tolist() == summary.empty_rows(2).tolist()


@pytest.mark.parametrize("names", [("latency_ms", "feature.x"), ("feature.x", "latency_ms", "prediction=a"), ()])
def test_panes_rolled_up_at_once_are_those_merged_one_after_the_other(names: tuple[str, ...]) -> None:
    layouts, rng = Layouts(), np.random.default_rng(len(names))
    parts = [Pane(layouts.of(("latency_ms", "feature.x") if at else names)) for at in range(5)]
    for at, part in enumerate(parts):
        part.count, part.errors, part.ignored = at + 1, at, 2 * at
        if len(part.layout.names):
            part.table[:2] = [[at + 1, 0, *rng.normal(size=4), 1], [0, 3, 0, np.inf, -np.inf, 0, 0]]
            part.sketches.add(rng.integers(0, 2**CODE_BITS, 30).astype(np.int32))
            part.left = np.array([0, at]) if at % 2 else None
    whole = Pane(layouts.empty)
    for part in parts:
        whole.merge(part, layouts)
    assert Pane.rolled([parts], layouts)[0].encode() == whole.encode()
    assert parts[0].encode() == Pane.rolled([parts[:1]], layouts)[0].encode(), "of one part it is that part"
