"""The gateway's application and process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from dashboards.api import metrics, routes, sockets
from dashboards.api.auth import api_token
from dashboards.api.feed import Feed
from dashboards.api.history import HistoryReader
from streams import log
from streams.settings import Settings
from streams.stores import postgres
from streams.stores import redis as hot

logger = log.get(__name__)
PAGE = Path(__file__).parent / "static" / "index.html"
CHECK_SECONDS = 2.0
RETRY_SECONDS = 1.0


def create_app(settings: Settings) -> FastAPI:
    """The gateway; connects when it starts, and goes on trying for stores that are away."""
    app = FastAPI(title="Streamgauge", version="0.1.0", openapi_url="/api/openapi.json", docs_url="/api/docs",
                  redoc_url=None, lifespan=_lifespan,
                  description="Incidents, alerts, drift and metrics of machine-learning models in production.")
    app.state.settings = settings
    app.state.token = api_token(settings)
    app.state.history = None
    app.include_router(routes.router)
    app.include_router(sockets.router)
    app.add_exception_handler(HTTPException, _as_json)
    for away in (RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        app.add_exception_handler(away, _store_away)
    app.middleware("http")(_count)
    _open_routes(app)
    return app


def _open_routes(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        wrong = await _wrong(app)
        return JSONResponse({"status": "not ready" if wrong else "ready", "reasons": wrong},
                            503 if wrong else 200)

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.hot = hot.Hot(hot.connect(settings), settings)
    app.state.feed = Feed(app.state.hot)
    await app.state.feed.start()
    connecting = asyncio.create_task(_connect(app))
    yield
    connecting.cancel()
    await app.state.feed.stop()
    await app.state.hot.client.aclose()
    if app.state.history is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.state.history.pool.close(), CHECK_SECONDS)


async def _connect(app: FastAPI) -> None:
    """Open the database, trying until it answers; from then on the pool connects anew by itself."""
    while app.state.history is None:
        try:
            app.state.history = HistoryReader(await postgres.connect(app.state.settings))
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            logger.warning("database.away", error=type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)


async def _wrong(app: FastAPI) -> list[str]:
    async def ask(name: str, question: Callable[[], Awaitable[Any]]) -> str | None:
        try:
            await asyncio.wait_for(question(), CHECK_SECONDS)
        except Exception as error:
            return f"{name} does not answer ({type(error).__name__})"
        return None

    async def database() -> None:
        if app.state.history is None:
            raise ConnectionError
        await app.state.history.pool.fetchval("SELECT 1")

    answers = await asyncio.gather(ask("Redis", app.state.hot.client.ping), ask("PostgreSQL", database))
    return [answer for answer in answers if answer]


async def _as_json(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail if isinstance(error.detail, dict) else {"code": "error", "message": str(error.detail)}
    return JSONResponse(detail, error.status_code, headers=error.headers)


async def _store_away(_: Request, error: Exception) -> JSONResponse:
    logger.warning("store.away", error=type(error).__name__)
    return JSONResponse({"code": "store_away", "message": "a store does not answer; see /readyz, and try again soon"},
                        503)


async def _count(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    started = time.perf_counter()
    response = await answer(request)
    route = getattr(request.scope.get("route"), "path", "other")
    metrics.REQUESTS.labels(route, str(response.status_code)).inc()
    metrics.SECONDS.labels(route).observe(time.perf_counter() - started)
    return response


def serve(settings: Settings) -> None:
    """The `streamgauge gateway` command: serve until SIGINT or SIGTERM."""
    log.configure(settings, "gateway")
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_config=None, access_log=False,
                ws="websockets", timeout_graceful_shutdown=3)
