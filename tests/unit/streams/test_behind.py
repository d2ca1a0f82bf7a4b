"""What a pipeline knows of records that wait for an agent, and of partitions that it had."""

from __future__ import annotations

from pathlib import Path

import pytest
from faust.types import TP

from streams import metrics
from streams.app import Pipeline
from streams.records import RecordBatch
from streams.settings import Settings
from streams.topics import TELEMETRY
from streams.wire import WireRecord


def test_an_agent_is_behind_while_records_after_its_last_batch_are_known_of(tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(data_dir=tmp_path, kafka_url="127.0.0.1:1"))
    where = TP(TELEMETRY.name, 1)

    def behind(agent: str) -> bool:
        return pipeline.behind(agent, TELEMETRY, 1)

    assert not behind("slow"), "nothing is known yet"
    pipeline.app.monitor.tp_end_offsets[where] = 10
    assert not behind("slow"), "nor has it read anything"
    pipeline._lag("quick", RecordBatch(*where, [WireRecord(offset, 0, None, b"") for offset in range(10)]))
    pipeline._lag("slow", RecordBatch(*where, [WireRecord(offset, 0, None, b"") for offset in range(6)]))
    assert behind("slow")
    assert not behind("quick")
    assert not pipeline.behind("slow", TELEMETRY, 2), "another partition"


async def test_what_a_batch_under_way_tells_of_a_partition_that_goes_is_forgotten(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(Settings(data_dir=tmp_path, kafka_url="127.0.0.1:1"))

    async def checkpoint() -> None:
        metrics.WATERMARK_DELAY.labels("2").set(0.01)

    monkeypatch.setattr(pipeline.checkpointer, "checkpoint", checkpoint)
    await pipeline._before_revoke(set())
    assert not metrics.WATERMARK_DELAY.collect()[0].samples
