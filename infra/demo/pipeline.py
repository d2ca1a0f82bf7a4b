"""A pipeline of one's own for a scored run: embedded services and one worker, gone when the run is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from infra.embedded.process import EmbeddedError, die_with_parent, free_port
from infra.embedded.services import embedded
from infra.migrations import FOLDER
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from streams.stores.postgres import migrate

READY_S, STOP_S = 90.0, 20.0


@contextmanager
def own_pipeline(configured: Settings, say: Callable[[str], None]) -> Iterator[Settings]:
    """Start services in a folder of their own and a worker on them; yields settings that name them."""
    with tempfile.TemporaryDirectory(prefix="streamgauge-demo-") as folder:
        apart = configured.model_copy(update={"data_dir": Path(folder)})
        say("starting a broker, stores and a worker for this run")
        with embedded(apart) as environment:
            given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items()}
            named = apart.model_copy(update=Settings(**given).model_dump(  # type: ignore[arg-type]
                include={"kafka_url", "redis_url", "database_url"}))
            asyncio.run(create_topics(named))
            asyncio.run(migrate(named, FOLDER))
            port = free_port()
            with _worker({**os.environ, **environment, f"{PREFIX}DATA_DIR": folder,
                          f"{PREFIX}WORKER_PORT": str(port), f"{PREFIX}LOG_FORMAT": "json"},
                         Path(folder) / "worker.log") as process:
                _wait_ready(process, f"http://127.0.0.1:{port}/readyz", Path(folder) / "worker.log")
                yield named.model_copy(update={"data_dir": configured.data_dir})


def _wait_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until the worker takes events in: at speed 30 each second of its start would be half a minute behind.

    Raises:
        EmbeddedError: it has ended, or is not ready in time; with the end of its log.
    """
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):  # noqa: S310  (our own address)
            return
        time.sleep(0.1)
    ending = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
    what = f"did not get ready within {READY_S:.0f} s" if process.poll() is None else "has ended"
    raise EmbeddedError(f"The run's worker {what}: {ending[0][-300:]}")


@contextmanager
def _worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", "worker"], env=environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, start_new_session=True, preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
