"""A worker's page."""

from __future__ import annotations

import asyncio

import httpx
from prometheus_client import Counter

from streams import page

ASKED = Counter("streamgauge_test_page_asked", "Of this test")
OTHER = Counter("streamgauge_test_page_other", "Of this test")


def _answers(*paths: str) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        runner, port = await page.serve("127.0.0.1", 0, lambda: ["no partition"])
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                return [await client.get(path) for path in paths]
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def test_metrics_are_all_or_those_asked_for() -> None:
    everything, one, none = _answers("/metrics", "/metrics?name[]=streamgauge_test_page_asked_total",
                                     "/metrics?name[]=no_such")
    assert all(f"streamgauge_test_page_{name}_total" in everything.text for name in ("asked", "other"))
    assert "streamgauge_test_page_asked_total" in one.text and "streamgauge_test_page_other_total" not in one.text
    assert none.status_code == 200 and not none.text.strip()


def test_a_worker_that_is_not_ready_says_why() -> None:
    well, ready = _answers("/healthz", "/readyz")
    assert well.status_code == 200
    assert ready.status_code == 503 and ready.json()["reasons"] == ["no partition"]
