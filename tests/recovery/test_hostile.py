"""A thousand hostile records among good ones: all good ones are counted, all bad ones kept, nothing restarts."""

from __future__ import annotations

import base64
import json
import random
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fleet import flush, published, stream, windows_of
from streams.batch import Decoder, Limits
from streams.kafka import create_topics
from streams.records import RecordBatch
from streams.settings import PREFIX, Settings
from support import Worker, newest, produce, read_all

GOOD = next(stream(1_700_000_000_000, 1, 1))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-10**40, 10**40), st.floats(), st.text(max_size=600),
                   st.lists(st.integers(), max_size=4), st.dictionaries(st.text(max_size=5), st.floats(), max_size=4))
BROKEN = st.builds(lambda field, value: json.dumps(GOOD | {field: value}).encode(), st.sampled_from(sorted(GOOD)),
                   VALUES)
CUT = st.builds(lambda at: json.dumps(GOOD).encode()[:at], st.integers(1, 200))
DEEP = st.builds(lambda depth, opener: opener * depth, st.integers(1_000, 50_000),
                 st.sampled_from([b"[", b'{"a":', b'[{"features":']))
HUGE = st.sampled_from([b'{"ts":1e999}', b"9" * 5_000, b'{"event_id":"' + b"x" * 100_000 + b'"}'])
TEN_MEGABYTES = [b'{"event_id":"' + b"x" * 10_000_000 + b'"}', b"\0" * 10_000_000] * 5
HOSTILE = st.one_of(BROKEN, CUT, DEEP, HUGE, st.binary(min_size=1, max_size=300))


def hostile(count: int) -> list[bytes]:
    """The same `count` records on every run."""
    found: list[bytes] = []

    @seed(5)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(HOSTILE)
    def collect(value: bytes) -> None:
        found.append(value)

    while len(found) < count:
        collect()
    return found[:count]


async def test_a_thousand_hostile_records_stop_nothing_and_are_all_kept(broker_url: str, tmp_path: Path) -> None:
    chosen = Settings(kafka_url=broker_url, topic_prefix="hostile.", group="hostile")
    await create_topics(chosen)
    start_ms = int(time.time() * 1000) - 60_000
    good, bad = list(stream(start_ms, 20, 200)), hostile(990) + TEN_MEGABYTES
    random.Random(3).shuffle(bad)
    mixed: list[Any] = []
    for number, item in enumerate(good):
        mixed.append(item)
        mixed += bad[number // 4:number // 4 + 1] if number % 4 == 0 else []
    await produce(chosen, "telemetry", mixed)
    worker = Worker({f"{PREFIX}KAFKA_URL": broker_url, f"{PREFIX}TOPIC_PREFIX": "hostile.",
                     f"{PREFIX}GROUP": "hostile", f"{PREFIX}CHECKPOINT_MS": "500"}, tmp_path / "worker.log").start()
    try:
        worker.wait_ready()
        pid = worker.process.pid
        await produce(chosen, "telemetry", flush(chosen, start_ms + 200_000), partition=lambda item: item["partition_"])
        log = await read_all(chosen, "telemetry")
        decoder = Decoder(Limits(max_ahead_ms=300_000))
        refused = sum(len(decoder(RecordBatch("t", record.partition, [record])).rejected) for record in log)
        assert refused > 900
        wanted, got, kept = windows_of(log, chosen), {}, []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (got != wanted or len(kept) < refused):
            got = published(newest(await read_all(chosen, "metrics")))
            kept = [json.loads(record.value) for record in await read_all(chosen, "telemetry-rejected")]
        assert got == wanted
        late = [record for record in kept if record["reason"] == "too_old"]      # valid, but for no open window
        assert len({record["rejected_id"] for record in kept}) == len(kept) == refused + len(late)
        assert worker.metric("streamgauge_too_late_total") == len(late)
        sent = {(record.partition, record.offset): record.value for record in log}
        for record in kept:
            if record["position"] < 0:
                original = sent[(record["partition"], record["offset"])]
                assert base64.b64decode(record["payload_base64"]) == original[:1_048_576]
        assert worker.process.pid == pid
        assert not worker.died()
        assert worker.metric("streamgauge_rejected_total") == refused
    finally:
        worker.stop()
