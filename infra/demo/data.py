"""The fleet's data: tables that ship inside scikit-learn and River. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
MOST_FEATURES = 16
#: A column with fewer distinct values is a code or a flag: it gets no jitter.
LEAST_DISTINCT = 10
_SHUTTLE_ROWS = 6_000
#: Image segments has 18 columns; these three say least about the class.
_DROPPED = ("short-line-density-5", "short-line-density-2", "region-centroid-col")


@dataclass(frozen=True, eq=False)
class Table:
    """n rows of k numbers and the truth of each.

    Shapes: x (n, k) float64; y (n,) class names (str) or values (float64); continuous (k,) bool.
    """

    name: str
    columns: tuple[str, ...]
    x: FloatArray
    y: NDArray[Any]
    continuous: NDArray[np.bool_]

    @property
    def classes(self) -> bool:
        """True for classification, False for regression."""
        return self.y.dtype.kind == "U"


def _table(name: str, columns: list[str], x: Any, y: Any) -> Table:
    x = np.asarray(x, np.float64)
    continuous = np.array([len(np.unique(column)) >= LEAST_DISTINCT for column in x.T])
    return Table(name, tuple(column.replace(" ", "_") for column in columns), x, np.asarray(y), continuous)


def _digits() -> Table:
    """8 x 8 grey digits: the 16 pixels that tell most (ANOVA F over all rows)."""
    from sklearn.datasets import load_digits
    from sklearn.feature_selection import f_classif

    data = load_digits()
    lit = np.flatnonzero(data.data.std(axis=0) > 0)
    score = f_classif(data.data[:, lit], data.target)[0]
    keep = np.sort(lit[np.argsort(-score, kind="stable")[:MOST_FEATURES]])
    return _table("digits", [f"pixel_{i // 8}_{i % 8}" for i in keep], data.data[:, keep], data.target.astype(str))


def _breast_cancer() -> Table:
    """The ten means of the Wisconsin diagnostic set."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return _table("breast_cancer", list(data.feature_names[:10]), data.data[:, :10], data.target_names[data.target])


def _wine() -> Table:
    from sklearn.datasets import load_wine

    data = load_wine()
    names = [name.replace("/", "_per_") for name in data.feature_names]
    return _table("wine", names, data.data, data.target_names[data.target].astype(str))


def _diabetes() -> Table:
    """Regression: disease progression after a year, from ten measurements in their own units."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    return _table("diabetes", list(data.feature_names), data.data, np.asarray(data.target, np.float64))


def _river(name: str, dataset: Any, classes: Callable[[Any], str], dropped: tuple[str, ...] = ()) -> Table:
    rows = list(dataset)
    columns = [column for column in rows[0][0] if column not in dropped]
    return _table(name, columns, [[row[column] for column in columns] for row, _ in rows],
                  [classes(truth) for _, truth in rows])


def _phishing() -> Table:
    from river.datasets import Phishing

    return _river("phishing", Phishing(), lambda truth: "phishing" if truth else "harmless")


def _image_segments() -> Table:
    from river.datasets import ImageSegments

    return _river("image_segments", ImageSegments(), str, _DROPPED)


def _shuttle() -> Table:
    """The first 6,000 rows of 49,097; 7% are anomalies of the shuttle itself."""
    from river.datasets import Shuttle

    return _river("shuttle", Shuttle().take(_SHUTTLE_ROWS), lambda truth: "fault" if truth else "flow")


_LOADERS: dict[str, Callable[[], Table]] = {
    "digits": _digits, "breast_cancer": _breast_cancer, "wine": _wine, "diabetes": _diabetes,
    "phishing": _phishing, "image_segments": _image_segments, "shuttle": _shuttle,
}


def load(name: str) -> Table:
    """A table by name.

    Raises:
        KeyError: there is no table of that name.
    """
    return _LOADERS[name]()
