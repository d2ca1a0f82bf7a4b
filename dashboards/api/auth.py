"""A bearer token guards everything under /api and /ws: which, and what it may do, `dashboards.api.tokens` says.

A token that is limited to environments may ask only routes that take an environment, and must name one of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.websockets import WebSocket

from dashboards.api import metrics
from dashboards.api.tokens import Grant, Scope, TokenBook, digest
from streams.kept import kept
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
    return given or kept(settings.data_dir / TOKEN_FILE, lambda: secrets.token_urlsafe(24))


def is_right(given: str, token: str) -> bool:
    """Compare in a time that tells nothing of the token; what is empty is wrong."""
    same = secrets.compare_digest(digest(given), digest(token))
    return same and bool(token)


def refusal(help_text: str = HELP) -> HTTPException:
    """401, and what to do."""
    return HTTPException(401, {"code": "unauthorized", "message": help_text}, headers={"WWW-Authenticate": "Bearer"})


class DeniedError(Exception):
    """A token that will not do, or a page that may not ask: status, code and what to do."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def granted(book: TokenBook, offers: Iterable[str], scope: Scope, help_text: str = HELP) -> Grant:
    """The grant of the first token that is known.

    Raises:
        DeniedError: none is known, it has expired, or it may not.
    """
    given = [offer for offer in offers if offer]
    found = next((grant for offer in given if (grant := book.find(offer))), None)
    if found is None:
        raise _counted(401, "wrong_token" if given else "no_token", "unauthorized", help_text)
    if book.expired(found):
        raise _counted(401, "expired", "token_expired", f"the token {found.name} has expired; ask for a new one")
    if not found.may(scope):
        raise _counted(403, "scope", "scope_missing", f"the token {found.name} lacks the scope {scope}")
    return found


def _counted(status: int, reason: str, code: str, message: str) -> DeniedError:
    metrics.REFUSED.labels(reason).inc()
    return DeniedError(status, code, message)


def _http(error: DeniedError) -> HTTPException:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return HTTPException(error.status, {"code": error.code, "message": error.message}, headers=headers)


def needs(scope: Scope, own: bool = False) -> Any:
    """A dependency: the grant of a token that has the scope and may see the environment that is asked for.

    `own`: the route shows nothing of any environment, only what the token's holder has given.
    """
    async def require(request: Request, given: _Given) -> Grant:
        try:
            found = granted(request.app.state.tokens, [given.credentials.strip() if given else ""], scope)
            if found.environments and request.method == "GET" and not own:
                _limited(request, found)
        except DeniedError as error:
            raise _http(error) from None
        request.state.grant = found
        return found

    return require


def _limited(request: Request, grant: Grant) -> None:
    asked = request.query_params.get("environment", "")
    takes = _takes_environment(getattr(request.scope.get("route"), "dependant", None))
    if not takes or not asked or not grant.sees(asked):
        named = ", ".join(grant.environments)
        raise _counted(403, "environment", "environment_denied",
                       f"the token {grant.name} sees {named} only: ask with environment= one of them"
                       if takes else f"the token {grant.name} sees {named} only; this route shows all")


def _takes_environment(dependant: Any) -> bool:
    """True if a route, or what it depends on, reads `environment` from the query."""
    return dependant is not None and (any(one.alias == "environment" for one in dependant.query_params)
                                      or any(_takes_environment(one) for one in dependant.dependencies))


async def _require_or_cookie(request: Request, given: _Given) -> None:
    offered = given.credentials.strip() if given else request.cookies.get(COOKIE, "")
    try:
        granted(request.app.state.tokens, [offered], "read", DOCS_HELP)
    except DeniedError as error:
        raise _http(error) from None


required = Depends(needs("read"))
required_or_cookie = Depends(_require_or_cookie)


def socket_protocol(socket: WebSocket) -> str | None:
    """The subprotocol to answer with, if the token came as one."""
    return next((offer for offer in socket.scope.get("subprotocols", []) if offer.startswith(_PROTOCOL)), None)


def socket_grant(socket: WebSocket, book: TokenBook, environment: str, allowed_origins: Iterable[str]) -> Grant:
    """The grant of a socket: its token came in the header, as `?token=`, or as `bearer.TOKEN` (browsers).

    Raises:
        DeniedError: a foreign page, no right token, another environment, or too many sockets.
    """
    origin = socket.headers.get("origin")
    if origin is not None and not _same_origin(origin, socket.headers.get("host", ""), allowed_origins):
        raise _counted(403, "origin", "foreign_origin", "this page is of another origin: list it in "
                                                        "STREAMGAUGE_ALLOWED_ORIGINS")
    scheme, _, header = socket.headers.get("authorization", "").partition(" ")
    found = granted(book, (header.strip() if scheme.lower() == "bearer" else "", socket.query_params.get("token", ""),
                           (socket_protocol(socket) or "").removeprefix(_PROTOCOL)), "read",
                    f"{HELP}; or ?token=, or the subprotocol bearer.TOKEN")
    if environment and not found.sees(environment):
        raise _counted(403, "environment", "environment_denied",
                       f"the token {found.name} sees {', '.join(found.environments)} only")
    if book.sockets[found.name] >= found.max_sockets:
        raise _counted(429, "token_sockets", "too_many_sockets",
                       f"the token {found.name} has {found.max_sockets} sockets open; close one")
    return found


def _same_origin(origin: str, host: str, allowed: Iterable[str]) -> bool:
    return origin.rstrip("/") in allowed or (bool(host) and urlsplit(origin).netloc.lower() == host.lower())
