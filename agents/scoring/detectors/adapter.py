"""Any of River's anomaly detectors, by its name."""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from river import anomaly, base, compose, preprocessing

from agents.scoring.detectors.base import RIVERS, Detector
from agents.scoring.detectors.kernels import FloatArray

#: River's compiled functions: arithmetic alone, such as the distance of two rows.
_COMPILED = "river._river_rust."
#: What a snapshot may name beside River's classes: by module, or none of it.
_NAMES = {"builtins": {"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray",
                       "complex", "slice", "range", "object"},
          "collections": {"deque", "defaultdict", "OrderedDict", "Counter"}, "random": {"Random"},
          "functools": {"partial"}, "numpy": {"ndarray", "dtype", "float64", "int64"},
          "numpy._core.multiarray": {"_reconstruct", "scalar"}, "numpy._core.numeric": {"_frombuffer"},
          "numpy.random._pickle": {"__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"},
          "numpy.random._mt19937": {"MT19937"}, "numpy.random._pcg64": {"PCG64"}}
#: River's detectors that score a target, or judge another's scores: they are not detectors of rows.
_NOT_OF_ROWS = {"GaussianScorer", "PredictiveAnomalyDetection", "QuantileFilter", "StandardAbsoluteDeviation",
                "ThresholdFilter"}


def river_names() -> list[str]:
    """The names that `RiverDetector` takes."""
    return sorted(RIVERS + name for name in anomaly.__all__ if name not in _NOT_OF_ROWS)


class RiverDetector(Detector):
    """A River detector behind a running standardisation, row by row. Slow, as River's are; a missing value is the mean.

    Its snapshot is a pickle that may name River's classes, and a few of numpy's, only. Scores below 0 count as 0, and
    what is not finite as 0.

    Raises:
        ValueError: River has no such detector of rows.
    """

    def __init__(self, name: str, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        if name not in river_names():
            raise ValueError(f"{name} is not a detector: choose from {', '.join(river_names())}")
        self.kind = name.removeprefix(RIVERS)
        self.learnt = 0
        self.model = self._made()

    @property
    def name(self) -> str:                                                  # type: ignore[override]
        return RIVERS + self.kind

    def _made(self) -> Any:
        kind = getattr(anomaly, self.kind)
        seeded = "seed" in inspect.signature(kind).parameters
        model: base.Estimator = kind(seed=self.seed % 2**31) if seeded else kind()
        scale: Any = preprocessing.MinMaxScaler() if self.kind == "HalfSpaceTrees" else preprocessing.StandardScaler()
        self.moments: FloatArray = np.zeros((2, self.width))
        return compose.Pipeline(scale, model)

    @property
    def ready(self) -> bool:
        return self.learnt > 0

    def score_rows(self, rows: FloatArray) -> FloatArray:
        found = np.array([float(self.model.score_one(x)) for x in self._dicts(rows)])
        return np.where(np.isfinite(found), np.maximum(found, 0.0), 0.0)

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        if not self.width:                                                  # River's trees need a feature
            return
        for row in rows:
            known = ~np.isnan(row)
            self.moments[0, known] += 1.0
            self.moments[1, known] += (row[known] - self.moments[1, known]) / self.moments[0, known]
            for x in self._dicts(row[None, :]):
                self.model.learn_one(x)
        self.learnt += len(rows)

    def _dicts(self, rows: FloatArray) -> list[dict[str, float]]:
        filled = np.clip(np.where(np.isnan(rows), self.moments[1], rows), -1e50, 1e50)
        names = self.features[:self.width]
        return [dict(zip(names, row, strict=True)) for row in filled.tolist()]

    def widen(self) -> None:
        moments = np.zeros((2, self.width))
        moments[:, :self.moments.shape[1]] = self.moments
        self.moments = moments

    def renew(self) -> None:
        self.learnt = 0
        self.model = self._made()

    def typical(self) -> FloatArray:
        return np.where(self.moments[0] > 0, self.moments[1], np.nan)

    def pack(self) -> dict[str, Any]:
        return {"moments": self.moments, "learnt": np.array([self.learnt], np.int64),
                "model": np.frombuffer(pickle.dumps(self.model), np.uint8)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        self.moments, self.learnt = found["moments"], int(found["learnt"][0])
        try:
            self.model = _Unpickler(io.BytesIO(found["model"].tobytes())).load()
        except (pickle.UnpicklingError, EOFError, AttributeError) as error:
            raise ValueError(f"the River model of the snapshot cannot be read: {error}") from None


class _Unpickler(pickle.Unpickler):
    """Reads River's models, and refuses everything that could be anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _NAMES.get(module, ()):
            return super().find_class(module, name)
        if module.startswith("river.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) or module.startswith(_COMPILED):
                return found
        raise pickle.UnpicklingError(f"it names {module}.{name}")
