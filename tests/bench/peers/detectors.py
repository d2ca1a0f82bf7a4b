"""Peers' online detectors on the rows of a file, prequentially: each row is scored, then learnt.

    python -m tests.bench.peers.detectors NAME SECONDS FILE.npz...

A file has X (n, k). Prints a line of JSON a file: {"file": name, "rows": n, "seconds": s}, and writes the scores beside
it as FILE.NAME.npy; or {"file": name, "failed": why} where the peer does not take the table. Stops after SECONDS a
file; what was scored until then counts. Runs in the environment that has the peer.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[Any], float]
SEED = 1


def river(kind: str) -> Callable[[Any], Step]:
    """As River's documentation shows it: its trees behind a MinMaxScaler, as they assume [0, 1]."""
    def made(x: Any) -> Step:
        from river import anomaly, compose, preprocessing
        scale = preprocessing.MinMaxScaler() if kind == "HalfSpaceTrees" else preprocessing.StandardScaler()
        options = {"seed": SEED} if kind in ("HalfSpaceTrees", "LODA") else {}
        model = compose.Pipeline(scale, getattr(anomaly, kind)(**options))
        names = [f"x{i}" for i in range(x.shape[1])]

        def step(row: Any) -> float:
            found = dict(zip(names, row.tolist(), strict=True))
            score = float(model.score_one(found))
            model.learn_one(found)
            return score
        return step
    return made


def pysad(kind: str) -> Callable[[Any], Step]:
    """PySAD's model with its defaults; its trees want each feature's least and largest value, which looks ahead."""
    def made(x: Any) -> Step:
        import pysad.models as models
        np.random.seed(SEED)
        given = {"feature_mins": x.min(axis=0), "feature_maxes": x.max(axis=0)} if kind in (
            "HalfSpaceTrees", "RSHash") else {}
        model = getattr(models, kind)(**given)
        seen = 0

        def step(row: Any) -> float:
            nonlocal seen
            seen += 1
            score = float(np.ravel(model.score_partial(row))[0]) if seen > 1 else 0.0
            model.fit_partial(row)
            return score
        return step
    return made


def capymoa(kind: str) -> Callable[[Any], Step]:
    """CapyMOA's detector with its defaults."""
    def made(x: Any) -> Step:
        import capymoa.anomaly as models
        from capymoa.stream import NumpyStream
        stream = NumpyStream(x, np.resize([0, 1], len(x)), target_type="categorical")
        model = getattr(models, kind)(schema=stream.get_schema(), random_seed=SEED)

        def step(_: Any) -> float:
            instance = stream.next_instance()
            score = float(model.score_instance(instance))
            model.train(instance)
            return score
        return step
    return made


PEERS: dict[str, Callable[[Any], Step]] = {
    "river.HalfSpaceTrees": river("HalfSpaceTrees"), "river.LODA": river("LODA"),
    "pysad.HalfSpaceTrees": pysad("HalfSpaceTrees"), "pysad.LODA": pysad("LODA"), "pysad.RSHash": pysad("RSHash"),
    "capymoa.HalfSpaceTrees": capymoa("HalfSpaceTrees"),
    "capymoa.OnlineIsolationForest": capymoa("OnlineIsolationForest"),
}


def run(name: str, file: Path, limit_s: float) -> dict[str, Any]:
    """One table; the rate, and the scores beside the file."""
    with np.load(file, allow_pickle=False) as found:
        x = found["X"]
    step, scores = PEERS[name](x), []
    started = time.perf_counter()
    for at, row in enumerate(x):
        scores.append(step(row))
        if at % 64 == 63 and time.perf_counter() - started > limit_s:
            break
    seconds = time.perf_counter() - started
    np.save(file.with_suffix(f".{name}.npy"), np.nan_to_num(np.array(scores), posinf=1e300, neginf=-1e300))
    return {"file": file.name, "rows": len(scores), "seconds": seconds}


if __name__ == "__main__":
    for each in map(Path, sys.argv[3:]):
        try:
            said = run(sys.argv[1], each, float(sys.argv[2]))
        except ImportError:
            raise
        except Exception as error:                      # a peer's own, of any kind: the other tables go on
            said = {"file": each.name, "failed": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(said), flush=True)
