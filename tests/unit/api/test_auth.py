"""The token: made once, never empty, compared whole; without it nothing under /api and /ws answers."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from stores_world import TOKEN, Gateway, gateway, world
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from dashboards.api.auth import COOKIE, api_token, is_right
from streams.settings import Settings


def test_a_token_is_made_on_the_first_run_and_kept_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", api_token="")
    token = api_token(settings)
    assert len(token) >= 32
    assert api_token(settings) == token
    assert stat.S_IMODE((tmp_path / "data" / "token").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["token"]


def test_a_given_token_is_taken_and_not_written(tmp_path: Path) -> None:
    assert api_token(Settings(data_dir=tmp_path, api_token=" given ")) == "given"
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_agree_on_one_token(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api_token="")
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: api_token(settings), range(64)))) == 1


@pytest.mark.parametrize("left", ["", " \n"])
def test_an_empty_token_file_is_filled_and_never_lets_anyone_in(tmp_path: Path, left: str) -> None:
    (tmp_path / "token").write_text(left)
    assert len(api_token(Settings(data_dir=tmp_path, api_token=""))) >= 32
    assert not is_right("", "")


@pytest.mark.parametrize(("given", "right"), [
    (TOKEN, True), (TOKEN[:-1], False), (TOKEN + "x", False), ("", False), (TOKEN.upper(), False), ("\udcff", False)])
def test_only_the_whole_token_is_right(given: str, right: bool) -> None:
    assert is_right(given, TOKEN) is right


@pytest.fixture
async def bare(tmp_path: Path) -> Settings:
    """No store answers: what needs none works all the same."""
    return Settings(data_dir=tmp_path, api_token=TOKEN, port=0, redis_url="redis://127.0.0.1:1/0",
                    database_url="postgresql://nobody@127.0.0.1:1/none")


PATHS = ("/api/overview", "/api/models", "/api/series", "/api/incidents", "/api/incidents/x", "/api/alerts",
         "/api/alerts/stream", "/api/groups", "/api/silences", "/api/rules", "/api/metrics", "/api/anomalies",
         "/api/drift", "/api/retraining-requests", "/api/push/key", "/api/push/subscriptions", "/api/docs",
         "/api/openapi.json")
#: What only people with more than the right to read may send; by another method than GET.
ANSWERS = {"/api/incidents/{incident_id}/acknowledge", "/api/incidents/{incident_id}/notes",
           "/api/silences/{silence_id}", "/api/rules/dry-run", "/api/push/subscriptions/{subscription_id}"}


async def test_nothing_under_api_answers_without_the_token(bare: Settings) -> None:
    async with gateway(bare) as running, httpx.AsyncClient(base_url=running.page, trust_env=False) as stranger:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"},
                        {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
            for path in PATHS:
                answer = await stranger.get(path, headers=headers)
                assert answer.status_code == 401, (path, headers)
                assert set(answer.json()) == {"code", "message"}
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        known = set((await running.get("/api/openapi.json"))["paths"])
        assert {path.replace("/x", "/{incident_id}") for path in PATHS[:-2]} | ANSWERS == known


async def test_the_cookie_opens_the_documents_and_nothing_else(bare: Settings) -> None:
    async with gateway(bare) as running, httpx.AsyncClient(base_url=running.page, trust_env=False,
                                                           cookies={COOKIE: TOKEN}) as browser:
        assert (await browser.get("/api/docs")).status_code == 200
        assert (await browser.get("/api/openapi.json")).json()["info"]["title"] == "Streamgauge"
        assert (await browser.get("/api/alerts")).status_code == 401
        with pytest.raises(InvalidStatus, match="401"):
            await connect(_socket(running), additional_headers={"Cookie": f"{COOKIE}={TOKEN}"}, proxy=None)


async def test_health_metrics_and_pages_are_open(bare: Settings) -> None:
    async with gateway(bare) as running, httpx.AsyncClient(base_url=running.page, trust_env=False) as stranger:
        for path in ("/healthz", "/metrics", "/", "/static/page.js", "/static/client.js", "/static/page.css",
                     "/static/push.js", "/static/icon.svg", "/static/icon-192.png", "/manifest.json", "/worker.js"):
            assert (await stranger.get(path)).status_code == 200, path
        for path in ("/static/../auth.py", "/static/%2e%2e/auth.py", "/static/"):
            assert (await stranger.get(path)).status_code == 404, path


def _socket(running: Gateway, query: str = "") -> str:
    return f"{running.page.replace('http', 'ws')}/ws/alerts{query}"


async def test_a_socket_takes_the_token_in_three_ways(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    async with gateway(await world(tmp_path, postgres_url, valkey_url)) as running:
        protocol = Subprotocol(f"bearer.{TOKEN}")
        async with connect(_socket(running), additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None):
            pass
        async with connect(_socket(running, f"?token={TOKEN}"), proxy=None):
            pass
        async with connect(_socket(running), subprotocols=[protocol], proxy=None) as line:
            assert line.subprotocol == protocol


@pytest.mark.parametrize(("query", "headers", "protocol"), [
    ("", {}, None), ("?token=", {}, None), ("?token=wrong", {}, None), ("", {"Authorization": "Bearer "}, None),
    ("", {"Authorization": f"Basic {TOKEN}"}, None), ("", {}, "bearer."), ("", {}, "bearer.wrong"), ("", {}, TOKEN)])
async def test_a_socket_without_the_token_is_refused_with_401(bare: Settings, query: str, headers: dict[str, str],
                                                              protocol: str | None) -> None:
    async with gateway(bare) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(_socket(running, query), additional_headers=headers, proxy=None,
                          subprotocols=[Subprotocol(protocol)] if protocol else None)
        assert refused.value.response.status_code == 401
        assert b'"unauthorized"' in refused.value.response.body
