"""The TypeScript client against a real gateway that goes away and comes back on the same port."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from stores_world import PATIENCE_S, TOKEN, an_alert, gateway, opened, world
from support import ROOT, free_port

CLIENT = ROOT / "dashboards" / "client"


@pytest.fixture
def node() -> str:
    """Node, with the client built: `npm ci && npm test` in its folder."""
    found = shutil.which("node")
    if found is None or not (CLIENT / "dist" / "index.js").exists() or not (CLIENT / "node_modules" / "ws").exists():
        pytest.skip("the TypeScript client is not built: npm ci && npm test in dashboards/client")
    return found


async def test_it_follows_a_gateway_over_a_restart_and_has_every_alert_once(
        node: str, tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    settings = await world(tmp_path, postgres_url, valkey_url, port=free_port())
    url = f"http://127.0.0.1:{settings.port}"
    async with opened(settings) as hot:
        await hot.append_alerts([an_alert(number) for number in range(10)])
        async with gateway(settings) as running:
            process = await asyncio.create_subprocess_exec(
                node, str(CLIENT / "test" / "live.mjs"), url, TOKEN, "30", "0", stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE)
            assert process.stderr is not None
            while running.app.state.feeds["alert"].subscribers == set():
                await asyncio.sleep(0.02)
            await hot.append_alerts([an_alert(number) for number in range(10, 20)])
        await hot.append_alerts([an_alert(number) for number in range(20, 25)])
        async with gateway(settings):
            await hot.append_alerts([an_alert(number) for number in range(25, 30)])
            out, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert json.loads(out) == [f"alert-{number}" for number in range(30)]
    assert said.decode().split().count("live") == 2


def test_the_page_has_the_client_as_it_is_compiled(node: str) -> None:
    compiled = (CLIENT / "dist" / "index.js").read_text()
    assert (ROOT / "dashboards" / "api" / "static" / "client.js").read_text() == compiled, "npm run build copies it"
