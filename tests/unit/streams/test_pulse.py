"""The worker's page says so when its broker does not answer, whether or not there is work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.embedded.broker import TansuBroker
from streams import pulse
from streams.pulse import ALLOWED_SECONDS, Pulse
from streams.settings import Settings


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_broker_that_is_gone_is_noticed_and_so_is_its_return(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "EVERY_SECONDS", 0.02)
    now_s = 0.0
    with TansuBroker(tmp_path) as broker:
        beat = Pulse(Settings(kafka_url=broker.url), lambda: now_s)
        beating = asyncio.create_task(beat.run())
        try:
            now_s = 2 * ALLOWED_SECONDS
            assert beat.wrong() == [f"the broker has not answered for {now_s:.0f} s"]
            await eventually(lambda: beat.wrong() == [])
            broker.stop()
            now_s = 4 * ALLOWED_SECONDS
            await eventually(lambda: bool(beat.wrong()))
            with TansuBroker(tmp_path / "again", port=broker.port):
                await eventually(lambda: beat.wrong() == [])
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
