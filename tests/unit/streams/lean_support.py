"""Events for tests of the decoder, and how it is held against the contract."""

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.telemetry import TelemetryEvent
from streams.batch import Decoder, Limits, TelemetryBatch
from streams.records import RecordBatch

GOOD = {"event_id": "e1", "ts": 1_700_000_000_000, "environment": "prod", "model": "churn", "version": "3",
        "prediction": "yes", "confidence": 0.9, "latency_ms": 4, "error": None, "features": {"age": 40, "plan": "a",
        "paid": True, "gone": None}, "metrics": {"tokens": 12.5}, "segment": {"country": "PT"}, "trace_id": "t"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=140),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
FIELD = st.sampled_from([*GOOD, "component", "label", "schema_version", "unknown"])


def record(value: bytes | None, offset: int = 0, at: int = 1_700_000_000_000) -> Any:
    return SimpleNamespace(offset=offset, timestamp=at, key=b"churn", value=value)


def decode(*values: bytes | None, limits: Limits | None = None) -> TelemetryBatch:
    return Decoder(limits)(RecordBatch("telemetry", 2, [record(value, i) for i, value in enumerate(values)]))


def values_of(batch: TelemetryBatch, row: int) -> dict[str, float]:
    where = slice(batch.start[row], batch.start[row + 1])
    return {batch.fields[f]: v for f, v in zip(batch.field[where], batch.value[where].tolist(), strict=True)}


def agree(value: bytes, segment_keys: tuple[str, ...] = ("country", "plän")) -> None:
    decoder = Decoder(Limits(max_ahead_ms=0), segment_keys)
    decoder(RecordBatch("telemetry", 0, [record(json.dumps(GOOD).encode())]))   # the fast path knows the names
    batch = decoder(RecordBatch("telemetry", 0, [record(value)]))
    try:
        expected = TelemetryEvent.model_validate_json(value)
    except ValidationError:
        assert len(batch) == 0
        assert len(batch.rejected) == 1
        return
    assert not batch.rejected
    assert batch.ts_ms[0] == expected.ts
    assert batch.event_ids[0] == expected.event_id
    assert batch.trace_ids[0] == expected.trace_id
    assert bool(batch.error[0]) == (expected.error is not None)
    got = values_of(batch, 0)
    numbers = {"latency_ms": expected.latency_ms, "confidence": expected.confidence}
    numbers |= {f"metric.{k}": v for k, v in expected.metrics.items()}
    mixed = {"prediction": expected.prediction} if expected.prediction is not None else {}
    mixed |= {f"feature.{k}": math.nan if v is None else v for k, v in expected.features.items()}
    want = {k: float(v) for k, v in numbers.items() if v is not None}
    want |= {f"segment.{k}={v}": 1.0 for k, v in expected.segment.items() if k in segment_keys}
    for name, held in mixed.items():
        want |= {f"{name}={held}": 1.0} if isinstance(held, str) else {name: float(held)}
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[k], want[k], equal_nan=True) for k in want)
