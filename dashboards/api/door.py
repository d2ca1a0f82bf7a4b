"""uvicorn's two protocols with limits: how many connections, how long a request may take to come, how large a frame is.

A WebSocket also gets a way past ASGI: `write` puts frames that were encoded once for many sockets onto the transport.
For that, compression (permessage-deflate, RFC 7692) is agreed without context takeover in either direction, so that a
message's compressed form is the same for every socket that agreed on the same window.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, cast

import h11
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from dashboards.api import metrics
from streams.settings import Settings

EXTENSION = "streamgauge.line"
#: The largest window we compress with, and zlib's memory for it: 20 kB a socket instead of 270.
WINDOW_BITS, COMPRESS = 12, {"memLevel": 5}
PLAIN = 0
#: Of a request with its body; rules are the longest that anybody has to send.
REQUEST_BYTES = 1_048_576
#: What the kernel may hold for a socket that does not read; by itself it takes megabytes.
KERNEL_BYTES = 131_072
TOO_BIG = 1009


class Http(H11Protocol):
    """A connection that must bring a whole request within `handshake_s`, and finds room or is cut."""

    most = 0
    handshake_s = 10.0
    _deadline: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        metrics.CONNECTIONS.set(len(self.connections))
        if len(self.connections) > self.most:
            self._cut("connections")
        else:
            self._expect()

    def data_received(self, data: bytes) -> None:
        self._expect()
        super().data_received(data)
        self._bytes += len(data)
        if not self._half_way():
            self._came()
            self._bytes = 0
        elif self._bytes > REQUEST_BYTES:       # bodies are read before anybody asks for the token
            self._cut("request_too_large")

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._came()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)
        metrics.CONNECTIONS.set(len(self.connections))

    def _half_way(self) -> bool:
        """True while a head or a body has begun and is not whole."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        return begun or self.conn.their_state is h11.SEND_BODY

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.handshake_s, self._cut, "slow_request")

    def _came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self, reason: str) -> None:
        metrics.REFUSED.labels(reason).inc()
        self.transport.abort()


class Line(WebSocketsSansIOProtocol):
    """A WebSocket that the application can reach: whether it takes more, and a way to write encoded frames."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        extensions = [ServerPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS, compress_settings=COMPRESS)]
        self.conn = ServerProtocol(extensions=extensions, max_size=self.config.ws_max_size, logger=self.logger)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][EXTENSION] = {"line": self}

    @property
    def clear(self) -> bool:
        """True while the transport takes more than it holds back."""
        return self.writable.is_set()

    @property
    def window_bits(self) -> int:
        """The agreed window of what we send; PLAIN: no compression."""
        agreed = [one for one in self.conn.extensions or () if isinstance(one, PerMessageDeflate)]
        return agreed[0].local_max_window_bits if agreed else PLAIN

    def write(self, frames: bytes) -> None:
        """Whole frames, encoded for `window_bits`; nothing once the socket is closing."""
        if not (self.close_sent or self.disconnected or self.transport.is_closing()):
            self.transport.write(frames)

    def cut(self, reason: str) -> None:
        """End a socket that would not read a close frame either."""
        metrics.CLOSED.labels(reason).inc()
        self.transport.abort()

    def keepalive_timeout(self) -> None:
        """No answer to a ping: what waits for it would be held until the peer goes, so drop it."""
        super().keepalive_timeout()
        self.cut("no_pong")

    def handle_parser_exception(self) -> None:
        code = self.conn.close_sent.code if self.conn.close_sent is not None else 0
        metrics.CLOSED.labels("frame_too_large" if code == TOO_BIG else "protocol_error").inc()
        super().handle_parser_exception()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        metrics.CONNECTIONS.set(len(self.connections))


def line_of(found: WebSocket) -> Line:
    """The line under a WebSocket of this gateway."""
    return cast(Line, found.scope["extensions"][EXTENSION]["line"])


def protocols(settings: Settings, descriptors: int) -> tuple[type[Http], type[Line]]:
    """The protocol classes of a server. `descriptors`: how many files the process may have open."""
    most = min(settings.max_connections, max(16, descriptors - 128))
    return type("LimitedHttp", (Http,), {"most": most, "handshake_s": settings.handshake_ms / 1000}), Line


def frame(message: bytes, bits: int) -> bytes:
    """A text message as one unmasked frame, compressed with a window of so many bits (PLAIN: not)."""
    extensions: Iterable[Any] = () if bits == PLAIN else (PerMessageDeflate(True, True, bits, bits, COMPRESS),)
    return bytes(Frame(Opcode.TEXT, message).serialize(mask=False, extensions=list(extensions)))
