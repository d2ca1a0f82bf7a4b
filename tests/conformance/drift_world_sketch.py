"""Values as the sketch that a window would carry of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.windows.sketch import bucket


def sketch(values: Any) -> list[tuple[int, int]]:
    """(code, count) ascending."""
    codes, counts = np.unique([bucket(float(value)) for value in values], return_counts=True)
    return list(zip(codes.tolist(), counts.tolist(), strict=True))
