"""The fleet's models: trained at start, seeded, a few seconds in all.

Each model has v1 (linear) and v2 (gradient boosting). Half of its table trains, half is held out; the held-out half
is what the callers send. Broken versions are broken the way versions break: an artefact that expects other columns,
and a training run whose labels lost their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.feature_selection import f_classif, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from infra.demo.data import FloatArray, Table, load

PREPROCESS = "preprocess"
MODEL = "model"
MAIN, NEXT = "v1", "v2"


@dataclass(frozen=True, slots=True)
class Spec:
    """A model of the fleet. `weight` is its share of the fleet's events; `canary` the share of v2 in prod."""

    name: str
    table: str
    weight: float
    components: tuple[str, ...] = (MODEL,)
    canary: float = 0.0


SPECS: tuple[Spec, ...] = (
    Spec("phishing-filter", "phishing", 3.0),
    Spec("shuttle-watch", "shuttle", 2.0, canary=0.3),
    Spec("digit-reader", "digits", 2.5, components=(PREPROCESS, MODEL)),
    Spec("tumour-check", "breast_cancer", 2.0, canary=0.3),
    Spec("scene-labels", "image_segments", 2.5, components=(PREPROCESS, MODEL)),
    Spec("wine-grader", "wine", 1.5),
    Spec("progress-forecast", "diabetes", 1.5),
)


@dataclass(frozen=True, eq=False)
class Version:
    """A servable version: `preprocess` imputes and scales (n, k) -> (n, k); `estimator` predicts from that."""

    name: str
    preprocess: Pipeline
    estimator: Any


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model with its held-out rows: x (n, k), y (n,). `ranked` are columns, most telling first."""

    spec: Spec
    table: Table
    x_train: FloatArray
    y_train: NDArray[Any]
    x: FloatArray
    y: NDArray[Any]
    versions: dict[str, Version]
    ranked: tuple[int, ...]
    seed: int

    def quality(self, version: str) -> float:
        """Accuracy (classes) or R2 (values) on the held-out rows."""
        served = self.versions[version]
        return float(served.estimator.score(served.preprocess.transform(self.x), self.y))

    def mismatched(self, name: str) -> Version:
        """A version whose estimator was packed for tables without the last column: predicting raises."""
        preprocess = _preprocess().fit(self.x_train)
        narrow = preprocess.transform(self.x_train)[:, :-1]
        return Version(name, preprocess, _linear(self.table).fit(narrow, self.y_train))

    def mistrained(self, name: str) -> Version:
        """A version trained on shuffled labels (classes), or on labels in another unit (values)."""
        preprocess = _preprocess().fit(self.x_train)
        scaled = preprocess.transform(self.x_train)
        if not self.table.classes:
            return Version(name, preprocess, Ridge(alpha=1e4).fit(scaled, self.y_train / 100.0))
        shuffled = np.random.default_rng(self.seed).permutation(self.y_train)
        return Version(name, preprocess, LogisticRegression(C=1e-3).fit(scaled, shuffled))


def _preprocess() -> Pipeline:
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())


def _linear(table: Table) -> Any:
    return LogisticRegression(max_iter=500) if table.classes else Ridge(alpha=1.0)


def _boosted(table: Table, seed: int) -> Any:
    kind = GradientBoostingClassifier if table.classes else GradientBoostingRegressor
    return kind(n_estimators=20, max_depth=3, learning_rate=0.25, subsample=0.7, random_state=seed)


def train(spec: Spec, seed: int) -> Model:
    """Load the table, split it in halves, fit both versions."""
    table = load(spec.table)
    x_train, x_test, y_train, y_test = train_test_split(
        table.x, table.y, test_size=0.5, random_state=seed, stratify=table.y if table.classes else None)
    versions = {}
    for name, estimator in ((MAIN, _linear(table)), (NEXT, _boosted(table, seed))):
        preprocess = _preprocess().fit(x_train)
        versions[name] = Version(name, preprocess, estimator.fit(preprocess.transform(x_train), y_train))
    measure = f_classif if table.classes else f_regression
    telling = np.nan_to_num(measure(x_train, y_train)[0])
    ranked = tuple(int(i) for i in np.argsort(-telling, kind="stable"))
    return Model(spec, table, x_train, y_train, x_test, y_test, versions, ranked, seed)


def train_all(seed: int, specs: tuple[Spec, ...] = SPECS) -> list[Model]:
    """Every model of the fleet."""
    return [train(spec, seed) for spec in specs]
