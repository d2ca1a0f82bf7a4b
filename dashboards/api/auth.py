"""One bearer token guards everything under /api and /ws. An empty one is never valid."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.websockets import WebSocket

from streams.settings import Settings

TOKEN_FILE = "token"  # noqa: S105  (a file's name)
#: Set by the start page, for /api/docs and /api/openapi.json only: a link carries no header.
COOKIE = "streamgauge_token"
_PROTOCOL = "bearer."
_BEARER = HTTPBearer(auto_error=False, description="The token of the data folder's file `token`, or "
                                                   "STREAMGAUGE_API_TOKEN")
_Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
HELP = ("send the header 'Authorization: Bearer TOKEN'; the token is in the data folder, file token, or what "
        "STREAMGAUGE_API_TOKEN says")
DOCS_HELP = "open the start page (/), give the token there once, and come back"


def api_token(settings: Settings) -> str:
    """STREAMGAUGE_API_TOKEN, or a random one made on the first run and kept in the data folder (mode 0600).

    Raises:
        OSError: the folder cannot be written.
    """
    given = settings.api_token.get_secret_value().strip()
    path = settings.data_dir / TOKEN_FILE
    return given or _read(path) or _make(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _make(path: Path) -> str:
    """Write the file beside its place and link it there, so that nobody reads half of it and the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(24))
            out.flush()
            os.fsync(out.fileno())
        if path.exists() and not _read(path):       # left empty by a full disk
            part.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
    return _read(path)


def is_right(given: str, token: str) -> bool:
    """Compare in a time that tells nothing of the token; what is empty is wrong."""
    same = secrets.compare_digest(_digest(given), _digest(token))
    return same and bool(token)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def refusal(help_text: str = HELP) -> HTTPException:
    """401, and what to do."""
    return HTTPException(401, {"code": "unauthorized", "message": help_text}, headers={"WWW-Authenticate": "Bearer"})


async def _require(request: Request, given: _Given) -> None:
    if given is None or not is_right(given.credentials.strip(), request.app.state.token):
        raise refusal()


async def _require_or_cookie(request: Request, given: _Given) -> None:
    offered = given.credentials.strip() if given else request.cookies.get(COOKIE, "")
    if not is_right(offered, request.app.state.token):
        raise refusal(DOCS_HELP)


required = Depends(_require)
required_or_cookie = Depends(_require_or_cookie)


def socket_protocol(socket: WebSocket) -> str | None:
    """The subprotocol to answer with, if the token came as one."""
    return next((offer for offer in socket.scope.get("subprotocols", []) if offer.startswith(_PROTOCOL)), None)


def socket_allowed(socket: WebSocket, token: str) -> bool:
    """True if the token came in the header, as `?token=`, or as the subprotocol `bearer.TOKEN` (browsers)."""
    scheme, _, header = socket.headers.get("authorization", "").partition(" ")
    offers = (header.strip() if scheme.lower() == "bearer" else "", socket.query_params.get("token", ""),
              (socket_protocol(socket) or "").removeprefix(_PROTOCOL))
    right = [is_right(offer, token) for offer in offers]
    return any(right)
