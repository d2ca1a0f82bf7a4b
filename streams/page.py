"""The small page every worker serves: /metrics, /healthz, /readyz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from streams import protobuf

#: What is wrong, or an empty list.
Check = Callable[[], list[str]]


async def serve(host: str, port: int, ready: Check) -> tuple[web.AppRunner, int]:
    """Serve in the worker's own event loop, so that an answer proves that the loop runs. Returns (runner, port).

    `/metrics?name[]=NAME`, once or more, answers with those samples only, as other exporters do.

    Raises:
        OSError: the port is taken.
    """
    async def metrics(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", [])
        chosen = REGISTRY.restricted_registry(names) if names else REGISTRY
        if protobuf.wanted(request.headers.get("Accept", "")):
            return web.Response(body=protobuf.generate(chosen), headers={"Content-Type": protobuf.CONTENT_TYPE})
        return web.Response(body=generate_latest(chosen), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        wrong = ready()
        body: dict[str, Any] = {"status": "not ready" if wrong else "ready", "reasons": wrong}
        return web.json_response(body, status=503 if wrong else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: int = runner.addresses[0][1]
    return runner, bound
