"""Every change detector against every check, beside River's; and one that is bad on purpose, which each must refuse."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river import drift
from river.drift import binary

from agents.drift.detectors import DETECTORS
from agents.drift.detectors.base import Detector
from agents.drift.detectors.likelihood import Likelihood

Make = Callable[[], Detector]
Values = NDArray[np.float64]


class Bad:
    """Alarms by chance, looks ahead of its cuts, forgets all in a snapshot and has no notion of width."""

    name, domain, width = "bad", "shares", -1

    def __init__(self) -> None:
        self.rng = random.Random()
        self.seen = 0

    def update(self, value: float) -> bool:
        self.seen += 1
        return self.rng.random() < 0.3

    def update_many(self, values: Values) -> NDArray[np.int64]:
        return np.flatnonzero(np.arange(len(values)) % 97 == 3)

    def encode(self) -> bytes:
        return b"bad"

    def restore(self, data: bytes) -> None:
        pass


def errors(seed: int, *levels: float, n: int = 2_000) -> Values:
    """0 and 1, n at each level: what detectors of every domain can read."""
    rng = np.random.default_rng(seed)
    return np.concatenate([(rng.random(n) < level).astype(float) for level in levels])


STREAMS = [errors(seed, 0.1, 0.4, 0.1, 0.8) for seed in range(3)]


def one_by_one_and_all_at_once_are_the_same(make: Make) -> None:
    for values in STREAMS:
        one = make()
        alarms = [at for at, value in enumerate(values.tolist()) if one.update(value)]
        assert alarms == make().update_many(values).tolist()
        assert alarms, "there is something to compare"


def any_cutting_and_any_snapshot_change_nothing(make: Make) -> None:
    rng = np.random.default_rng(4)
    for values in STREAMS:
        whole = make().update_many(values).tolist()
        detector, found, at = make(), [], 0
        for part in np.split(values, np.sort(rng.integers(0, len(values), 25))):
            found += (at + detector.update_many(part)).tolist()
            at += len(part)
            again = make()
            again.restore(detector.encode())
            assert again.encode() == detector.encode()
            assert again.width == detector.width
            detector = again
        assert found == whole


def a_rise_of_errors_is_found_after_it_and_not_before(make: Make) -> None:
    for seed in range(3):
        values = errors(10 + seed, 0.05, 0.6, n=1_000)
        detector = make()
        detector.update_many(values[:1_000])
        alarm = next((at for at, value in enumerate(values[1_000:].tolist()) if detector.update(value)), None)
        assert alarm is not None and alarm < 500
        assert 0 < detector.width <= 1_500


def a_constant_is_never_a_change(make: Make) -> None:
    for level in (0.0, 1.0):
        assert not len(make().update_many(np.full(5_000, level)))


def what_is_damaged_is_refused(make: Make) -> None:
    detector = make()
    with pytest.raises(ValueError):
        detector.restore(detector.encode() + b"\0" * 9_999)


CHECKS = [one_by_one_and_all_at_once_are_the_same, any_cutting_and_any_snapshot_change_nothing,
          a_rise_of_errors_is_found_after_it_and_not_before, a_constant_is_never_a_change, what_is_damaged_is_refused]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_passes(name: str, check: Callable[[Make], None]) -> None:
    check(DETECTORS[name])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_bad_detector_is_refused_by(check: Callable[[Make], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Bad)


RIVERS: dict[str, Callable[[], Any]] = {
    "adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "ddm": binary.DDM, "eddm": binary.EDDM,
    "hddm_a": binary.HDDMA, "hddm_w": binary.HDDMW, "fhddm": binary.FHDDM,
}


@pytest.mark.parametrize("name", RIVERS)
def test_alarms_are_those_of_river(name: str) -> None:
    """The first ones, up to where ADWIN forgets; HDDM_W begins with an error, as River takes a mean of 0 for none."""
    alarms = 0
    for seed in range(6):
        values = errors(20 + seed, 0.1, 0.3, 0.05, 0.5, n=700)
        values[0] = 1.0
        ours, theirs = DETECTORS[name](), RIVERS[name]()
        for at, value in enumerate(values.tolist()):
            theirs.update(1 - value if name == "fhddm" else value)
            found = ours.update(value)
            assert found == theirs.drift_detected, (seed, at)
            alarms += found
            if found and name == "hddm_w":
                break
    assert alarms


def test_false_alarms_of_the_bank_keep_to_what_it_is_allowed() -> None:
    """Far below, as the bound is one; but an allowance of none at all would be no test."""
    rng = np.random.default_rng(7)
    for share in (0.02, 0.2, 0.5, 0.9):
        values = (rng.random(200_000) < share).astype(float)
        found = [len(Likelihood(rate).update_many(values)) for rate in (1e-5, 1e-3)]
        assert found[0] <= 2 and 0 < found[1] <= 200


def test_the_bank_says_what_rose_since_when() -> None:
    for seed in range(10):
        bank, values = Likelihood(1e-6), errors(40 + seed, 0.2, 0.5)
        at = next(at for at, value in enumerate(values.tolist()) if bank.update(value))
        rise = bank.rise()
        assert rise.before == pytest.approx(0.2, abs=0.03) and 0.3 < rise.after < 0.9
        assert abs(rise.at - 2_000) <= 3 * rise.unsure and at - rise.at + 1 == rise.n == bank.width
        bank.calm()
        assert bank.n == rise.reference_n and bank.width == rise.n


def test_kswin_finds_another_spread_with_the_same_mean() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(0, 8, 200)])
    found = DETECTORS["kswin"]().update_many(values)
    assert any(500 < at < 560 for at in found)
