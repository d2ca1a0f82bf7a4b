"""One bearer token guards everything under /api and /ws. None is never valid."""

from __future__ import annotations

import os
import secrets
from typing import Annotated

from fastapi import HTTPException, Request
from fastapi.params import Depends
from starlette.websockets import WebSocket

from streams.settings import Settings

TOKEN_FILE = "token"  # noqa: S105  (a file's name)
_PROTOCOL = "bearer."


def api_token(settings: Settings) -> str:
    """STREAMGAUGE_API_TOKEN, or a random one made on the first run and kept in the data folder (mode 0600)."""
    given = settings.api_token.get_secret_value()
    if given:
        return given
    path = settings.data_dir / TOKEN_FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(24))
        return path.read_text().strip()


def _is_right(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


async def _require(request: Request) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not _is_right(given.strip(), request.app.state.token):
        raise HTTPException(401, {"code": "unauthorized", "message":
                                  "send the header 'Authorization: Bearer TOKEN'; the token is in the data folder, "
                                  "file token, or what STREAMGAUGE_API_TOKEN says"},
                            headers={"WWW-Authenticate": "Bearer"})


Authorized = Annotated[None, Depends(_require)]
required = Depends(_require)


def socket_protocol(socket: WebSocket) -> str | None:
    """The subprotocol to answer with, if the token came as one."""
    return next((offer for offer in socket.scope.get("subprotocols", []) if offer.startswith(_PROTOCOL)), None)


def socket_allowed(socket: WebSocket, token: str) -> bool:
    """True if the token came in the header, as `?token=`, or as the subprotocol `bearer.TOKEN` (browsers)."""
    _, _, header = socket.headers.get("authorization", "").partition(" ")
    protocol = (socket_protocol(socket) or "").removeprefix(_PROTOCOL)
    return any(_is_right(given, token) for given in (header.strip(), socket.query_params.get("token", ""), protocol))
