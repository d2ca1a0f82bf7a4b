"""Sketches as texts: back again the same, through `jsonb` too; what is spelled in another way stays as it is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.windows.packed import packed, pairs, unpacked, warm

CODES = st.integers(-(10**17) + 1, 10**17 - 1) | st.integers(-40_100, 40_100) | st.integers(-3, 3)
COUNTS = st.integers(1, 10**17 - 1) | st.integers(1, 70)
SKETCH = st.dictionaries(CODES, COUNTS, max_size=40).map(lambda found: [list(pair) for pair in sorted(found.items())])
SUMMARY = st.fixed_dictionaries({"count": st.integers(0, 9), "mean": st.none() | st.floats(allow_nan=False)},
                                optional={"sketch": SKETCH, "later": st.text()})
NAME = st.text() | st.sampled_from(["sketch", '"sketch":[[1,1]]', ',"sketch":[[1,1]]', '{"sketch":"A"', "\\", "é\0"])
FIELDS = st.dictionaries(NAME, SUMMARY, max_size=5)
warm()


def compact(fields: Any) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def as_jsonb(text: str) -> str:
    """As PostgreSQL gives `jsonb` out: keys in an order of its own, with blanks."""
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)


@given(FIELDS)
def test_fields_come_back_the_same_and_no_longer(fields: dict[str, Any]) -> None:
    text = compact(fields)
    found = packed(text)
    assert len(found) <= len(text)
    assert unpacked(found) == text
    assert json.loads(unpacked(as_jsonb(found))) == fields
    for name, summary in json.loads(found).items():
        sketch = fields[name].get("sketch")
        if sketch:
            assert pairs(np.frombuffer(summary["sketch"].encode(), np.uint8)).tolist() == sketch
        assert summary == fields[name] | ({"sketch": summary["sketch"]} if sketch else {})


def test_the_letters_are_these() -> None:
    text = '{"f":{"count":43,"sketch":[[-39995,2],[-39990,1],[39822,40]]},"g":{"sketch":[[0,1]]},"h":{"sketch":[]}}'
    assert packed(text) == '{"f":{"count":43,"sketch":"rn8ECKp87EoB"},"g":{"sketch":"A"},"h":{"sketch":[]}}'


@pytest.mark.parametrize("sketch", [
    "[]", "[[]]", "[[1]]", "[[1,2]", "[[1,2],]", "[[1,2,3]]", "[[1,0]]", "[[1,-2]]", "[[2,1],[1,1]]", "[[1,1],[1,1]]",
    "[[1.0,2]]", "[[1e3,2]]", "[[01,2]]", "[[-0,2]]", "[[1, 2]]", "[[1,2], [3,4]]", '"A"', "null", "{}", "[1,2]",
    "[[123456789012345678,1]]", "[[1,123456789012345678]]", "[[1,2],[3,x]]"])
def test_what_is_spelled_in_another_way_stays(sketch: str) -> None:
    text = f'{{"f":{{"sketch":{sketch},"more":1}}}}'
    assert packed(text) == text


@pytest.mark.parametrize("text", ["", '"', '"sketch":', '{"sketch":', '{"sketch": ', '{"sketch":"', '{"sketch":"?"}',
                                  '{"sketch":"A', '{"sketch":""}', '{"sketch":"g"}', '{"sketch":"gg!"}',
                                  '{"sketch":"' + 13 * "g" + 'A"}', '["sketch":"A"]'])
def test_what_is_no_sketch_stays(text: str) -> None:
    assert unpacked(text) == text


@given(FIELDS, st.data())
def test_every_truncation_and_damage_is_borne(fields: dict[str, Any], data: st.DataObject) -> None:
    for text, act in ((compact(fields), packed), (packed(compact(fields)), unpacked)):
        end = data.draw(st.integers(0, len(text)))
        damage = data.draw(st.text(max_size=2))
        assert isinstance(act(text[:end] + damage), str)
        assert isinstance(act(text[:end] + damage + text[end:]), str)


def test_a_damaged_text_is_read_up_to_the_damage() -> None:
    text = np.frombuffer(b"rn8ECK?p87EoB", np.uint8)
    assert pairs(text).tolist() == [[-39995, 2], [-39990, 1]]
    assert pairs(text[:4]).tolist() == [] and pairs(text[:0]).shape == (0, 2)
