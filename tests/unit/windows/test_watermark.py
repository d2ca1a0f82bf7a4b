import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.windows.watermark import NEVER_MS, closing_ms, newest_before, too_late

TIMES = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


def late(ts_ms: list[int], newest_ms: int = NEVER_MS) -> list[bool]:
    over_ms = closing_ms(newest_before(np.array(ts_ms), newest_ms), 500)
    return too_late(np.array(ts_ms), over_ms, size_ms=1_000, grace_ms=2_000).tolist()


def test_an_event_is_judged_by_the_watermark_before_it_and_not_by_its_own_time() -> None:
    assert newest_before(np.array([5, 3, 9]), 4).tolist() == [4, 5, 5]
    assert late([50_000]) == [False], "the first event of a partition is never late"


def test_the_grace_ends_when_the_watermark_reaches_the_panes_end_plus_grace() -> None:
    assert late([3_499, 999]) == [False, False], "watermark 2999, and [0, 1000) is open until 3000"
    assert late([3_500, 999]) == [False, True]
    assert late([3_500, 1_000]) == [False, False], "1000 is in the next pane"


@given(TIMES, st.integers(0, 40))
@settings(deadline=None)
def test_lateness_does_not_depend_on_where_batches_are_cut(ts_ms: list[int], at: int) -> None:
    first, second = ts_ms[:at], ts_ms[at:]
    parts = late(first) if first else []
    if second:
        parts += late(second, max(first, default=NEVER_MS))
    assert parts == late(ts_ms)


def test_the_idle_clock_only_ever_moves_the_closing_watermark_forward() -> None:
    assert closing_ms(10_000, 500) == 9_500
    assert closing_ms(10_000, 500, 3_000) == 12_500
