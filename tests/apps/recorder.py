"""A worker with one agent that counts the records of each key, for tests of the transport and of checkpoints.

Each batch is appended to the file RECORDER_LOG as a line of JSON; RECORDER_DELAY_MS makes every batch slow.
"""

import asyncio
import json
import os

from streams import runner
from streams.app import Pipeline
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.topics import TELEMETRY

DELAY_S = float(os.environ.get("RECORDER_DELAY_MS", "0")) / 1000
LOG = os.environ["RECORDER_LOG"]


class Counter:
    def new(self, key: str) -> list[int]:
        return [0]

    def encode(self, key: str, state: list[int]) -> bytes:
        return json.dumps(state).encode()

    def decode(self, key: str, data: bytes) -> list[int]:
        return json.loads(data)


def register(pipeline: Pipeline) -> None:
    pipeline.state("recorder", Counter())

    async def record(batch: RecordBatch, partition: Partition) -> None:
        states = partition.states("recorder")
        for found in batch.records:
            entry = states.entry((found.key or b"none").decode() if found.value is not None else "tombstones")
            if not entry.includes(batch.topic, found.offset):
                entry.state[0] += 1
                states.touch(entry, batch.topic, found.offset)
        with open(LOG, "a") as out:
            out.write(json.dumps([os.getpid(), batch.partition, batch.first_offset, batch.last_offset,
                                  len(batch)]) + "\n")
        await asyncio.sleep(DELAY_S)

    pipeline.agent("recorder", TELEMETRY, record)


runner.run(Settings(), [register], [])
