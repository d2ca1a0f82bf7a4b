"""Many subscribers of `/ws/alerts` in one process, for the fan-out benchmark: PORTS, how many, how many slow
ones, TOKEN.

Every client resumes on the next gateway with the last id that it saw. Slow ones have a small receive buffer; from
`dawdle` to `hurry` they read a few kB now and then. At 200,000 messages a second a library's client would be what is
measured, so sockets are read by epoll, and the protocol by hand: what a socket brings is compared, to the last byte,
with what others have brought, and only what is new is taken apart. Commands on stdin, one a line: `mark` (forget the
waits so far), `say`, `dawdle`, `hurry`; each is answered by a line of JSON.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LONGEST_MS = 60_000
#: A slow client takes so many bytes, so often.
SIP_BYTES, SIP_S = 4_096, 1.0
READ_BYTES = 65_536
BACK_S = (0.05, 0.5)
#: Clients that shake hands at once in the beginning; runs of bytes that are remembered.
AT_ONCE, KNOWN = 50, 4_096
_BEGIN = b'{"type":"alert","id":"'
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9
#: Bytes by which a run is looked up: the head of a frame and most of an id.
_HEAD = 48


@dataclass(slots=True, eq=False)
class Run:
    """Whole frames that came together: alerts by number, with the time each was sent, and what else there was.

    `size`: bytes of whole frames; what follows is the begin of one. `came`: when, in ms -> to how many that keep up.
    """

    data: bytes
    size: int = 0
    last: bytes = b""
    numbers: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    others: list[tuple[int, bytes]] = field(default_factory=list)
    came: dict[int, int] = field(default_factory=dict)


class Crowd:
    """What all clients share: the loop, and what every run of bytes says."""

    def __init__(self, ports: list[int], token: bytes) -> None:
        self.ports = ports
        self.token = token
        self.poll = select.epoll()
        self.reading: dict[int, Callable[[int], None]] = {}
        self.runs: list[Run] = []
        self.alerts: dict[bytes, tuple[int, int]] = {}
        self.received = self.resumed = self.gaps = 0
        self.dawdling = False
        self._known: dict[tuple[int, bytes], Run] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._number, call))

    def turn(self) -> None:
        """One turn of the loop."""
        wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else -1
        for number, events in self.poll.poll(wait):
            call = self.reading.get(number)
            if call is not None:
                call(events)
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def run(self, data: bytes) -> Run:
        """What these bytes say; read once for all who get the same."""
        key = len(data), data[:_HEAD]
        found = self._known.get(key)
        if found is None or found.data != data:
            if len(self._known) > KNOWN:
                self._known.clear()
            found = self._known[key] = self._read(data)
            self.runs.append(found)
        return found

    def _read(self, data: bytes) -> Run:
        run, at, size = Run(data), 0, len(data)
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
                run.last = data[begin + len(_BEGIN):data.index(b'"', begin + len(_BEGIN), end)]
                number, sent = self.alerts.get(run.last) or self._alert(run.last, data[begin:end])
                run.numbers.append(number)
                run.sent.append(sent)
            else:
                run.others.append((data[at] & 0xF, data[begin:end]))
            at = end
        run.size = at
        return run

    def _alert(self, key: bytes, payload: bytes) -> tuple[int, int]:
        """(number, sent at) of an alert; each is read once for all."""
        alert = json.loads(payload)["alert"]
        self.alerts[key] = found = (int(alert["alert_id"].rsplit("-", 1)[1]), alert["published_ms"])
        return found


class Client:
    """One subscriber, over as many connections as it takes. `runs`: all that it was sent."""

    def __init__(self, crowd: Crowd, slow: bool, ready: Callable[[], None]) -> None:
        self.crowd = crowd
        self.slow = slow
        self.ready = ready
        self.runs: list[Run] = []
        self.last = b"0"
        self.rest = b""
        self.upgraded = False
        self.turn = 0
        self.sock: socket.socket | None = None

    def connect(self) -> None:
        """Ask one gateway, after a break the other."""
        self.sock = sock = socket.socket()
        if self.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIP_BYTES)
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self.crowd.ports[self.turn % len(self.crowd.ports)]))
        self.rest, self.upgraded = b"", False
        self.crowd.reading[sock.fileno()] = self._connected
        self.crowd.poll.register(sock, select.EPOLLOUT)

    def _connected(self, events: int) -> None:
        assert self.sock is not None
        try:
            self.sock.send(b"GET /ws/alerts?last_id=%s HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\n"
                           b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                           b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n"
                           % (self.last, self.crowd.token))
        except OSError:         # refused, or gone meanwhile
            self._lost()
            return
        self.crowd.reading[self.sock.fileno()] = self._readable
        self.crowd.poll.modify(self.sock, select.EPOLLIN)

    def _lost(self) -> None:
        assert self.sock is not None
        self.crowd.reading.pop(self.sock.fileno())
        self.sock.close()
        self.sock = None
        self.crowd.resumed += self.upgraded
        self.turn += 1
        self.crowd.later(random.uniform(*BACK_S), self.connect)

    def _readable(self, events: int) -> None:
        assert self.sock is not None
        sips = self.slow and self.crowd.dawdling
        try:
            data = self.sock.recv(SIP_BYTES if sips else READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        if self.rest:
            data = self.rest + data
        if not self.upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.rest = data
                return
            assert data.startswith(b"HTTP/1.1 101"), data[:200]
            self.upgraded, data = True, data[end + 4:]
            self.ready()
        self._take(data)
        if sips and self.sock is not None:
            self.crowd.poll.modify(self.sock, 0)
            self.crowd.later(SIP_S, self.sip)

    def sip(self) -> None:
        """Read on."""
        if self.sock is not None and self.upgraded:
            self.crowd.poll.modify(self.sock, select.EPOLLIN)

    def _take(self, data: bytes) -> None:
        run = self.crowd.run(data)
        self.rest = data[run.size:]
        if run.numbers:
            self.runs.append(run)
            self.last = run.last
            self.crowd.received += len(run.numbers)
            if not self.slow:
                now = int(time.time() * 1000)
                run.came[now] = run.came.get(now, 0) + 1
        for opcode, payload in run.others:
            with contextlib.suppress(OSError):      # gone meanwhile: the next read says so
                self._other(opcode, payload)

    def _other(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING and self.sock is not None:
            self.sock.send(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif opcode == _CLOSE and self.sock is not None:
            self.sock.shutdown(socket.SHUT_RDWR)
        elif opcode == _TEXT and json.loads(payload)["type"] == "missed":
            self.crowd.gaps += 1


def said(crowd: Crowd, clients: list[Client], sent: int) -> dict[str, Any]:
    """What the crowd has seen; `sent` alerts are numbered from 0, and 0 does not ask who has them."""
    waits = np.zeros(LONGEST_MS, np.int64)
    for run in crowd.runs:
        for now, count in run.came.items():
            for at in run.sent:
                waits[min(max(0, now - at), LONGEST_MS - 1)] += count
    passed, total = np.cumsum(waits), int(waits.sum())
    found: dict[str, Any] = {"received": crowd.received, "resumed": crowd.resumed, "gaps": crowd.gaps,
                             "connected": sum(client.upgraded and client.sock is not None for client in clients)}
    found |= {name: int(np.searchsorted(passed, max(1, share * total))) if total else 0
              for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))}
    missed = repeated = 0
    for client in clients if sent else ():
        numbers = [number for run in client.runs for number in run.numbers]
        seen = np.bincount(np.array(numbers, np.int64), minlength=sent)[:sent]
        missed += int((seen == 0).sum())
        repeated += int(np.maximum(0, seen - 1).sum())
    return found | {"missed": missed, "repeated": repeated}


def main(ports: list[int], count: int, slow: int, token: bytes) -> None:
    """Connect everyone, then obey."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(ports, token)
    waiting: list[Client] = []

    def next_one() -> None:
        if waiting:
            waiting.pop().connect()

    clients = [Client(crowd, at >= count, next_one) for at in range(count + slow)]
    waiting.extend(reversed(clients))
    for _ in range(AT_ONCE):
        next_one()

    def obey(_: int) -> None:
        command, _, sent = os.read(0, 1_024).decode().strip().partition(" ")
        if not command:
            os._exit(0)
        if command == "mark":
            for run in crowd.runs:
                run.came.clear()
        elif command == "dawdle":
            crowd.dawdling = True
        elif command == "hurry":
            crowd.dawdling = False
            for client in clients:
                client.sip()
        print(json.dumps(said(crowd, clients, int(sent or 0))), flush=True)

    crowd.reading[0] = obey
    crowd.poll.register(0, select.EPOLLIN)
    while True:
        crowd.turn()


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1].split(",")], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode())
