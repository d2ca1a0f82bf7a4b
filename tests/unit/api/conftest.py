"""Stores and a gateway on them, for tests of the API. A module says what `settings` are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stores_world import TOKEN, Gateway, eventually, gateway, opened

from streams.settings import Settings
from streams.stores.history import History
from streams.stores.postgres import connect
from streams.stores.redis import Hot
from streams.stores.spans import Retention


@pytest.fixture
def bare(tmp_path: Path) -> Settings:
    """No store answers: doors need none."""
    return Settings(data_dir=tmp_path, api_token=TOKEN, port=0, redis_url="redis://127.0.0.1:1/0",
                    database_url="postgresql://nobody@127.0.0.1:1/none")


@pytest.fixture
async def history(settings: Settings) -> AsyncIterator[History]:
    pool = await connect(settings)
    yield History(pool, Retention(30))
    await pool.close()


@pytest.fixture
async def hot(settings: Settings) -> AsyncIterator[Hot]:
    async with opened(settings) as found:
        yield found


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway that is ready."""
    async with gateway(settings) as running:
        async def ready() -> bool:
            return (await running.rest.get("/readyz")).status_code == 200

        await eventually(ready, "ready")
        yield running
