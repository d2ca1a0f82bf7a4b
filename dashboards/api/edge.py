"""The edge of the gateway: counts every request, guards every answer with headers, and puts errors into one shape."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboards.api import metrics
from streams import log

logger = log.get(__name__)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; "
                               "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
#: What a store raises while it is away. Its refusal of a value is another matter.
AWAY = (RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
_CODES = {404: "not_found", 405: "method_not_allowed"}
_HELP = {404: "there is nothing here; /api/openapi.json lists what there is",
         405: "this path takes another method; /api/openapi.json lists them"}


class Edge:
    """Counts requests by route and status, and adds the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.SECONDS.labels(route).observe(time.perf_counter() - started)


def install(app: FastAPI) -> None:
    """Put the edge around the application."""
    app.add_middleware(Edge)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _unclear)
    app.add_exception_handler(asyncpg.DataError, _refused_value)
    for away in AWAY:
        app.add_exception_handler(away, _store_away)
    app.add_exception_handler(Exception, _failed)


def _answer(status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status, headers=headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail: Any = error.detail
    if isinstance(detail, dict):
        return JSONResponse(detail, error.status_code, headers=error.headers)
    return _answer(error.status_code, _CODES.get(error.status_code, "error"),
                   _HELP.get(error.status_code, str(detail)), error.headers)


async def _unclear(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _answer(422, "bad_query", f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}"[:500])


async def _refused_value(_: Request, error: Exception) -> JSONResponse:
    logger.info("value.refused", error=type(error).__name__)
    return _answer(422, "bad_value", "the database takes no such value: look for a character that is none")


async def _store_away(_: Request, error: Exception) -> JSONResponse:
    logger.warning("store.away", error=type(error).__name__)
    return _answer(503, "store_away", "a store does not answer; /readyz says which; try again soon")


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return _answer(500, "internal", f"the gateway failed ({type(error).__name__}); its log has the details")
