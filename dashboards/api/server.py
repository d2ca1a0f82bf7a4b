"""The gateway's application and process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from dashboards.api import door, edge, life, metrics, push, questions, routes, rules, sockets
from dashboards.api.asking import summary
from dashboards.api.auth import api_token, required_or_cookie
from dashboards.api.commands import Commands
from dashboards.api.feed import Feed
from dashboards.api.history import HistoryReader
from dashboards.api.tokens import TokenBook
from streams import log
from streams.settings import Settings
from streams.stores import postgres
from streams.stores import redis as hot

logger = log.get(__name__)
STATIC = Path(__file__).parent / "static"
CHECK_SECONDS, RETRY_SECONDS, STOP_SECONDS = 2.0, 1.0, 3
POOL, COMMAND_SECONDS = 8, 10.0
#: Bytes of a message that a socket may send; none says anything.
SOCKET_BYTES = 4_096
MOST_FILES = 65_536
#: A socket that does not answer a ping for so long, or for a heartbeat if that is longer, is cut.
PONG_SECONDS = 5.0


def create_app(settings: Settings) -> FastAPI:
    """The gateway; connects when it starts, and goes on trying for stores that are away."""
    app = FastAPI(title="Streamgauge", version="0.1.0", openapi_url=None, docs_url=None, redoc_url=None,
                  lifespan=_lifespan,
                  description="Incidents, alerts, drift and metrics of machine-learning models in production. "
                              "Live: WebSockets /ws/alerts, /ws/anomalies and /ws/windows. Errors are {code, message}.")
    app.state.settings = settings
    app.state.tokens = TokenBook(api_token(settings), settings.tokens_path)
    app.state.push_keys = push.keys_of(settings)
    app.state.history = None
    app.include_router(routes.router)
    app.include_router(questions.router)
    app.include_router(life.router)
    app.include_router(rules.router)
    app.include_router(push.router)
    app.include_router(sockets.router)
    edge.install(app)
    _open_routes(app)
    _documents(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _open_routes(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/worker.js", include_in_schema=False)     # here, as a service worker has what lies below it only
    async def service_worker() -> FileResponse:
        return FileResponse(STATIC / "worker.js", headers={"Cache-Control": "no-cache"})

    @app.get("/manifest.json", include_in_schema=False)
    async def manifest() -> FileResponse:
        return FileResponse(STATIC / "manifest.json", media_type="application/manifest+json")

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
        with contextlib.suppress(RedisError, OSError, TimeoutError):      # away: as it was
            metrics.note_incidents(await asyncio.wait_for(app.state.hot.open_alerts(), CHECK_SECONDS))
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _documents(app: FastAPI) -> None:
    @app.get("/api/openapi.json", include_in_schema=False, dependencies=[required_or_cookie])
    async def openapi() -> dict[str, Any]:
        return app.openapi()

    @app.get("/api/docs", include_in_schema=False, dependencies=[required_or_cookie])
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.hot = hot.Hot(hot.connect(settings), settings)
    store: hot.Hot = app.state.hot
    app.state.feeds = {feed.stream.kind: feed for feed in (
        Feed(store.client, store.alerts), Feed(store.client, store.anomalies),
        Feed(store.client, store.windows, hot.view))}
    for feed in app.state.feeds.values():
        await feed.start()
    app.state.commands = Commands(settings)
    tasks = [task for task in (asyncio.create_task(_connect(app)), push.tend(app)) if task is not None]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for feed in app.state.feeds.values():
            await feed.stop()
        await app.state.commands.close()
        with contextlib.suppress(OSError):
            await app.state.hot.client.aclose()
        if app.state.history is not None:
            await _close(app.state.history.pool)


async def _close(pool: Any) -> None:
    try:
        await asyncio.wait_for(pool.close(), CHECK_SECONDS)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


async def _connect(app: FastAPI) -> None:
    """Open the database, trying until it answers; from then on the pool connects anew by itself."""
    away = False
    while app.state.history is None:
        try:
            pool = await postgres.connect(app.state.settings, POOL, COMMAND_SECONDS)
            app.state.history = HistoryReader(pool)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            if not away:
                logger.warning("database.away", error=type(error).__name__)
            away = True
            await asyncio.sleep(RETRY_SECONDS)
    if away:
        logger.info("database.back")


async def _wrong(app: FastAPI) -> list[str]:
    async def ask(name: str, question: Callable[[], Awaitable[Any]]) -> str | None:
        try:
            await asyncio.wait_for(question(), CHECK_SECONDS)
        except LookupError as error:
            return f"{name} is not ready: {error}"
        except Exception as error:
            return f"{name} does not answer ({type(error).__name__})"
        return None

    async def database() -> None:
        if app.state.history is None:
            raise ConnectionError
        await app.state.history.ready()

    async def reader() -> None:
        if not all(feed.alive for feed in app.state.feeds.values()):
            raise LookupError("its reader has ended; restart the gateway")

    answers = await asyncio.gather(ask("Redis", app.state.hot.client.ping), ask("PostgreSQL", database),
                                   ask("A stream", reader))
    return [answer for answer in answers if answer]


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens in one line of ours."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            logger.info("gateway.started", page=f"http://{f'[{host}]' if ':' in host else host}:{port}")


def server(settings: Settings) -> uvicorn.Server:
    """The gateway in its HTTP server. Its `run()` serves; `should_exit` ends it."""
    http, line = door.protocols(settings, _descriptors())
    return _Server(uvicorn.Config(
        create_app(settings), host=settings.host, port=settings.port, log_config=None, access_log=False,
        server_header=False, http=http, ws=line, ws_max_size=SOCKET_BYTES, timeout_graceful_shutdown=STOP_SECONDS,
        ws_ping_interval=settings.heartbeat_ms / 1000, ws_ping_timeout=max(PONG_SECONDS, settings.heartbeat_ms / 1000)))


def _descriptors() -> int:
    """How many files, sockets among them, this process may have open: as many as it can be given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, MOST_FILES) if hard != resource.RLIM_INFINITY else MOST_FILES
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def serve(settings: Settings) -> None:
    """The `streamgauge gateway` command: serve until SIGINT or SIGTERM."""
    log.configure(settings, "gateway")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)      # its lines have addresses, and those ?token=
    gateway = server(settings)
    summary.warm()
    gc.collect()
    gc.freeze()             # or each full collection looks at 150,000 objects, and nothing is answered meanwhile
    for number in (signal.SIGINT, signal.SIGTERM):      # uvicorn sends itself the signal again when it has stopped
        signal.signal(number, lambda *_: setattr(gateway, "should_exit", True))
    gateway.run()
    logger.info("gateway.stopped", failed=not gateway.started)
    if not gateway.started:
        sys.exit(1)
