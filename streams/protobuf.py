"""Metrics in Prometheus' protobuf form, the only one that has native histograms; the Python client writes text alone.

    varint length, MetricFamily; varint length, MetricFamily; ...

Source: io/prometheus/client/metrics.proto of prometheus/client_model; the wire format of Protocol Buffers. A Prometheus
that takes native histograms (`--enable-feature=native-histograms`) asks for it; others get the text.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
#: Buckets grow by 2^(2^-3): nine percent.
SCHEMA = 3
#: Values up to this are counted as zero; that of the Go client.
_ZERO = 2.0 ** -128
_COUNTER, _GAUGE, _UNTYPED, _HISTOGRAM = 0, 1, 3, 4
_SINGLE = {"counter": (_COUNTER, 3), "gauge": (_GAUGE, 2)}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Native:
    """A native histogram of values from zero on. buckets: i -> values in (2^((i - 1) / 8), 2^(i / 8)]."""

    labels: Labels
    sum: float
    zeros: int = 0
    buckets: Mapping[int, int] = field(default_factory=dict)


class NativeFamily(HistogramMetricFamily):
    """A family of native histograms. As text it has no samples."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        super().__init__(name, documentation, labels=labels)
        self.native: list[Native] = []


def wanted(accept: str) -> bool:
    """True if whoever asks takes this form, by the header Accept."""
    parts = {part.strip() for offer in accept.split(",") for part in offer.split(";")
             if offer.strip().startswith("application/vnd.google.protobuf")}
    return {"proto=io.prometheus.client.MetricFamily", "encoding=delimited"} <= parts


def generate(registry: CollectorRegistry | Collector) -> bytes:
    """All metrics of a registry."""
    families = (found for metric in registry.collect() for found in _families(metric))
    return b"".join(_varint(len(found)) + found for found in families)


def _families(metric: Metric) -> Iterator[bytes]:
    if isinstance(metric, NativeFamily):
        if metric.native:
            yield _family(metric.name, metric.documentation, _HISTOGRAM, map(_native, metric.native))
        return
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in metric.samples:
        by_name[sample.name].append(sample)
    if metric.type == "histogram":
        parts = [by_name.pop(f"{metric.name}_{part}", []) for part in ("bucket", "sum", "count")]
        yield _family(metric.name, metric.documentation, _HISTOGRAM, _classic(*parts))
    for name, samples in by_name.items():       # of a counter NAME_total, and NAME_created
        kind, number = _SINGLE.get(metric.type if not name.endswith("_created") else "gauge", (_UNTYPED, 5))
        yield _family(name, metric.documentation, kind, (
            _labels(sample.labels.items()) + _nested(number, _double(1, sample.value)) for sample in samples))


def _family(name: str, documentation: str, kind: int, metrics: Iterable[bytes]) -> bytes:
    return (_text(1, name) + _text(2, documentation) + _number(3, kind)
            + b"".join(_nested(4, metric) for metric in metrics))


def _labels(pairs: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(_nested(1, _text(1, name) + _text(2, value)) for name, value in pairs)


def _classic(buckets: list[Sample], sums: list[Sample], counts: list[Sample]) -> Iterator[bytes]:
    """Histograms of fixed edges, by their labels."""
    of: dict[Labels, list[Sample]] = defaultdict(list)
    for sample in buckets:
        of[tuple(item for item in sample.labels.items() if item[0] != "le")].append(sample)
    total = {tuple(sample.labels.items()): sample.value for sample in sums}
    for sample in counts:
        labels = tuple(sample.labels.items())
        edges = (_number(1, int(bucket.value)) + _double(2, float(bucket.labels["le"])) for bucket in of[labels])
        yield _labels(labels) + _nested(7, _number(1, int(sample.value)) + _double(2, total.get(labels, 0.0))
                                        + b"".join(_nested(3, edge) for edge in edges))


def _native(found: Native) -> bytes:
    body = _number(1, found.zeros + sum(found.buckets.values())) + _double(2, found.sum)
    body += _number(5, _zigzag(SCHEMA)) + _double(6, _ZERO) + _number(7, found.zeros)
    end, before, spans, deltas = 0, 0, list[tuple[int, int]](), list[int]()
    for index, count in sorted(found.buckets.items()):
        if spans and index == end:
            spans[-1] = spans[-1][0], spans[-1][1] + 1
        else:
            spans.append((index - end, 1))
        deltas.append(count - before)
        end, before = index + 1, count
    body += b"".join(_nested(12, _number(1, _zigzag(offset)) + _number(2, length)) for offset, length in spans)
    if not spans:       # that it is a native one is told by its spans; an empty one of no length says so, too
        body += _nested(12, _number(1, 0) + _number(2, 0))
    return _labels(found.labels) + _nested(7, body + b"".join(_number(13, _zigzag(delta)) for delta in deltas))


# -- the wire format ---------------------------------------------------------------------------------------------------

def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _double(field_number: int, value: float) -> bytes:
    return _varint(field_number << 3 | 1) + struct.pack("<d", value)


def _nested(field_number: int, body: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(body)) + body


def _text(field_number: int, text: str) -> bytes:
    return _nested(field_number, text.encode())
