"""Many subscribers of `/ws/alerts` in one process, for the fan-out benchmark: PORTS, how many, how many slow
ones, TOKEN.

Every client resumes on the next gateway with the last id that it saw. Slow ones read a few kB now and then, through a
small receive buffer, until told to hurry. The protocol is read by hand: at 200,000 messages a second a library's client
would be what is measured. Commands on stdin, one a line: `mark` (forget the waits so far), `say`, `hurry`; each is
answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import socket
import struct
import sys
import time
from array import array
from typing import Any

MOST_ALERTS, LONGEST_MS = 100_000, 60_000
#: A slow client takes so many bytes, so often.
SIP_BYTES, SIP_S = 4_096, 1.0
BACK_S = (0.05, 0.5)
_BEGIN = b'{"type":"alert","id":"'
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9


class Crowd:
    """What all clients share: which alert an id is, and how long they waited."""

    def __init__(self, ports: list[int], token: bytes) -> None:
        self.ports = ports
        self.token = token
        self.alerts: dict[bytes, tuple[int, int]] = {}
        self.waits = array("Q", [0]) * LONGEST_MS
        self.received = 0
        self.resumed = 0
        self.gaps = 0
        self.hurried = False

    def known(self, key: bytes, payload: bytes) -> tuple[int, int]:
        """(number, sent at) of an alert; each is read once for all."""
        alert = json.loads(payload)["alert"]
        self.alerts[key] = found = (int(alert["alert_id"].rsplit("-", 1)[1]), alert["published_ms"])
        return found


class Client(asyncio.Protocol):
    """One subscriber, over as many connections as it takes. `seen[n]`: how often alert n came."""

    def __init__(self, crowd: Crowd, slow: bool) -> None:
        self.crowd = crowd
        self.slow = slow
        self.seen = bytearray(MOST_ALERTS)
        self.last = b"0"
        self.buffer = b""
        self.upgraded = False
        self.turn = 0
        self.transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Keep trying, one gateway after the other."""
        loop = asyncio.get_running_loop()
        while True:
            port = self.crowd.ports[self.turn % len(self.crowd.ports)]
            sock = socket.socket()
            if self.slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIP_BYTES)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await loop.create_connection(lambda: self, sock=sock)
                return
            except OSError:
                sock.close()
                self.turn += 1
                await asyncio.sleep(random.uniform(*BACK_S))

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer, self.upgraded = transport, b"", False
        transport.write(b"GET /ws/alerts?last_id=%s HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\n"
                        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n"
                        % (self.last, self.crowd.token))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.turn += 1
        self.crowd.resumed += 1
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(*BACK_S), lambda: loop.create_task(self.connect()))

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        at = 0
        if not self.upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = data
                return
            assert data.startswith(b"HTTP/1.1 101"), data[:200]
            self.upgraded, at = True, end + 4
        self.buffer = data[self._frames(data, at):]
        if self.slow and not self.crowd.hurried and self.transport is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(SIP_S, self._sip)

    def _sip(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _frames(self, data: bytes, at: int) -> int:
        """Take whole frames; where the first that is not whole begins."""
        crowd, seen, size = self.crowd, self.seen, len(data)
        now, waits, alerts = int(time.time() * 1000), crowd.waits, crowd.alerts
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, begin = (data[at + 2] << 8) | data[at + 3], at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, begin = struct.unpack_from(">Q", data, at + 2)[0], at + 10
            end = begin + length
            if end > size:
                break
            if data.startswith(_BEGIN, begin):
                key = data[begin + len(_BEGIN):data.index(b'"', begin + len(_BEGIN), end)]
                number, sent = alerts.get(key) or crowd.known(key, data[begin:end])
                seen[number] += 1
                if not self.slow:
                    waits[min(max(0, now - sent), LONGEST_MS - 1)] += 1
                crowd.received += 1
                self.last = key
            else:
                self._other(data[at] & 0xF, data[begin:end])
            at = end
        return at

    def _other(self, opcode: int, payload: bytes) -> None:
        assert self.transport is not None
        if opcode == _PING:
            self.transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif opcode == _CLOSE:
            self.transport.close()
        elif opcode == _TEXT and json.loads(payload)["type"] == "missed":
            self.crowd.gaps += 1


def said(crowd: Crowd, clients: list[Client], sent: int) -> dict[str, Any]:
    """What the crowd has seen; `sent` alerts are numbered from 0."""
    counts = [client.seen[:sent] for client in clients]
    total = sum(crowd.waits)
    found: dict[str, Any] = {"received": crowd.received, "resumed": crowd.resumed, "gaps": crowd.gaps,
                             "connected": sum(client.upgraded and client.transport is not None for client in clients),
                             "missed": sum(seen.count(0) for seen in counts),
                             "repeated": sum(sum(seen) - (len(seen) - seen.count(0)) for seen in counts)}
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)):
        passed, ms = 0, 0
        while total and ms < LONGEST_MS and passed + crowd.waits[ms] < share * total:
            passed, ms = passed + crowd.waits[ms], ms + 1
        found[name] = ms
    return found


async def main(ports: list[int], count: int, slow: int, token: bytes) -> None:
    """Connect everyone, then obey."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(ports, token)
    clients = [Client(crowd, False) for _ in range(count)] + [Client(crowd, True) for _ in range(slow)]
    for at in range(0, len(clients), 50):
        await asyncio.gather(*(client.connect() for client in clients[at:at + 50]))
    while True:
        line = await asyncio.to_thread(sys.stdin.readline)
        command, _, sent = line.strip().partition(" ")
        if not command:
            os._exit(0)
        if command == "mark":
            crowd.waits = array("Q", [0]) * LONGEST_MS
        elif command == "hurry":
            crowd.hurried = True
            for client in clients:
                client._sip()
        print(json.dumps(said(crowd, clients, int(sent or 0))), flush=True)


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1].split(",")], int(sys.argv[2]), int(sys.argv[3]),
                     sys.argv[4].encode()))
