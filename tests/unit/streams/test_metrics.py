"""Where a worker's time goes, told once."""

import pytest

from streams import metrics


def seconds(name: str) -> float:
    found = metrics.STAGE_SECONDS.labels(name)
    return sum(sample.value for sample in found._child_samples() if sample.name == "_sum")


def test_the_time_in_which_any_of_several_tasks_waits_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    waiting = metrics.Shared("waiting together")
    with waiting:
        now[0] = 11.0
        with waiting:
            now[0] = 13.0
        now[0] = 14.0
    now[0] = 20.0
    with waiting:
        now[0] = 20.5
    assert seconds("waiting together") == pytest.approx(4.5)


def test_a_wait_that_is_broken_off_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    waiting = metrics.Shared("broken off")
    with pytest.raises(KeyError), waiting:
        now[0] = 2.0
        raise KeyError
    now[0] = 5.0
    assert seconds("broken off") == pytest.approx(2.0)
