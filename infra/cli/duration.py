"""Lengths of time as people write them: 90s, 10m, 1h30m, 2d; a bare number is seconds."""

from __future__ import annotations

import re

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_ms(text: str) -> int:
    """Milliseconds.

    Raises:
        ValueError: the text is not a length of time, or is not positive.
    """
    plain = text.strip().lower().replace(" ", "")
    parts = _PART.findall(plain)
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        length = float(plain) * 1000
    elif parts and "".join(number + unit for number, unit in parts) == plain:
        length = sum(float(number) * _UNIT_MS[unit] for number, unit in parts)
    else:
        raise ValueError(f"{text!r} is not a length of time: write 90s, 10m or 1h30m")
    if length < 1:
        raise ValueError(f"{text!r} is no time at all: write 90s, 10m or 1h30m")
    return int(length)
