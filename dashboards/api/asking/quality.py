"""What late labels say of a model, from the sums and sketches of windows of labels (`schemas.windows.LevelWindow`).

    precision, recall, F1   of each class; as wholes their means over the classes that were seen (macro)
    roc_auc                 of two classes, by the sketches of log-odds: values within 1% of one another are ties, which
                            count half; None for other numbers of classes
    calibration_error       expected calibration error over twenty bins: sum n_bin / n * |accuracy - confidence|
                            (Naeini, Cooper, Hauskrecht, AAAI 2015)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboards.api.asking.summary import Sketch, Summary, merged, merged_sketch

CLASS, ODDS = "class=", "log_odds."
Row = dict[str, Any]


def quality(fields: Mapping[str, Sequence[Summary]]) -> Row:
    """Figures of one point; None where nothing is known."""
    wholes = {name: merged(found) for name, found in fields.items()}
    correct, error = wholes.get("correct"), wholes.get("error")
    classes = by_class(wholes)
    return {"accuracy": None if correct is None else correct.mean,
            **{name: _mean([one[name] for one in classes.values()]) for name in ("precision", "recall", "f1")},
            "roc_auc": roc_auc(fields), "calibration_error": calibration_error(wholes),
            "bias": None if error is None else error.mean, "root_mean_square_error": _root_mean_square(error)}


def by_class(wholes: Mapping[str, Summary]) -> dict[str, Row]:
    """Of each class: how often it was true, precision, recall and F1. Without a prediction of it precision is None."""
    found = {}
    for name, one in wholes.items():
        if name.startswith(CLASS):
            right, true = one.sum, one.sum + one.missing
            found[name.removeprefix(CLASS)] = {
                "labels": round(true), "precision": right / one.count if one.count else None,
                "recall": right / true if true else None, "f1": 2 * right / (one.count + true)}
    return found


def roc_auc(fields: Mapping[str, Sequence[Summary]]) -> float | None:
    """Of two classes; None of any other number, or without confidences of either."""
    odds = [merged_sketch(found) for name, found in sorted(fields.items()) if name.startswith(ODDS)]
    if sum(name.startswith(CLASS) for name in fields) != 2 or len(odds) != 2 \
            or not all(map(len, odds)):
        return None
    return area(odds[0], np.stack((-odds[1][::-1, 0], odds[1][::-1, 1]), axis=1))


def area(positive: Sketch, negative: Sketch) -> float:
    """P(a positive is above a negative) + P(they tie) / 2 (Mann, Whitney, 1947); both with codes ascending."""
    codes, below = negative[:, 0], np.concatenate(([0], np.cumsum(negative[:, 1])))
    less = below[np.searchsorted(codes, positive[:, 0], side="left")]
    not_more = below[np.searchsorted(codes, positive[:, 0], side="right")]
    pairs = int(positive[:, 1].sum()) * int(below[-1])
    return float((positive[:, 1] * (less + not_more)).sum() / (2 * pairs))


def calibration_error(wholes: Mapping[str, Summary]) -> float | None:
    """Expected calibration error; None without confidences."""
    right, wrong = ({name[6:]: one for name, one in wholes.items() if name.startswith(said)}
                    for said in ("right=", "wrong="))
    gaps, many = 0.0, 0
    for place in right.keys() | wrong.keys():
        found = [one for one in (right.get(place), wrong.get(place)) if one is not None]
        hits = right[place].count if place in right else 0
        gaps += abs(hits - math.fsum(one.sum for one in found))
        many += sum(one.count for one in found)
    return gaps / many if many else None


def _root_mean_square(error: Summary | None) -> float | None:
    if error is None or error.mean is None or not error.count:
        return None
    return math.sqrt(error.m2 / error.count + error.mean * error.mean)


def _mean(found: Sequence[float | None]) -> float | None:
    known = [one for one in found if one is not None]
    return math.fsum(known) / len(known) if known else None
