"""Numbers read to the nearest double, as Python reads them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.lean import number


def read(text: str) -> tuple[int, float, int]:
    """The number in a text, with something after it, as it stands in an object."""
    data = np.frombuffer(text.encode() + b",", np.uint8)
    found: tuple[int, float, int] = number.read(data, 0, len(data))
    return found


read("1.5e3")       # compiled before a test's time is taken


def same(text: str) -> None:
    end, value, _ = read(text)
    if end >= 0:
        assert end == len(text)
        assert (value, math.copysign(1, value)) == (float(text), math.copysign(1, float(text)))


@settings(max_examples=1_000)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(2.2250738585072014e-308)
@example(1.7976931348623157e308)
@example(9007199254740993.0)
def test_a_double_s_shortest_text_gives_the_same_double(value: float) -> None:
    same(repr(value))
    same(f"{value:.17e}")
    same(f"{value:.5g}")


@settings(max_examples=1_000)
@given(st.integers(0, 2**64), st.integers(0, 19), st.integers(-320, 310), st.sampled_from(["", "e", "E+", "e-"]))
def test_any_spelling_is_rounded_as_python_rounds_it(digits: int, point: int, power: int, mark: str) -> None:
    text = str(digits)
    text = (text[:-point] or "0") + "." + text[-point:] if 0 < point <= len(text) else text
    same(text + (mark + str(abs(power)) if mark else ""))


def test_what_producers_send_is_read_here() -> None:
    rng = np.random.default_rng(1)
    for value in np.concatenate((rng.standard_normal(2_000), rng.lognormal(0, 20, 2_000), rng.integers(0, 2**53, 500))):
        assert read(repr(float(value)))[:2] == (len(repr(float(value))), float(value))


def test_halfway_cases_are_rounded_to_even() -> None:
    for text in ("9007199254740993", "9007199254740995", "4503599627370496.5", "4503599627370497.5",
                 "1152921504606846976.5", "8.98846567431158e307", "6250000000000000.25"):
        same(text)


@pytest.mark.parametrize("text", ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1.e3", "-.1", "00", "1e00001",
                                  "12345678901234567890", "0.12345678901234567890", "1e400", "NaN", "Infinity", "x"])
def test_what_is_no_number_or_can_not_be_told_is_left(text: str) -> None:
    assert read(text)[0] == -1


def test_integers_are_told_from_other_numbers() -> None:
    assert [read(text)[2] for text in ("0", "17", "1700000000000", "-1", "1.0", "1e3")] == [0, 17, 1_700_000_000_000,
                                                                                           -1, -1, -1]
    assert json.loads("1e3") == read("1e3")[1]
