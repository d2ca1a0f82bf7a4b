"""A subscriber of `/ws/alerts` that comes back after every break, from the last id that it has."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.bench.stack import TOKEN, Stack

AGAIN_S = 0.2


class Listener:
    """Listens in a thread of its own. `seen`: how often each alert came; `causes`: of those that came."""

    def __init__(self, running: Stack) -> None:
        self.seen: Counter[str] = Counter()
        self.causes: set[str] = set()
        self._address = f"{running.page.replace('http', 'ws')}/ws/alerts?last_id="
        self._last = "0"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._listen(),), daemon=True)
        self._over = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def wait_for(self, ids: set[str], seconds: float) -> None:
        """Wait until all of them came, but no longer than so many seconds."""
        end = time.monotonic() + seconds
        while ids - self.seen.keys() and time.monotonic() < end:
            time.sleep(0.1)

    async def _listen(self) -> None:
        over = asyncio.ensure_future(self._over.wait())
        while not over.done():
            listening = asyncio.ensure_future(self._converse())
            await asyncio.wait({over, listening}, return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _converse(self) -> None:
        try:
            async with connect(self._address + self._last, proxy=None,
                               additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "alert":
                        self.seen[message["alert"]["alert_id"]] += 1
                        self.causes.add(message["alert"]["cause"])
                        self._last = message["id"]
        except (OSError, WebSocketException):
            await asyncio.sleep(AGAIN_S)
